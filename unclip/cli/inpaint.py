"""`unclip inpaint`: a part of a picture drawn anew, the rest kept to the pixel."""

import argparse
from typing import Any

from unclip.cli.edits import add_options, run_edit, whole
from unclip.errors import UnclipError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "inpaint",
        description="Draw the masked part of a picture anew. Every other pixel stays as it is; the size too.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="without --mask and --box, its transparent part is drawn")
    parser.add_argument("--mask", metavar="FILE", help="picture of the same size: transparent, or white, where to draw")
    parser.add_argument("--box", type=whole, metavar="L,T,R,B", help="draw within this box: left, top, right, bottom")
    add_filling(parser)


def add_filling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the whole picture should show")
    parser.add_argument("--rounds", type=int, default=4, metavar="N",
                        help="times each step is taken, for the new part to fit the old (default: 4)")  # fmt: skip
    add_options(parser, n=1, guidance=2.0)


def run(args: argparse.Namespace) -> int:
    if args.mask and args.box:
        raise UnclipError("give --mask or --box, not both")
    mask = {"mask": args.box} if args.box else {}
    return run_edit(args, "inpaint", [args.picture, *([args.mask] if args.mask else [])], **mask,
                    prompt=args.prompt, n=args.n, rounds=args.rounds)  # fmt: skip
