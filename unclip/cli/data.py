"""`unclip data`: obtain training data, and other words for what it shows."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unclip.data.corpora import Report


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("data", help="obtain training data")
    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True)
    pictures = corpora.add_parser(
        "illustrations",
        help="31,000 emoji, icons and clip art with captions, from packages with licences that allow training",
        description="Download, draw and caption the illustrations; write them as WebDataset shards. An interrupted "
        "run goes on where it stopped.",
    )
    pictures.add_argument("folder", metavar="DIR", help="where the corpus goes: DIR/64/train/00000.tar and so on")
    pictures.add_argument("--sizes", type=_sizes, default=(64, 256), help="sides in pixels (default 64,256)")
    pictures.add_argument("--limit", type=_positive, metavar="N", help="at most N pictures, of all sources and splits")
    pictures.add_argument("--from", dest="given", metavar="DIR", help="take the packages from here if they are here")
    pictures.add_argument("--workers", type=_positive, default=2, metavar="N", help="drawing processes (default 2)")
    pictures.add_argument("--sources", metavar="A,B", help="only these sources (default: all of them)")
    pictures.add_argument("--json", action="store_true", help="print the report as JSON")
    own = corpora.add_parser(
        "folder",
        help="pictures of your own, with captions",
        description="Make a corpus of a folder of pictures. Their captions: NAME.txt beside each, or metadata.csv or "
        "metadata.jsonl with file_name and text. WebDataset shards are taken too. What cannot be used is skipped.",
    )
    own.add_argument("pictures", metavar="PICTURES", help="the folder, and those below it")
    own.add_argument("folder", metavar="DIR", help="where the corpus goes: DIR/64/train/00000.tar and so on")
    own.add_argument("--sizes", type=_sizes, default=(64, 256), help="sides in pixels (default 64,256)")
    own.add_argument("--json", action="store_true", help="print the report as JSON")
    names = corpora.add_parser(
        "words",
        help="other words for what a corpus shows, for a text tower to learn: unclip train mini.text",
        description="Gather synonyms and kinds of the labels in DIR from WordNet, and keywords in English and Chinese "
        "from emojibase, and WordNet's other nouns by the label that a sentence encoder finds nearest; write them to "
        "DIR/words.json.",
    )
    names.add_argument("folder", metavar="DIR", help="a corpus that is there: unclip data illustrations DIR")
    names.add_argument("--from", dest="given", metavar="DIR", help="take the packages from here if they are here")
    names.add_argument("--no-encoder", dest="encoder", action="store_false", help="from dictionaries alone")
    parser.set_defaults(run=run)


def words(args: argparse.Namespace) -> int:
    from unclip.data.thesaurus import WORDS, build

    for language, found in build(args.folder, args.given, args.encoder).items():
        print(f"{language}: {sum(map(len, found.values())):,} names of {len(found):,} labels")
    print(f"{args.folder}/{WORDS}")
    return 0


def run(args: argparse.Namespace) -> int:
    if args.corpus == "words":
        return words(args)
    if args.corpus == "folder":
        return run_folder(args)

    from unclip.data.corpora import illustrations
    from unclip.data.sources import named

    report = illustrations(
        args.folder,
        sizes=args.sizes,
        limit=args.limit,
        given=args.given,
        workers=args.workers,
        sources=named(args.sources.split(",") if args.sources else None),
    )
    if args.json:
        import json

        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        print(_table(report))
    return 0


def run_folder(args: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from unclip.cli.console import note
    from unclip.data.folder import corpus

    report = corpus(Path(args.pictures), Path(args.folder), args.sizes, note)
    skipped = ", ".join(f"{n} {reason}" for reason, n in report["skipped"].items())
    print(json.dumps(report) if args.json else f"{report['train']} pictures to train on, {report['held_out']} held out "
          f"to look at; skipped: {skipped or 'none'}")  # fmt: skip
    return 0


def _table(report: "Report") -> str:
    from unclip.data.corpora import SPLITS

    facts = report.as_dict()
    lines = ["".join([f"{'source':28}", *(f"{split:>9}" for split in SPLITS), f"{'unused':>9}"])]
    for name, source in facts["sources"].items():
        numbers = [source["pictures"].get(split, 0) for split in SPLITS] + [sum(source["unused"].values())]
        lines.append(f"{name:28}" + "".join(f"{n:9,}" for n in numbers))
    numbers = [*facts["splits"].values(), facts["count"] - facts["successes"]]
    lines += [f"{'all':28}" + "".join(f"{n:9,}" for n in numbers), "", "not used, and why"]
    reasons: dict[str, int] = {}
    for (_, reason), n in report.unused.items():
        reasons[reason] = reasons.get(reason, 0) + n
    lines += [f"{n:9,}  {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1])]
    lines += ["", "licences"] + [f"{n:9,}  {licence}" for licence, n in sorted(facts["licences"].items())]
    return "\n".join(lines)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted({_positive(part.strip()) for part in text.split(",")}))
    if not 8 <= sizes[0] <= sizes[-1] <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r}: sizes are from 8 to 2048 pixels, such as 64,256")
    return sizes
