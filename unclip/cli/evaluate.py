"""`unclip evaluate`: measure a pipeline on pictures and captions that it never saw."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unclip.cli.generate import SETTINGS, add_machine_options, load, option
from unclip.settings import Settings
from unclip.weights.config import from_dict

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

PRIOR = ("prior_steps", "prior_guidance", "prior_sampler", "best_of", "temperature", "top_p")
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
    alignment.add_argument("--judge", metavar="DIR", help="folder of the judge (default: the one shipped)")
    alignment.add_argument("--out", metavar="DIR", help="keep pictures, results and a sheet here; run again to go on")
    add_options(alignment, DRAWN)
    prior = measures.add_parser(
        "prior",
        help="draw embeddings for held-out captions, and say how near they are to those of the real pictures",
        description="Draw z_i for every caption of the held-out splits with each prior that the weights hold, beside "
        "the caption's own embedding taken for it, and the true one.",
    )
    text = "first measure what the prior's sampler analytic needs, and store it with the weights"
    prior.add_argument("--store-variance", action="store_true", help=text)
    text = "also decode a picture of each z_i, and of the true one, and have the judge find its caption among 32"
    prior.add_argument("--pictures", action="store_true", help=text)
    prior.add_argument("--judge", metavar="DIR", help="folder of the judge (default: the one shipped)")
    add_options(prior, PRIOR)
    words = measures.add_parser(
        "words",
        help="does CLIP understand synonyms that no caption holds, and Chinese?",
        description="Ask for the concept of 200 words that no caption of the illustrations holds, and of labels in "
        "both languages: is z_t nearest to its pictures' mean z_i, among 32? Nothing is drawn.",
    )
    words.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    words.add_argument("--json", action="store_true", help="print the results as JSON")
    add_machine_options(words)


def add_options(parser: argparse.ArgumentParser, settings: Sequence[str]) -> None:
    parser.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    parser.add_argument("--split", default="val,compose", metavar="A,B", help="splits (default: val,compose)")
    parser.add_argument("--limit", type=_pictures, metavar="N", help="at most N pictures a split, in groups of 32")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of what is drawn (default: 0)")
    for name in settings:
        kind, metavar, text = SETTINGS[name]
        default = getattr(Settings, name)
        text += "" if "(default:" in text else f" (default: {default})"
        parser.add_argument(option(name), type=kind, metavar=metavar, help=text)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    import json

    if args.measure == "words":
        from unclip.evaluate import words

        results = words.words(load(args, args.weights), args.data)
        print(json.dumps(results, indent=1) if args.json else words.table(results))
        return 0
    names = PRIOR if args.measure == "prior" else DRAWN
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = from_dict(Settings, chosen)
    system = load(args, args.weights)
    results, text = (prior if args.measure == "prior" else alignment)(system, settings, args)
    print(json.dumps(results, indent=1, ensure_ascii=False) if args.json else text)
    return 0


def alignment(system: "UnCLIP", settings: Settings, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from unclip.evaluate.judge import Judge
    from unclip.evaluate.report import table
    from unclip.evaluate.run import alignment
    from unclip.weights import hub

    system.prior_of(settings)
    judge = Judge.load(args.judge, hub.locate(args.weights), system.device)
    results = alignment(
        system, judge, args.data, settings, splits=args.split.split(","), limit=args.limit, seed=args.seed, out=args.out
    )
    return results, table(results)


def prior(system: "UnCLIP", settings: Settings, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from unclip.evaluate.judge import Judge
    from unclip.evaluate.prior import prior, store_variance, table
    from unclip.weights import hub

    if args.store_variance:
        store_variance(system, hub.locate(args.weights), args.data)
        system = load(args, args.weights)
    system.prior_of(settings)
    judge = Judge.load(args.judge, hub.locate(args.weights), system.device) if args.pictures else None
    results = prior(
        system, args.data, settings, splits=args.split.split(","), limit=args.limit, seed=args.seed, judge=judge
    )
    return results, table(results)


def _pictures(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32: pictures come in groups of 32")
    return number
