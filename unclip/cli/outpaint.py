"""`unclip outpaint`: more picture around a picture."""

import argparse
from typing import Any

from unclip.cli.edits import run_edit
from unclip.cli.inpaint import add_filling

SIDES = ("left", "top", "right", "bottom")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "outpaint",
        description="Enlarge a picture's field of view. The pixels there are stay as they are.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="what to go on from")
    for side in SIDES:
        parser.add_argument(f"--{side}", type=int, default=0, metavar="N", help=f"pixels to add: {side} (default: 0)")
    add_filling(parser)


def run(args: argparse.Namespace) -> int:
    sides = {side: getattr(args, side) for side in SIDES}
    return run_edit(args, "outpaint", [args.picture], **sides, prompt=args.prompt, n=args.n, rounds=args.rounds)
