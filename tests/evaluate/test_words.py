"""Synonyms and Chinese: the list is what it says, and the measure finds what an oracle knows."""

import io
import json

import pytest
import torch
from PIL import Image

from unclip.cli.main import main
from unclip.data import shards
from unclip.errors import UnclipError
from unclip.evaluate import words
from unclip.pipeline import UnCLIP


def test_the_list():
    pairs = words.synonyms()
    assert len(pairs) == len({word for word, _ in pairs}) == 200
    assert all(word and label and word != label for word, label in pairs)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Forty concepts in two pictures each; the labels of some of them are in the list."""
    folder, labels = tmp_path_factory.mktemp("words"), sorted({label for _, label in words.synonyms()})[:40]
    samples = []
    for i, label in enumerate(labels):
        for style in range(2):
            data = io.BytesIO()
            Image.new("RGBA", (16, 16), (6 * i, 255 - 6 * i, 50 * style, 255)).save(data, "PNG")
            meta = {"label": label, "label_zh": f"第{i}" if i < 35 else None, "concept": label, "core": True,
                    "style": f"s{style}", "caption": label}  # fmt: skip
            samples.append(shards.Sample(f"{i:03d}-{style}", data.getvalue(), meta))
    shards.write(folder / "16" / "train", samples, 100)
    return folder


@pytest.fixture
def system(weights):
    return UnCLIP.from_pretrained(weights)


def test_an_oracle_knows_its_labels_and_nothing_else(many, system, monkeypatch):
    """z_i is one direction a concept, z_t the same for a label; a synonym and Chinese say nothing."""
    labels = sorted({label for _, label in words.synonyms()})[:40]
    monkeypatch.setattr(words, "embed", lambda system, images: torch.eye(41)[(images[:, 0, 0, 0] / 6).round().long()])

    def read(texts):
        return None, None, torch.stack([torch.eye(41)[labels.index(t) if t in labels else 40] for t in texts])

    monkeypatch.setattr(system, "read", read)
    results = words.words(system, many)
    assert {name: row["value"] for name, row in results.items()} == {
        "labels": 1.0, "labels in Chinese": 0.0, "labels that have synonyms": 1.0, "synonyms": 0.0,
    }  # fmt: skip
    assert results["labels"]["lines"] == results["labels in Chinese"]["lines"] == 35
    assert results["synonyms"]["lines"] == sum(label in labels for _, label in words.synonyms()) > 40


def test_the_command(many, weights, capsys):
    assert main(["evaluate", "words", "--data", str(many), "--weights", str(weights), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert set(results) == {"labels", "labels in Chinese", "labels that have synonyms", "synonyms"}
    assert all(0 <= row["value"] <= 1 for row in results.values())
    assert main(["evaluate", "words", "--data", str(many), "--weights", str(weights)]) == 0
    assert "synonyms" in capsys.readouterr().out


def test_too_few_concepts(system, corpus, tmp_path):
    (tmp_path / "16").mkdir()
    (tmp_path / "16" / "train").symlink_to(corpus / "16" / "val")
    if len({m["concept"] for m in words.Corpus.load(tmp_path, 16, "train").meta}) < words.MANY:
        with pytest.raises(UnclipError, match="concepts; at least 32 are needed"):
            words.words(system, tmp_path)
