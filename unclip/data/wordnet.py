"""WordNet's nouns: what else a thing is called, and what kinds of it there are (Fellbaum 1998)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

Names = dict[str, list[str]]  # label → other names of it, the most familiar first

# WordNet's files of animals, artefacts, attributes (colours are among them), bodies, food, objects, people, events of
# nature, plants, substances and shapes: what has a picture is more often one of these than an act or a thought.
SEEN = {5, 6, 7, 8, 13, 17, 18, 19, 20, 25, 27}
PERSON = 18
DEPTH = 3  # how far below a label's own meaning its kinds are named by it: a poodle is a dog
SHARED = 3  # what more labels than this have in common names none of them
HEAD = re.compile(r",.*| (with|without|of|on|in|and|for) .*")  # what stands behind the head of a name


class Meaning(NamedTuple):
    """A synset. `file` tells its field; `above` and `below` are the keys of others."""

    file: int
    words: list[str]
    above: list[str]
    below: list[str]
    text: str  # its definition

    @property
    def gloss(self) -> frozenset[str]:
        return frozenset(re.findall("[a-z]+", self.text.lower()))


class WordNet:
    """data: the text of `data.noun`; index: of `index.noun`, which lists a word's meanings, the commonest first;
    senses: of `index.sense`, which tells how often each was met in texts."""

    def __init__(self, data: str, index: str, senses: str):
        self.meanings = {line[:8]: _meaning(line) for line in data.splitlines() if line[:1] != " "}
        self.index: dict[str, list[str]] = {}
        for fields in (line.split() for line in index.splitlines() if line[:1] != " "):
            self.index[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
        self.met: Counter[tuple[str, str]] = Counter()
        for word, key, _, times in (line.split() for line in senses.splitlines()):
            self.met[word.partition("%")[0].replace("_", " "), key] += int(times)

    def names(self, labels: Mapping[str, Iterable[str]], taken: Set[str]) -> Names:
        """Other names of each of `labels`, given with keywords: of its meaning, and of the kinds of it that no other
        label is nearer to and that have no name in `taken`. Of people only the former: kinds of people are mostly
        judgements."""
        owners: dict[str, set[str]] = defaultdict(set)
        for label, key in self.roots(labels).items():
            owners[key].add(label)
        near = dict.fromkeys(owners, 0)
        for depth in range(DEPTH):
            for key in [key for key, at in near.items() if at == depth and self.meanings[key].file != PERSON]:
                for below in self.meanings[key].below:
                    if near.setdefault(below, depth + 1) == depth + 1:
                        owners[below] |= owners[key]
        found: dict[str, dict[str, tuple]] = defaultdict(dict)
        for key, at in near.items():
            words = self.meanings[key].words
            for word in words if at == 0 or taken.isdisjoint(words) else ():
                for label in owners[key] - {word}:
                    found[label].setdefault(word, (at > 0, -self.met[word, key], at, word))
        return {label: sorted(words, key=words.__getitem__) for label, words in found.items()}

    def roots(self, labels: Mapping[str, Iterable[str]]) -> dict[str, str]:
        """The meaning of each label that has one. Where WordNet lacks a label ("hot beverage"), its head stands for it
        ("beverage"), if a keyword agrees and hardly another label has that meaning."""
        whole = {label: key for label, words in labels.items() if (key := self.find(label.lower(), words))}
        heads = {label: HEAD.sub("", label.lower()).rpartition(" ")[2] for label in labels if label not in whole}
        part = {label: key for label, head in heads.items() if (key := self.find(head, labels[label], 1))}
        times = Counter([*whole.values(), *part.values()])
        return whole | {label: key for label, key in part.items() if times[key] <= SHARED}

    def find(self, name: str, keywords: Iterable[str], least: int = 0) -> str | None:
        """The meaning of a name that at least so many keywords speak for: they are looked for in its definition and in
        what it is a kind of. An early meaning needs fewer."""
        found = self.index.get(name) or self.index.get(name.removesuffix("s"), [])
        known = {w for k in keywords for w in re.findall("[a-z]+", k.lower())} - set(name.split())
        agree = {key: len(known & (self.kinds(key) | self.meanings[key].gloss)) for key in found}
        if max(agree.values(), default=-1) < least:
            return None
        seen = {key: self.meanings[key].file in SEEN for key in found}
        return max(found, key=lambda key: agree[key] + seen[key] - 0.3 * found.index(key))

    def kinds(self, key: str) -> frozenset[str]:
        """The words of a meaning and of all above it."""
        own = {part for word in self.meanings[key].words for part in word.lower().split()}
        return frozenset(own.union(*(self.kinds(above) for above in self.meanings[key].above)))


def _meaning(line: str) -> Meaning:
    """wndb(5WN): key, file, type, number of words (hexadecimal), words with ids, number of pointers, pointers."""
    facts, _, gloss = line.partition(" | ")
    fields = facts.split()
    end = 4 + 2 * int(fields[3], 16)
    words = [word.replace("_", " ") for word in fields[4:end:2]]
    pointers = list(zip(fields[end + 1 :: 4], fields[end + 2 :: 4], fields[end + 3 :: 4], strict=False))
    above, below = ([to for kind, to, part in pointers if part == "n" and kind == wanted] for wanted in "@~")
    return Meaning(int(fields[1]), words, above, below, gloss.partition('; "')[0].strip())
