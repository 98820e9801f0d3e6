"""`unclip explore`: what the encoders know that nobody told them."""

import argparse
import re
from pathlib import Path
from typing import Any

from unclip.cli.generate import add_machine_options, load


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("explore", description="Look for what the encoders learnt unasked.")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    words = what.add_parser("vocabulary", help="invented words that mean a concept to the text encoder",
                            description="Search phrases without any word of the captions whose embedding lies nearest "
                            "to a concept's pictures, draw them, and have the judge name the drawings.")  # fmt: skip
    words.add_argument("concept", metavar="CONCEPT", help='a word of the captions, as "bird"')
    words.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    words.add_argument("-n", type=int, default=4, metavar="N", help="phrases, drawn once each (default: 4)")
    words.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the search (default: 0)")
    words.add_argument("-o", "--output", default="vocabulary.png", metavar="FILE", help="the sheet (vocabulary.png)")
    add_machine_options(words)


def run(args: argparse.Namespace) -> int:
    system = load(args, args.weights)

    import torch

    from unclip.data.images import Corpus, compose
    from unclip.evaluate.judge import Judge
    from unclip.files import atomic
    from unclip.lineage.vocabulary import search
    from unclip.pictures import sheet
    from unclip.weights import hub

    corpus = Corpus.load(Path(args.data), system.clip.config.image_size, "train", core=True)
    labels = [m.get("label", m["caption"]).lower() for m in corpus.meta]
    rows = [i for i, label in enumerate(labels) if args.concept.lower() in re.findall(r"[a-z]+", label)][:64]
    texts = [*labels, *(k for m in corpus.meta for k in m.get("keywords", ()))]
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    pictures = compose(corpus.images[torch.tensor(rows, dtype=torch.long)]).to(system.device)
    found = [search(system.clip, system.tokenizer, args.concept, pictures, words, seed=args.seed + i)
             for i in range(args.n)]  # fmt: skip
    drawn = system.generate([f.text for f in found], seed=args.seed, size=system.decoder.config.size).images
    judge = Judge.load(None, hub.locate(args.weights), system.device)
    names = sorted(set(labels))
    _, z = judge.look(drawn)
    called = (z @ judge.read(names).T).argmax(1).tolist()
    for f, name in zip(found, called, strict=True):
        print(f"{f.text}\tcosine {f.cosine:.3f} ({args.concept!r} itself {f.beside:.3f})\tjudged: {names[name]}")
    with atomic(Path(args.output)) as path:
        sheet(drawn, columns=len(drawn)).save(path, "PNG")
    print(args.output)
    return 0
