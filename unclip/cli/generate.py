"""`unclip generate`: captions to picture files."""

import argparse
import errno
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unclip
from unclip.cli.console import warn
from unclip.errors import UnclipError
from unclip.settings import CHOICES, Progress, Request, Settings, check_whole

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

SETTINGS = {
    "size": (int, "PIXELS", "side of the picture, 64, 256 or 1024 (default: 256)"),
    "steps": (int, "N", "steps of the decoder"),
    "guidance": (float, "X", "how strictly the decoder keeps to the caption; 1 is no guidance"),
    "prior_steps": (int, "N", "steps of the prior"),
    "prior_guidance": (float, "X", "how strictly the prior keeps to the caption"),
    "upsampler_steps": (int, "N", "steps of the upsampler from 64 to 256"),
    "upsampler_1024_steps": (int, "N", "steps of the upsampler from 256 to 1024"),
    "fast": (int, "N", "draw by few-step students, in N calls a stage, 1 to 8; guidance is within"),
    "tile": (int, "PIXELS", "side of what an upsampler sees at once: bounds the memory (default: the whole picture)"),
    "best_of": (int, "N", "picture embeddings drawn, of which the nearest to the caption is decoded"),
    "sampler": (str, "NAME", f"of the decoder: {', '.join(CHOICES['sampler'])}"),
    "spacing": (str, "NAME", f"of the decoder's steps: {', '.join(CHOICES['spacing'])}"),
    "guidance_z": (float, "X", "a scale for z_i alone, --guidance being the caption's (default: one for both)"),
    "guidance_start": (float, "X", "guide the decoder from this share of its way"),
    "guidance_stop": (float, "X", "guide the decoder up to this share of its way"),
    "clip_guidance": (float, "X", "pull of a noised CLIP, of weights that have one; GLIDE's is 3, with --guidance 1"),
    "guidance_rescale": (float, "X", "share of the contrast added by guidance that is taken back"),
    "threshold": (float, "X", "dynamic thresholding at this quantile, as 0.995 (default: none)"),
    "prior": (str, "NAME", f"{', '.join(CHOICES['prior'])}; none decodes the caption's own embedding"),
    "prior_sampler": (str, "NAME", f"of the diffusion prior: {', '.join(CHOICES['prior_sampler'])}"),
    "noise_level": (int, "N", "noise on z_i, 0 to 999, for the caption to count more (Stable unCLIP)"),
    "hint": (str, "FILE", "a picture of depths that leads the decoder (Kandinsky 2.2 with ControlNet)"),
    "temperature": (float, "X", "of the autoregressive prior: below 1 the likelier"),
    "top_p": (float, "X", "the autoregressive prior draws from the likeliest that make up so much"),
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        description="Draw pictures of captions. The path of each is printed as soon as it is whole; picture i has "
        "seed + i, and does not depend on the others.",
    )
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to show; - reads standard input, one a line")
    parser.add_argument(
        "-o", "--out", default=".", metavar="PATH",
        help="picture file (png, webp, jpg), numbered if there are several, or a folder (default: .)",
    )  # fmt: skip
    parser.add_argument("-n", type=int, default=1, metavar="N", help="pictures of each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first picture (default: 0)")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to steer away from")
    add_settings(parser, SETTINGS)
    parser.add_argument("--grid", action="store_true", help="one sheet of all pictures instead of a file for each")
    parser.add_argument("--previews", metavar="FOLDER", help="also write the estimate of the picture after every step")
    parser.add_argument("--no-metadata", action="store_true", help="leave out of the file how the picture was made")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each picture instead of its path")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_machine_options(parser)


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str], **defaults: Any) -> None:
    """An option for each of these settings; defaults: of a command that has others than `Settings`."""
    defaults = {f.name: f.default for f in fields(Settings)} | defaults
    for name in names:
        kind, metavar, text = SETTINGS[name]
        text += "" if defaults[name] is None else f" (default: {defaults[name]})"
        parser.add_argument(option(name), type=kind, metavar=metavar, help=text)


def add_machine_options(parser: argparse.ArgumentParser, weights: str | None = "mini") -> None:
    text = "shipped name, folder, or org/repo of the hub" + (f" (default: {weights})" if weights else "")
    parser.add_argument("--weights", default=weights, metavar="NAME", help=text)
    parser.add_argument("--lora", action="append", default=[], type=scaled, metavar="FILE:X",
                        help="add an adapter to the weights, X times (default: once); repeat")  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: the best there is)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", metavar="NAME",
                        help="what to compute in: float32 (default) or bfloat16")  # fmt: skip
    parser.add_argument("--memory", metavar="SIZE", help="stay below it, as 6GB: networks are loaded when their turn "
                        "comes, by a plan that is printed (default: all are loaded at once)")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")


def scaled(text: str) -> tuple[str, float]:
    """style.safetensors:0.8 → its path and 0.8; without a number, 1."""
    path, _, scale = text.rpartition(":")
    try:
        return (path, float(scale)) if path else (text, 1.0)
    except ValueError:
        return text, 1.0


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(args: argparse.Namespace) -> int:
    chosen = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    request = Request.of(read_prompts(args.prompts), args.n, args.seed, args.negative_prompt, keywords=chosen)
    paths = name_files(args.out, request, args.grid)
    check_writable(paths)
    if args.previews:
        check_writable([Path(args.previews) / "x.png"])
    system = load(args, args.weights)

    request = system.fit(replace(request, settings=Settings(**system.defaults | chosen)))
    for text in dict.fromkeys([*request.prompts, request.negative]):
        if unseen := system.cut(text):
            warn(f"a prompt is too long for these weights; left out: {unseen!r}")
    if args.previews:
        stems = [path.stem for path in name_files(args.out, request, grid=False)]
        request = replace(request, callback=Previews(Path(args.previews), stems))
    draw_files(system, request, paths, args)
    return 0


