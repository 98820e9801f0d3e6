"""`unclip diff`: a picture changed little by little towards what a text says."""

import argparse
from typing import Any

from unclip.cli.edits import add_options, run_edit


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "diff",
        description="Text diff: turn a picture's z_i by up to theta of the way towards the difference of two captions, "
        "and draw what comes of it, the picture itself first.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="what to change")
    parser.add_argument("text", metavar="TEXT", help="what it is to become")
    parser.add_argument("--base", metavar="TEXT", help="what it is now (default: nothing; by clip an empty caption)")
    parser.add_argument("--theta", type=float, default=0.35, metavar="X", help="how far, 0 to 1 (default: 0.35)")
    parser.add_argument("--frames", type=int, default=7, metavar="N", help="pictures on the way (default: 7)")
    parser.add_argument("--by", choices=("prior", "clip"), default="prior", metavar="HOW",
                        help="by what the prior draws for the texts (default), or by their z_t: clip")  # fmt: skip
    add_options(parser, film=True)


def run(args: argparse.Namespace) -> int:
    return run_edit(args, "diff", [args.picture], film=True, text=args.text, base=args.base, theta=args.theta,
                    frames=args.frames, by=args.by)  # fmt: skip
