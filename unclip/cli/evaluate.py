"""`unclip evaluate`: measure a pipeline on pictures and captions that it never saw."""

import argparse
from typing import Any

SETTINGS = {"steps": int, "guidance": float, "prior_steps": int, "prior_guidance": float, "best_of": int,
            "sampler": str}  # fmt: skip


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("evaluate", help="measure how well pictures fit their captions")
    measures = parser.add_subparsers(dest="measure", metavar="MEASURE", required=True)
    alignment = measures.add_parser(
        "alignment",
        help="draw pictures for held-out captions, and have a second CLIP find the captions again",
        description="Draw a picture for every caption of the held-out splits. A judge, a CLIP that was trained apart "
        "and draws nothing, must find each picture's caption among 32, and tells how far the pictures are from real "
        "ones. Nothing is trained.",
    )
    alignment.add_argument("--weights", default="mini", help="shipped name, folder or org/repo (default mini)")
    alignment.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    alignment.add_argument("--judge", metavar="DIR", help="folder of the judge (default: the one shipped)")
    alignment.add_argument("--split", default="val,compose", metavar="A,B", help="splits (default val,compose)")
    alignment.add_argument("--limit", type=_pictures, metavar="N", help="at most N pictures a split, in groups of 32")
    alignment.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the pictures (default 0)")
    for name, kind in SETTINGS.items():
        alignment.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help="as in unclip generate")
    alignment.add_argument("--device", help="cpu, cuda, … (default: the best there is)")
    alignment.add_argument("--out", metavar="DIR", help="keep pictures, results and a sheet here; run again to go on")
    alignment.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import json

    from unclip.evaluate.report import table
    from unclip.evaluate.run import alignment

    results = alignment(
        args.weights,
        args.data,
        args.judge,
        splits=args.split.split(","),
        limit=args.limit,
        seed=args.seed,
        out=args.out,
        device=args.device,
        settings={name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None},
    )
    print(json.dumps(results, indent=1, ensure_ascii=False) if args.json else table(results))
    return 0


def _pictures(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32: pictures come in groups of 32")
    return number
