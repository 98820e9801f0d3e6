"""`unclip variations`: a picture drawn again with the same z_i, more or less freely."""

import argparse
from typing import Any

from unclip.cli.edits import add_options, run_edit


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "variations",
        description="Draw pictures that mean the same as one of yours: its CLIP embedding z_i and its noise x_T, "
        "decoded with some noise added on the way.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="what to vary")
    parser.add_argument("--eta", type=float, default=1.0, metavar="X",
                        help="noise on the way: 0 gives the picture back (default: 1)")  # fmt: skip
    add_options(parser, n=4)


def run(args: argparse.Namespace) -> int:
    return run_edit(args, "variations", [args.picture], n=args.n, eta=args.eta)
