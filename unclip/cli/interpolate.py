"""`unclip interpolate`: pictures between pictures, and between pictures and texts."""

import argparse
from typing import Any

from unclip.cli.edits import add_options, numbers, run_edit


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "interpolate",
        description="Draw the way from one picture to the next, and on to texts, along great circles; or with --mix "
        "one picture of them all.",
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="in their order")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a stop after the pictures; repeat")
    parser.add_argument("--frames", type=int, default=7, metavar="N", help="pictures on the way (default: 7)")
    parser.add_argument("--mix", type=numbers, metavar="W,W", help="one picture instead: the weight of each")
    parser.add_argument("--x-t", choices=("slerp", "fixed"), default="slerp", metavar="HOW",
                        help="noise x_T: slerp as z_i (default), or fixed: that of the first picture")  # fmt: skip
    add_options(parser, film=True)


def run(args: argparse.Namespace) -> int:
    return run_edit(args, "interpolate", args.pictures, film=args.mix is None, texts=args.text, frames=args.frames,
                    weights=args.mix, x_T=args.x_t)  # fmt: skip
