"""`unclip upscale`: a picture of one's own, enlarged by the upsamplers."""

import argparse
import time
from pathlib import Path
from typing import Any

import unclip
from unclip.cli.edits import read
from unclip.cli.generate import SETTINGS, add_machine_options, add_settings, check_writable, load, slug, write
from unclip.settings import Request, Settings

USED = [name for name in SETTINGS if name.startswith(("upsampler", "tile"))]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "upscale",
        description="Enlarge a picture of any shape by the upsamplers that lead from its size to the size asked, "
        "each at most fourfold. Detail is made up, not recovered.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="picture file; transparent parts become white")
    parser.add_argument("--to", type=int, metavar="PIXELS", help="longer side (default: what the largest stage draws)")
    parser.add_argument("--from", dest="start", type=int, metavar="PIXELS",
                        help="first shrink the longer side to this: the stages from there are done anew")  # fmt: skip
    parser.add_argument("--skip", type=int, action="append", default=[], metavar="SIZE",
                        help="leave the work of the stage to SIZE, such as 256, to interpolation")  # fmt: skip
    parser.add_argument("-o", "--out", default=".", metavar="PATH", help="picture file, or a folder (default: .)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default: 0)")
    add_settings(parser, USED)
    parser.add_argument("--no-metadata", action="store_true", help="leave out of the file how the picture was made")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the path")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    path = Path(args.out)
    if args.out.endswith("/") or (path.is_dir() and not path.suffix):
        path = path / f"{slug(Path(args.picture).stem)}-large.png"
    check_writable([path])
    settings: dict[str, Any] = {name: getattr(args, name) for name in USED if getattr(args, name) is not None}
    Settings(**settings)

    source, digest = read(args.picture)
    system = load(args, args.weights)

    from unclip.cascade import upscale
    from unclip.edit.session import open_picture

    began, source = time.monotonic(), open_picture(source)
    options = {"to": args.to, "start": args.start, "skip": args.skip}
    image = upscale(system, source, seed=args.seed, progress=not args.quiet, **options, **settings)
    request = Request([""], [args.seed], "", Settings(size=max(image.size), **settings))
    edit = {"verb": "upscale", "options": options, "sources": [digest]}
    record = system.record(request, 0) | {"edit": edit, "version": unclip.__version__}
    write(path, image, record, began, args)
    return 0
