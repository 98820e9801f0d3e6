"""The pictures that the other tests train on."""

import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from unclip.data import shards
from unclip.data.captions import canonical
from unclip.data.plan import SPLITS, chance

FOLDER = Path(__file__).parents[1] / "fixtures" / "illustrations"


@pytest.fixture(scope="module")
def samples() -> dict[str, list[shards.Sample]]:
    damage = shards.Damage()
    found = {split: list(shards.read(FOLDER / "64" / split, damage)) for split in SPLITS}
    assert not damage.counts
    return found


def test_it_is_small_and_varied(samples):
    everything = [s for part in samples.values() for s in part]
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 1_000_000
    assert len(everything) > 180
    assert len({s.meta["source"] for s in everything}) >= 7
    assert sum(s.meta["core"] for s in everything) > 100
    assert sum(bool(s.meta["label_zh"]) for s in everything) > 100
    assert any(s.meta["tone"] for s in everything)
    assert any(s.meta["flag"] for s in everything)


def test_only_permissive_licences_and_each_is_attributed(samples):
    counts = Counter(s.meta["licence"] for part in samples.values() for s in part)
    assert set(counts) <= {"Apache-2.0", "MIT", "public domain"}
    text = (FOLDER / "ATTRIBUTION.md").read_text()
    assert all(f"| {licence} | {n} |" in text for licence, n in counts.items())


def test_pictures(samples):
    for part in samples.values():
        for s in part:
            picture = Image.open(io.BytesIO(s.image))
            assert (picture.format, picture.size) == ("WEBP", (64, 64))
            assert picture.convert("RGBA").getchannel("A").getextrema()[1] > 16


def test_captions_and_keys(samples):
    keys = [s.key for part in samples.values() for s in part]
    assert len(set(keys)) == len(keys)
    assert all(s.meta["caption"] == canonical(s.meta) for part in samples.values() for s in part)


def test_splits(samples):
    styles = {split: defaultdict(set) for split in SPLITS}
    for split, part in samples.items():
        for s in part:
            styles[split][s.meta["concept"]].add(s.meta["style"])
    assert not set(styles["val"]) & (set(styles["train"]) | set(styles["compose"]))
    assert all(chance("val", concept) < 0.04 for concept in styles["val"])
    for concept, held_out in styles["compose"].items():
        assert styles["train"][concept]
        assert not styles["train"][concept] & held_out
    assert {s for held in styles["compose"].values() for s in held} <= {s for t in styles["train"].values() for s in t}
