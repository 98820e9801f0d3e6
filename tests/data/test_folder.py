"""A folder of one's own as a corpus: captions from wherever they stand, and nothing lost in silence."""

import json

import pytest
from PIL import Image

from unclip.data import shards
from unclip.data.folder import corpus
from unclip.data.images import Corpus
from unclip.errors import UnclipError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "more/c.webp", "d.png")):
        Image.new("RGB", (40, 20 + 10 * i), (40 * i, 0, 90)).save(folder / name)
    for name in ("a.txt", "b.txt", "more/c.txt"):
        (folder / name).write_text(f"the caption of\n {name[:-4]} \n")
    return folder


def made(folder, size=16, split="train"):
    return {s.meta["file"]: s.meta["caption"] for s in shards.read(folder / str(size) / split)}


def test_captions_beside_the_pictures(pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (pictures / "broken.txt").write_text("a broken picture")
    told = []
    report = corpus(pictures, tmp_path / "out", (16, 32), told.append)
    assert report == {"train": 2, "held_out": 1, "skipped": {"no sound picture": 1, "no caption": 1}}
    assert len(told) == 2 and "'d.png' has no caption" in told[1] and "broken.png" in told[0]
    assert made(tmp_path / "out") == {"b.jpg": "the caption of b", "more/c.webp": "the caption of more/c"}
    assert made(tmp_path / "out", 32, "val") == made(tmp_path / "out", 16, "compose") == {"a.png": "the caption of a"}
    with pytest.raises(UnclipError, match="holds a corpus already"):
        corpus(pictures, tmp_path / "out", (16, 32), told.append)


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_captions_in_a_table(pictures, tmp_path, table):
    rows = [("a.png", "one, two"), ("more/c.webp", 'a "third"'), ("d.png", "vier 四")]
    if table.endswith("csv"):
        text = "file_name,text\n" + "".join('{},"{}"\n'.format(n, t.replace('"', '""')) for n, t in rows)
    else:
        text = "".join(json.dumps({"file_name": n, "text": t, "more": 1}) + "\n" for n, t in rows)
    (pictures / table).write_text(text, encoding="utf-8")
    corpus(pictures, tmp_path / "out", (16,), print)
    found = made(tmp_path / "out") | made(tmp_path / "out", split="val")
    assert found == dict(rows) | {"b.jpg": "the caption of b"}


def test_shards_are_taken(pictures, tmp_path):
    corpus(pictures, tmp_path / "one", (16,), print)
    report = corpus(tmp_path / "one" / "16" / "train", tmp_path / "two", (16,), print)
    assert (report["train"], report["held_out"]) == (1, 1)


def test_pictures_keep_their_shape_and_are_not_enlarged(pictures, tmp_path):
    corpus(pictures, tmp_path / "out", (16, 64), print)
    assert not (tmp_path / "out" / "64" / "train").exists()  # 40 pixels are not made 64
    read = Corpus.load(tmp_path / "out", 16, "train", core=True)
    alpha = read.images[0, 3]  # 40 × 30: bars above and below
    assert alpha[0].max() == 0 and alpha[8].min() == 255
    batch = read.draw(0, 2, 0, coloured=1.0)  # no caption speaks of a ground that is not seen
    assert sorted(batch.captions) == ["the caption of b", "the caption of more/c"] and batch.plain.all()


def test_what_is_no_corpus(pictures, tmp_path):
    with pytest.raises(UnclipError, match="is no folder"):
        corpus(tmp_path / "none", tmp_path / "out", (16,), print)
    (pictures / "metadata.csv").write_text("name,caption\na.png,x\n")
    with pytest.raises(UnclipError, match="is no table of file_name and text"):
        corpus(pictures, tmp_path / "out", (16,), print)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnclipError, match="holds 0 usable pictures, and two are needed; each needs a caption"):
        corpus(tmp_path / "empty", tmp_path / "out", (16,), print)
