"""What the commands that manipulate pictures share: options, pictures in, files out. Not a command itself."""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unclip
from unclip.cli.console import warn
from unclip.cli.generate import SETTINGS, add_machine_options, add_settings, check_writable, load, write

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

FILMS = (".gif", ".webp", ".mp4")  # files that hold all frames
USED = [name for name in SETTINGS if name not in ("sampler", "fast")]  # manipulations are DDIM's, in many steps


def add_options(
    parser: argparse.ArgumentParser, n: int | None = None, guidance: float = 1.0, film: bool = False
) -> None:
    """n: how many pictures by default, None where their number follows; film: whether the pictures are frames."""
    several = "all frames in one gif, webp or mp4, or numbered png" if film else "numbered if there are several"
    parser.add_argument("-o", "--out", default=".", metavar="PATH", help=f"file, {several}, or a folder (default: .)")
    if n is not None:
        parser.add_argument("-n", type=int, default=n, metavar="N", help=f"pictures (default: {n})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first picture (default: 0)")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to steer away from")
    add_settings(parser, USED, guidance=guidance)
    parser.add_argument("--grid", action="store_true", help="one sheet of all pictures, instead of a file for each")
    parser.add_argument("--no-metadata", action="store_true", help="leave out of the file how the picture was made")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each picture instead of its path")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_machine_options(parser)


def numbers(text: str) -> list[float]:
    """1,2.5 → [1.0, 2.5], for argparse."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 1,2") from e


def whole(text: str) -> list[int]:
    values = numbers(text)
    if any(v != int(v) for v in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 1,2")
    return [int(v) for v in values]


def read(path: str) -> tuple[Any, str]:
    """A picture file, or the pair that `unclip invert` wrote, and the sha256 that a record names it by."""
    from unclip import metadata
    from unclip.edit import Latents
    from unclip.files import sha256
    from unclip.pictures import read as read_picture

    if path.endswith(".safetensors"):
        return Latents.load(path), sha256(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        image = read_picture(path)
    for warning in told:
        warn(warning.message)
    return image, metadata.pixels(image)


def common(args: argparse.Namespace) -> dict[str, Any]:
    """Settings, seed and negative prompt as `edit.apply` takes them."""
    chosen = {name: getattr(args, name) for name in USED if getattr(args, name) is not None}
    return chosen | {"seed": args.seed, "negative_prompt": args.negative_prompt, "progress": not args.quiet}


def run_edit(
    args: argparse.Namespace,
    verb: str,
    paths: Sequence[str],
    film: bool = False,
    more: "Callable[[UnCLIP], dict[str, Any]] | None" = None,
    **options: Any,
) -> int:
    """Do `verb` with the pictures at `paths`, and write what comes of it.

    film: the pictures are frames. more: options that are found with the system, and not noted in the file.
    """
    check_writable([names(args.out, verb, 1)[0]], film)
    sources, digests = zip(*map(read, paths), strict=True)
    system = load(args, args.weights)

    from unclip import edit

    began = time.monotonic()
    drawn = edit.apply(system, verb, sources, **options, **(more(system) if more else {}), **common(args))
    records = [
        edit.record(system, drawn, i, verb, digests, options) | {"version": unclip.__version__}
        for i in range(len(drawn.images))
    ]
    save(args, verb, drawn.images, records, began, film)
    return 0


def save(args: argparse.Namespace, stem: str, images: list[Any], records: list[dict[str, Any]], began: float,
         film: bool = False) -> None:  # fmt: skip
    """One file with all frames, one sheet, or a file for each picture."""
    from unclip.pictures import sheet

    paths = names(args.out, stem, len(images))
    if film and Path(args.out).suffix.lower() in FILMS and not args.grid:
        write(Path(args.out), images[0], records[0], began, args, images[1:])
    elif args.grid:
        columns = min(len(images), 8)
        record = records[0] | {"edit": records[0]["edit"] | {"columns": columns}}
        write(names(args.out, stem, 1)[0], sheet(images, columns), record, began, args)
    else:
        for path, image, record in zip(paths, images, records, strict=True):
            write(path, image, record, began, args)


def names(out: str, stem: str, count: int) -> list[Path]:
    """The file of each picture; `out` is a file, or a folder if it is one or ends in a slash."""
    path = Path(out)
    if out.endswith("/") or (path.is_dir() and not path.suffix):
        path = path / f"{stem}.png"
    if count == 1:
        return [path]
    digits = len(str(count - 1))  # so that their alphabetical order is theirs
    return [path.with_name(f"{path.stem}-{i:0{digits}}{path.suffix}") for i in range(count)]

