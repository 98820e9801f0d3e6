"""`unclip evaluate`: measure a pipeline on pictures and captions that it never saw."""

import argparse
from typing import Any

from unclip.cli.generate import SETTINGS, add_machine_options, load, option
from unclip.settings import Settings
from unclip.weights.config import from_dict

DRAWN = [name for name in SETTINGS if not name.startswith(("size", "upsampler", "tile"))]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("evaluate", description="Measure how well pictures fit their captions.")
    measures = parser.add_subparsers(dest="measure", metavar="MEASURE", required=True)
    alignment = measures.add_parser(
        "alignment",
        help="draw pictures for held-out captions, and have a second CLIP find the captions again",
        description="Draw a picture for every caption of the held-out splits. A judge, a CLIP that was trained apart "
        "and draws nothing, must find each picture's caption among 32, and tells how far the pictures are from real "
        "ones. Nothing is trained.",
    )
    alignment.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    alignment.add_argument("--judge", metavar="DIR", help="folder of the judge (default: the one shipped)")
    alignment.add_argument("--split", default="val,compose", metavar="A,B", help="splits (default: val,compose)")
    alignment.add_argument("--limit", type=_pictures, metavar="N", help="at most N pictures a split, in groups of 32")
    alignment.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the pictures (default: 0)")
    for name in DRAWN:
        kind, metavar, text = SETTINGS[name]
        default = getattr(Settings, name)
        alignment.add_argument(option(name), type=kind, metavar=metavar, help=f"{text} (default: {default})")
    alignment.add_argument("--out", metavar="DIR", help="keep pictures, results and a sheet here; run again to go on")
    alignment.add_argument("--json", action="store_true", help="print the results as JSON")
    add_machine_options(alignment)


def run(args: argparse.Namespace) -> int:
    import json

    chosen = {name: getattr(args, name) for name in DRAWN if getattr(args, name) is not None}
    settings = from_dict(Settings, chosen)
    system = load(args, args.weights)

    from unclip.evaluate.judge import Judge
    from unclip.evaluate.report import table
    from unclip.evaluate.run import alignment
    from unclip.weights import hub

    judge = Judge.load(args.judge, hub.locate(args.weights), system.device)
    results = alignment(
        system, judge, args.data, settings, splits=args.split.split(","), limit=args.limit, seed=args.seed, out=args.out
    )
    print(json.dumps(results, indent=1, ensure_ascii=False) if args.json else table(results))
    return 0


def _pictures(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32: pictures come in groups of 32")
    return number