def read_prompts(arguments: Sequence[str]) -> list[str]:
    """The prompts of the command line, with `-` replaced by the lines of standard input."""
    prompts = []
    for argument in arguments:
        if argument != "-":
            prompts.append(argument)
            continue
        try:
            lines = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as e:
            raise UnclipError(f"standard input is not UTF-8 at byte {e.start}; convert it first") from e
        prompts += [line for line in lines if line.strip()]
    if not prompts:
        raise UnclipError("standard input holds no prompt; write one a line")
    return prompts


def name_files(out: str, request: Request, grid: bool) -> list[Path]:
    """The file of each picture, or of the one sheet; `out` is a file, or a folder if it is one or ends in a slash."""
    path, several = Path(out), len(request.seeds) > 1 and not grid
    if out.endswith("/") or (path.is_dir() and not path.suffix):
        jobs = list(zip(request.prompts, request.seeds, strict=True))[: 1 if grid else None]
        return [path / f"{slug(prompt)}-{seed}.png" for prompt, seed in jobs]
    if not several:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(len(request.seeds))]


def slug(prompt: str) -> str:
    """A file name's part of letters and digits of any script."""
    return re.sub(r"[\W_]+", "-", prompt.lower())[:60].strip("-") or "picture"


def check_writable(paths: Sequence[Path], film: bool = False) -> None:
    """Say now what would fail once the pictures are drawn."""
    from unclip.files import writing
    from unclip.metadata import picture_format

    picture_format(paths[0], film)
    longest = max(paths, key=lambda p: len(os.fsencode(p.name)))
    with writing(longest):
        probe = longest.with_name(f".{longest.name}.{os.getpid()}.tmp")
        probe.touch()
        probe.unlink()
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "", str(path))


def load(args: argparse.Namespace, weights: str) -> "UnCLIP":
    """The system that the machine options ask for."""
    from unclip.published import locate

    folder = locate(weights)
    set_threads(args.threads)

    import torch

    from unclip.machine import native_bfloat16, pick_device
    from unclip.pipeline import UnCLIP

    device, dtype = pick_device(args.device), getattr(torch, args.dtype)
    if dtype == torch.bfloat16 and not native_bfloat16(device):
        warn(f"{device} has no bfloat16 of its own: float32 is many times faster here")
    system = UnCLIP.from_pretrained(folder, device=device, dtype=dtype, memory=args.memory)
    for file, scale in args.lora:
        system.load_lora(file, scale)
    return system


def set_threads(threads: int | None) -> None:
    """None leaves torch's own choice, a thread for each core."""
    if threads is not None:
        check_whole("--threads", threads, 1, 1024)
        import torch

        torch.set_num_threads(threads)


def draw_files(system: "UnCLIP", request: Request, paths: Sequence[Path], args: argparse.Namespace) -> None:
    """Write each picture as soon as it is drawn, or all on one sheet at the end."""
    from unclip.pictures import sheet

    images, began = [], time.monotonic()
    for i, (image, _) in enumerate(system.draw(request, progress=not args.quiet)):
        record = system.record(request, i) | {"version": unclip.__version__}
        images.append(image)
        if not args.grid:
            write(paths[i], image, record, began, args)
            images, began = [], time.monotonic()
    if args.grid:
        prompts = request.prompts[:: args.n]
        square = -(-len(images) // max(1, round(len(images) ** 0.5)))
        columns = args.n if len(prompts) > 1 and args.n > 1 else square  # a row a prompt, or all together
        layout = {"prompts": prompts, "n": args.n, "columns": columns}
        record = system.record(request, 0) | {"version": unclip.__version__, "grid": layout}
        write(paths[0], sheet(images, columns), record, began, args)


def write(path: Path, image: Any, record: dict[str, Any], began: float, args: argparse.Namespace,
          frames: Sequence[Any] = ()) -> None:  # fmt: skip
    import hashlib
    import json

    from tqdm import tqdm

    from unclip import metadata
    from unclip.files import write_bytes

    record = record | {"pixels": metadata.pixels(image)}
    form = metadata.picture_format(path, bool(frames))
    data = metadata.encode(image, form, None if args.no_metadata else record, frames)
    write_bytes(path, data)
    seconds, digest = round(time.monotonic() - began, 3), hashlib.sha256(data).hexdigest()
    about = {"path": str(path), "seed": record["seed"], "prompt": record["prompt"],
             "params": record["settings"] | {"negative_prompt": record["negative_prompt"]},
             "seconds": seconds, "sha256": digest}  # fmt: skip
    tqdm.write(json.dumps(about, ensure_ascii=False) if args.json else str(path), sys.stdout)  # above the progress bar
    sys.stdout.flush()


class Previews:
    """Writes the estimate after each step: FOLDER/NAME-STAGE-STEP.png."""

    def __init__(self, folder: Path, stems: Sequence[str]):
        self.folder, self.stems = folder, stems

    def __call__(self, p: Progress) -> None:
        from unclip.files import atomic
        from unclip.pictures import to_pil

        if p.estimate.ndim == 3 and len(p.estimate) == 3:  # neither z_i nor a latent
            with atomic(self.folder / f"{self.stems[p.image]}-{p.stage}-{p.step:04}.png") as path:
                to_pil(p.estimate[None])[0].save(path, "PNG")
