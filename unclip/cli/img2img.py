"""`unclip img2img`: a picture taken as the beginning of another."""

import argparse
from typing import Any

from unclip.cli.edits import add_options, run_edit


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "img2img",
        description="Draw pictures of a caption that begin as one of yours: noised for a part of the way, then "
        "denoised as the caption says.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="what to begin from")
    parser.add_argument("prompt", metavar="PROMPT", help="what to show")
    parser.add_argument("--strength", type=float, default=0.6, metavar="X",
                        help="how much is drawn anew: 0 nothing, 1 all (default: 0.6)")  # fmt: skip
    add_options(parser, n=1, guidance=2.0)


def run(args: argparse.Namespace) -> int:
    return run_edit(args, "img2img", [args.picture], prompt=args.prompt, strength=args.strength, n=args.n)
