"""From the many spellings of icon names to one label, its keywords, its Chinese name and its concept.

The names of emoji sets are joined to emojibase by codepoint, by label, by alias or run together; what stays
unmatched is read as plain words. A *concept* is what the splits hash: skin tones and genders of one emoji share it.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log

from unclip.errors import UnclipError

TONES = ("medium-light", "medium-dark", "light", "medium", "dark")  # longer ones first, for alternation
BY_NUMBER = ("light", "medium-light", "medium", "medium-dark", "dark")
TONED = re.compile(rf"(-({'|'.join(TONES)})-skin-tone)+|-({'|'.join(TONES)})(-({'|'.join(TONES)}))?$")
NUMBERED = re.compile(r"(-|(?<=[a-z]{2}))\d+$")
TONE_NUMBER = re.compile(r"-tone([1-5])\b")
GENDERED = re.compile(r"^(man|woman|person)-")
ZH_TONE = re.compile(r"(?<!，)((?:较浅|中等-浅|中等-深|中等|较深)肤色)")
KEYWORD = re.compile(r"[a-z]{3}|^[A-Z]{3,4}$")  # not "FR" nor "143"
GROUPS = ("smileys-emotion", "people-body", "component", "animals-nature", "food-drink", "travel-places", "activities",
          "objects", "symbols", "flags")  # emojibase's, by their numbers  # fmt: skip


@dataclass(frozen=True)
class Name:
    """What is known of a picture's subject. `concept` is a slug; `emoji` tells whether emojibase knows it, `group` in
    which of its groups it stands, "" for none."""

    label: str
    concept: str
    zh: str | None = None
    keywords: tuple[str, ...] = ()
    tone: bool = False
    flag: bool = False
    emoji: bool = False
    group: str = ""


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
    if head in ("family", "kiss", "couple with heart"):
        who = [part for part in rest.split(", ") if "skin tone" not in part]
        tones = [part for part in rest.split(", ") if "skin tone" in part]
        group = f"{head} of {', '.join(who[:-1])} and {who[-1]}" if len(who) > 1 else head
        return ", ".join([group, *tones])
    features = [part for part in rest.split(", ") if part.endswith("hair") or part in ("beard", "bald")]
    others = [part for part in rest.split(", ") if part not in features]
    if features:
        head = f"bald {head}" if features == ["bald"] else f"{head} with {features[0]}"
    return ", ".join([head, *others])


def tidy_zh(label: str) -> str:
    """The same for a Chinese label: "旗: 日本" is "日本旗"."""
    head, _, rest = label.partition(": ")
    if head == "旗":
        return f"{rest}旗"
    return ZH_TONE.sub(r"，\1", f"{head}，{rest}") if rest and head != "按键" else f"{head}{rest}"


def _plain(hexcode: str) -> str:
    return hexcode.upper().replace("-FE0F", "")


def _neutral(hexcode: str) -> str:
    """The codepoints without gender and direction: "woman pilot" and "man pilot" become "pilot"."""
    code = re.sub(r"-200D-(2640|2642|27A1)", "", _plain(hexcode))
    return code if "-2764-" in code else re.sub(r"^(1F468|1F469)(?=-200D-)", "1F9D1", code)


class Names:
    """All emojibase names, looked up by `find`; `words` and `guess` read what emojibase does not know.

    english, chinese: the parsed `en/data.json` and `zh/data.json` of emojibase-data.
    others: further spellings (Unicode's own names, shortcodes) by codepoint sequence.
    """

    def __init__(self, english: list[dict], chinese: list[dict], others: Iterable[tuple[str, str]] = ()):
        self.by_code: dict[str, Name] = {}
        self.by_slug: dict[str, Name] = {}
        chinese_names = {s["hexcode"]: s["label"] for e in chinese for s in (e, *e.get("skins", ()))}
        labels = {_plain(e["hexcode"]): e["label"] for e in english}
        for entry in english:
            head = entry["label"].partition(": ")[0]
            base = labels.get(_neutral(entry["hexcode"]), entry["label"])
            number = entry.get("group")
            group = GROUPS[number] if number is not None else ""
            concept = slug(head if head in ("family", "kiss", "couple with heart") else base)
            for form in (entry, *entry.get("skins", ())):
                zh = chinese_names.get(form["hexcode"])
                name = Name(
                    label=tidy(form["label"]),
                    concept=concept,
                    zh=tidy_zh(zh) if zh else None,
                    keywords=tuple(t for t in entry.get("tags", ()) if KEYWORD.search(t)),
                    tone="tone" in form,
                    flag=group == "flags",
                    emoji=True,
                    group=group,
                )
                self.by_code[_plain(form["hexcode"])] = name
                self.by_slug.setdefault(slug(form["label"]), name)
                self.by_slug.setdefault(slug(re.sub(r"\(.*?\)", "", form["label"])), name)
        self.run_together = {s.replace("-", ""): name for s, name in self.by_slug.items()}
        self.by_words = {tuple(sorted(s.split("-"))): name for s, name in self.by_slug.items()}
        for code, spelling in others:
            if (name := self.by_code.get(_plain(code))) and spelling.lower() != "pistol":  # older sets drew a real one
                self.run_together.setdefault(slug(spelling).replace("-", ""), name)
                self.by_words.setdefault(tuple(sorted(slug(spelling).split("-"))), name)

    @classmethod
    def read(cls, files: dict[str, bytes]) -> "Names":
        """From the files of the emojibase-data package. Raises UnclipError when one is missing."""
        for path in ("en/data.json", "zh/data.json", "meta/unicode-names.json"):
            if path not in files:
                raise UnclipError(f"the emojibase-data package lacks {path}: delete it and run again")
        others = list(json.loads(files["meta/unicode-names.json"]).items())
        for path in sorted(files):
            if re.fullmatch(r"en/shortcodes/(emojibase|emojibase-legacy|github|iamcal|joypixels)\.json", path):
                for code, spellings in json.loads(files[path]).items():
                    others += [(code, s) for s in ([spellings] if isinstance(spellings, str) else spellings)]
        return cls(json.loads(files["en/data.json"]), json.loads(files["zh/data.json"]), others)

    def vocabulary(self) -> Counter[str]:
        """The words of all names and keywords, counted."""
        spellings = [*self.by_slug, *("-".join(words) for words in self.by_words)]
        spellings += [slug(k) for name in self.by_slug.values() for k in name.keywords]
        return Counter(word for s in spellings for word in s.split("-"))

    def find(self, key: str, codes: Iterable[str] = (), others: Iterable[str] = ()) -> Name | None:
        """The emoji that an icon called `key` shows, or None.

        codes: hexadecimal codepoint sequences the icon set gives for it; others: its aliases.
        """
        for code in codes:
            if name := self.by_code.get(_plain(code)):
                return name
        key = TONE_NUMBER.sub(lambda m: f"-{BY_NUMBER[int(m[1]) - 1]}-skin-tone", key)
        for spelling in (key, *others):
            name = self._spelled(spelling) or self._spelled(NUMBERED.sub("", spelling))
            if name:
                return name
        base, tones = untoned(key)
        if tones and (name := self.find(base)):
            return toned(name, tones)
        return None

    def _spelled(self, key: str) -> Name | None:
        place = re.sub(r"^flag-for-(flag-)?", "", key)
        for spelling in (f"flag-{place}", place) if place != key else (key, key.replace("cat-face", "cat")):
            if name := self.by_slug.get(spelling) or self.run_together.get(spelling.replace("-", "")):
                return name
        return None

    def flag(self, code: str) -> Name | None:
        """The flag of a country code (`fr`), of a British nation (`gb-sct`), or by name (`european-union`)."""
        letters = code.replace("-", "").upper()
        if len(code) == 2:
            return self.by_code.get("-".join(f"{0x1F1E6 + ord(c) - ord('A'):X}" for c in letters))
        tags = "-".join(f"{0xE0000 + ord(c):X}" for c in letters.lower())
        return self.by_code.get(f"1F3F4-{tags}-E007F") or self.find(f"flag-{code}") or self.find(f"{code}-flag")

    def words(self, text: str) -> Name:
        """A name in words. Where an emoji has the same label, its concept, Chinese name and keywords are shared."""
        known = self.by_slug.get(slug(text))
        if known is None or known.tone:
            return Name(text, slug(text))
        return Name(text, known.concept, known.zh, known.keywords, flag=known.flag, group=known.group)

    def guess(self, key: str, splitter: "Splitter") -> Name | None:
        """The name of an emoji that `find` does not know, from its own words; None where there are none."""
        base, tones = untoned(TONE_NUMBER.sub(lambda m: f"-{BY_NUMBER[int(m[1]) - 1]}-skin-tone", key))
        base = NUMBERED.sub("", re.sub(r"^flag-for-", "flag-of-", base))
        label = base.replace("-", " ") if "-" in base else splitter(base)
        if not label or not re.search("[a-z]{2}", label):
            return None
        name = self.by_words.get(tuple(sorted(label.split())))
        if name is None or name.tone:
            name = self.words(label)
            for people in ("person-", "people-"):
                if kin := self.by_slug.get(GENDERED.sub(people, base)):
                    name = replace(name, concept=kin.concept)
            name = replace(name, flag="flag" in label.split())
        return toned(name, tones) if tones else name


def untoned(key: str) -> tuple[str, list[str]]:
    """A key without its skin tones, and these."""
    base = TONED.sub("", key)
    return base, re.findall("|".join(TONES), key[len(base) :])


def toned(name: Name, tones: list[str]) -> Name:
    return replace(name, label=f"{name.label}, {' and '.join(tones)} skin tone", zh=None, tone=True)


class Splitter:
    """Cuts run-together names (`twospeechbubbles`) into the likeliest words of a vocabulary with counts."""

    SHORT = frozenset({"in", "of", "on", "to", "up", "no", "ok", "go", "tv", "cd", "x"})

    def __init__(self, counts: Counter[str]):
        counts = Counter({w: n for w, n in counts.items() if len(w) > 2 or w in self.SHORT})
        total = sum(counts.values())
        self.cost = {word: 2 + log(total / n) for word, n in counts.items()}  # 2: rather few words than many
        self.longest = max(map(len, self.cost), default=1)

    def __call__(self, text: str) -> str | None:
        """The words joined by spaces, or None where the vocabulary does not cover the text."""
        best: list[tuple[float, list[str]] | None] = [(0.0, [])]
        for end in range(1, len(text) + 1):
            ways = []
            for start in range(max(0, end - self.longest), end):
                before, word = best[start], text[start:end]
                cost = self.cost.get(word, 2.0 if word.isdigit() else None)
                if before is not None and cost is not None:
                    ways.append((before[0] + cost, [*before[1], word]))
            best.append(min(ways, default=None))
        return " ".join(best[-1][1]) if best[-1] is not None else None
