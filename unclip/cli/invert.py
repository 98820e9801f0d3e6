"""`unclip invert`: a picture to (z_i, x_T), and back."""

import argparse
import json
from pathlib import Path
from typing import Any

from unclip.cli.edits import add_options, common, read, run_edit
from unclip.cli.generate import load


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "invert",
        description="Find the pair (z_i, x_T) that the decoder makes a picture from. With -o FILE.safetensors the pair "
        "is written, which the other commands take in place of the picture; else what the decoder makes of it.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="a picture, or a pair written before")
    parser.add_argument("--calls", type=int, default=4, metavar="N",
                        help="of the network a step: 1 is plain DDIM, more solve each step (default: 4)")  # fmt: skip
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    if not args.out.endswith(".safetensors"):
        return run_edit(args, "invert", [args.picture], calls=args.calls)
    image, _ = read(args.picture)
    system = load(args, args.weights)
    found = system.invert(image, args.calls, **common(args))
    found.save(args.out)
    facts = {"path": args.out, "z_i": list(found.z_i.shape), "x_T": list(found.x_T.shape)}
    print(json.dumps(facts) if args.json else Path(args.out))
    return 0
