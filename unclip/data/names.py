"""From the many spellings of icon names to one label, its keywords, its Chinese name and its concept.

The names of emoji sets are joined to emojibase by codepoint, by label, by alias or run together; what
stays unmatched is read as plain words. A *concept* is what the splits hash: skin tones and genders of one emoji share it.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log

TONES = ("medium-light", "medium-dark", "light", "medium", "dark")
TONED = re.compile(rf"(-({'|'.join(TONES)})-skin-tone)+|-({'|'.join(TONES)})(-({'|'.join(TONES)}))?$")
COUNTED = re.compile(r"-(\d+|one|two|three|four|five|six)$")
FLAGS = 9  # emojibase's group number


@dataclass(frozen=True)
class Name:
    """What is known of a picture's subject. `concept` is a slug; `emoji` tells whether emojibase knows it."""

    label: str
    concept: str
    zh: str | None = None
    keywords: tuple[str, ...] = ()
    tone: bool = False
    flag: bool = False
    emoji: bool = False


def slug(text: str) -> str:
    """Lower-case ASCII words joined by hyphens."""
    text = unicodedata.normalize("NFKD", text.replace("&", " and ")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['.]", "", text)).strip("-")


def tidy(label: str) -> str:
    """An emojibase label as a person would write it: "flag: Japan" is "flag of Japan", curly quotes are straight."""
    label = re.sub(r"[“”\"]", "", label).replace("’", "'").strip()
    head, _, rest = label.partition(": ")
    if not rest:
        return label
    if head == "flag":
        return f"flag of {rest}"
    if head == "keycap":
        return f"keycap {rest}"
    features = [part for part in rest.split(", ") if part.endswith("hair") or part in ("beard", "bald")]
    others = [part for part in rest.split(", ") if part not in features]
    if features:
        head = f"bald {head}" if features == ["bald"] else f"{head} with {features[0]}"
    return ", ".join([head, *others])


def tidy_zh(label: str) -> str:
    head, _, rest = label.partition(": ")
    if not rest:
        return label
    return f"{rest}旗" if head == "旗" else f"{head}{rest}" if head == "按键" else f"{head}，{rest.replace('、', '，')}"


def _plain(hexcode: str) -> str:
    return hexcode.upper().replace("-FE0F", "")


def _neutral(hexcode: str) -> str:
    """The codepoints without gender and direction: "woman pilot" and "man pilot" become "pilot"."""
    code = re.sub(r"-200D-(2640|2642|27A1)", "", _plain(hexcode))
    return code if "-2764-" in code else re.sub(r"^(1F468|1F469)(?=-200D-)", "1F9D1", code)


class Names:
    """All emojibase names, looked up by `find`; `words` reads what emojibase does not know.

    english, chinese: the parsed `en/data.json` and `zh/data.json` of emojibase-data.
    """

    def __init__(self, english: list[dict], chinese: list[dict]):
        self.by_code: dict[str, Name] = {}
        self.by_slug: dict[str, Name] = {}
        chinese_names = {s["hexcode"]: s["label"] for e in chinese for s in (e, *e.get("skins", ()))}
        labels = {_plain(e["hexcode"]): e["label"] for e in english}
        for entry in english:
            head = entry["label"].partition(": ")[0]
            base = labels.get(_neutral(entry["hexcode"]), entry["label"])
            concept = slug(head if head in ("family", "kiss", "couple with heart") else base)
            for form in (entry, *entry.get("skins", ())):
                zh = chinese_names.get(form["hexcode"])
                name = Name(
                    label=tidy(form["label"]),
                    concept=concept,
                    zh=tidy_zh(zh) if zh else None,
                    keywords=tuple(t for t in entry.get("tags", ()) if slug(t)),
                    tone="tone" in form,
                    flag=entry.get("group") == FLAGS,
                    emoji=True,
                )
                self.by_code[_plain(form["hexcode"])] = name
                self.by_slug.setdefault(slug(form["label"]), name)
        self.run_together = {s.replace("-", ""): name for s, name in self.by_slug.items()}

    @classmethod
    def read(cls, files: dict[str, bytes]) -> "Names":
        return cls(json.loads(files["en/data.json"]), json.loads(files["zh/data.json"]))

    def find(self, key: str, codes: Iterable[str] = (), others: Iterable[str] = ()) -> Name | None:
        """The emoji that an icon called `key` shows, or None.

        codes: hexadecimal codepoint sequences the icon set gives for it; others: its aliases.
        """
        for code in codes:
            if name := self.by_code.get(_plain(code)):
                return name
        for spelling in (key, *others):
            name = self._spelled(spelling) or self._spelled(COUNTED.sub("", spelling))
            if name:
                return name
        base = TONED.sub("", key)
        if base != key and (name := self.find(base)):
            tones = [t for t in re.findall("|".join(TONES), key[len(base) - len(key) :])]
            return replace(name, label=f"{name.label}, {' and '.join(tones)} skin tone", zh=None, tone=True)
        return None

    def _spelled(self, key: str) -> Name | None:
        key = re.sub(r"^flag-for-(flag-)?", "flag-", key)
        return self.by_slug.get(key) or self.run_together.get(key.replace("-", ""))

    def flag(self, code: str) -> Name | None:
        """The flag of a country code (`fr`), of a British nation (`gb-sct`), or by name (`european-union`)."""
        letters = code.replace("-", "").upper()
        if len(code) == 2:
            return self.by_code.get("-".join(f"{0x1F1E6 + ord(c) - ord('A'):X}" for c in letters))
        tags = "-".join(f"{0xE0000 + ord(c):X}" for c in letters.lower())
        return self.by_code.get(f"1F3F4-{tags}-E007F") or self.find(f"flag-{code}") or self.find(f"{code}-flag")

    def words(self, text: str) -> Name:
        """A name that emojibase may not know: its own words, its slug as the concept unless an emoji has that slug."""
        known = self.by_slug.get(slug(text))
        concept = known.concept if known and not known.tone else slug(text)
        return Name(label=text, concept=concept, zh=known.zh if known and not known.tone else None)


class Splitter:
    """Cuts run-together names (`twospeechbubbles`) into the likeliest words of a vocabulary with counts."""

    def __init__(self, words: Iterable[str]):
        counts = Counter(w for w in words if len(w) > 1 or w in ("a", "o", "x"))
        total = sum(counts.values())
        self.cost = {w: log(total / n) for w, n in counts.items()}
        self.longest = max(map(len, self.cost), default=1)

    def __call__(self, text: str) -> str | None:
        """The words joined by spaces, or None where the vocabulary does not cover the text."""
        best: list[tuple[float, list[str]] | None] = [(0.0, [])]
        for end in range(1, len(text) + 1):
            ways = []
            for start in range(max(0, end - self.longest), end):
                before, word = best[start], text[start:end]
                cost = self.cost.get(word, 0.0 if word.isdigit() else None)
                if before is not None and cost is not None:
                    ways.append((before[0] + cost + 1, [*before[1], word]))
            best.append(min(ways, default=None))
        return " ".join(best[-1][1]) if best[-1] is not None else None
