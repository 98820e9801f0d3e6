import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from unclip.data import corpora, shards
from unclip.data.corpora import illustrations
from unclip.errors import UnclipError

SIZES = (16, 32)


@pytest.fixture(scope="module", autouse=True)
def no_fsync():
    """Many small files on a busy disk: what a power cut would leave is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unclip.files.os.fsync", lambda handle: None)
        yield


def build(folder, packages, sources, **more):
    settings = {"sizes": SIZES, "per_shard": 40, "workers": 1, "progress": False} | more
    return illustrations(folder, given=packages, sources=sources, **settings)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, packages, sources):
    """A corpus built without interruption, and its report."""
    folder = tmp_path_factory.mktemp("corpus")
    return folder, build(folder, packages, sources)


def samples(folder: Path, size: int = 16) -> dict[str, shards.Sample]:
    damage = shards.Damage()
    found = {s.key: s for split in corpora.SPLITS for s in shards.read(folder / str(size) / split, damage)}
    assert not damage.counts
    return found


def test_every_size_holds_the_same_samples_in_the_same_order(whole):
    small, large = samples(whole[0], 16), samples(whole[0], 32)
    assert list(small) == list(large)
    assert [s.meta for s in small.values()] == [s.meta for s in large.values()]
    assert whole[1].as_dict()["successes"] == len(small)


def test_a_size_beyond_a_bitmaps_own_lacks_it(packages, sources, tmp_path):
    report = build(tmp_path / "c", packages, sources, sizes=(16, 64))
    small, large = samples(tmp_path / "c", 16), samples(tmp_path / "c", 64)
    missing = [key for key in small if key not in large]
    assert missing and missing == [key for key in small if key.startswith("fluent-emoji-3d")]
    assert report.as_dict()["successes"] == len(small)
    rows = [r for split in corpora.SPLITS for path in (tmp_path / "c" / "64" / split).glob("*.parquet")
            for r in shards.table(path) if r["error_message"] == "smaller than 64 px"]  # fmt: skip
    assert len(rows) == len(missing)


def test_what_a_sample_says(whole):
    sample = samples(whole[0])["noto-waving-hand-dark-skin-tone"]
    assert sample.meta == {
        "key": "noto-waving-hand-dark-skin-tone", "label": "waving hand, dark skin tone", "label_zh": None,
        "keywords": ["hello", "wave"], "style": "noto emoji", "source": "noto", "licence": "Apache-2.0",
        "concept": "waving-hand", "group": "people-body", "tone": True, "flag": False, "mono": False, "core": False,
        "weight": 0.12, "caption": "waving hand, dark skin tone, noto emoji",
    }  # fmt: skip


def test_everything_unused_is_counted_with_its_reason(whole):
    folder, report = whole
    reasons = Counter()
    for (_, reason), n in report.unused.items():
        reasons[reason] += n
    assert reasons == {
        "duplicate": 5,  # two drawings under two names each, one set of pixels from four drawings
        "brand logo": 1,
        "does not render": 1,
        "blank, or white on white": 1,
        "no name": 1,
        "interface icon, theme or playing card": 1,
        "licence is not public domain": 1,
        "no licence tag": 1,
        "title is not English": 2,
        "not well-formed XML": 1,
        "needs a font": 1,
        "needs a file outside the SVG": 1,
    }
    stats = json.loads((folder / "_stats.json").read_text())
    assert stats == report.as_dict()
    assert stats["count"] == stats["successes"] + sum(reasons.values())
    per_shard = [json.loads(p.read_text()) for p in (folder / "16").rglob("*_stats.json")]
    assert sum(s["successes"] for s in per_shard) == stats["successes"]
    assert sum(s["status_dict"].get("needs a font", 0) for s in per_shard) == 1


def test_attribution_adds_up(whole):
    folder, report = whole
    text = (folder / "ATTRIBUTION.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    counts = {row[0].strip(): int(row[4]) for row in rows if len(row) == 5 and row[4].strip().isdigit()}
    assert counts == Counter(s.meta["source"] for s in samples(folder).values())
    licences = {row[0].strip(): int(row[1]) for row in rows if len(row) == 2 and row[1].strip().isdigit()}
    assert licences == Counter(s.meta["licence"] for s in samples(folder).values()) == report.licences
    assert sum(licences.values()) == len(samples(folder))


def test_splits_do_not_leak_on_disk(whole):
    found = {split: list(shards.read(whole[0] / "16" / split)) for split in corpora.SPLITS}
    concepts = {split: {s.meta["concept"] for s in part} for split, part in found.items()}
    pairs = {split: {(s.meta["concept"], s.meta["style"]) for s in part} for split, part in found.items()}
    assert all(found.values())
    assert not concepts["val"] & (concepts["train"] | concepts["compose"])
    assert concepts["compose"] <= concepts["train"]
    assert not pairs["train"] & pairs["compose"]


def test_no_two_pictures_are_the_same(whole):
    pixels = [
        r["pixels"] for p in (whole[0] / "16").rglob("*.parquet") for r in shards.table(p) if not r["error_message"]
    ]
    assert len(set(pixels)) == len(pixels)


def test_of_equal_drawings_one_is_kept_and_rather_the_better_named(whole):
    keys = set(samples(whole[0]))
    assert len({f"noto-{key}" for key in ("gadget", "gizmo", "doodad", "whatsit", "thingamajig")} & keys) == 1
    assert {"noto-cat", "noto-mouser"} & keys == {"noto-cat"}


def test_the_number_of_workers_changes_nothing(whole, tmp_path, packages, sources):
    build(tmp_path, packages, sources, workers=2)
    assert files(tmp_path) == files(whole[0])


def test_a_finished_corpus_is_not_drawn_again(whole, tmp_path, packages, sources, monkeypatch):
    first = build(tmp_path, packages, sources)
    monkeypatch.setattr(corpora, "render", lambda *_, **__: pytest.fail("drawn again"))
    assert build(tmp_path, packages, sources) == first == whole[1]


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_killed_in_the_middle_of_a_shard(stop, whole, tmp_path, packages, sources, monkeypatch):
    """The shard in work is lost, those before it are kept, and the end is the same."""
    write, calls = shards.write_shard, []

    def dies(folder, index, *rest, **stats):
        calls.append(index)
        if len(calls) > stop:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f".{index:05d}.tar.1.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        write(folder, index, *rest, **stats)

    with monkeypatch.context() as patch:
        (tmp_path / "16" / "train").mkdir(parents=True)
        patch.setattr(shards, "write_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, packages, sources)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "16").rglob("*.tar")}
    assert len(kept) == (stop + 1) // 2
    draw, drawn = corpora.render, []
    monkeypatch.setattr(corpora, "render", lambda data, trim, sizes: drawn.append(data) or draw(data, trim, sizes))
    build(tmp_path, packages, sources)
    assert files(tmp_path) == files(whole[0])
    finished = stop // 2  # a shard is finished when it is there at both sizes
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items() if int(p.stem) < finished)
    counts = [json.loads(p.read_text())["count"] for p in (whole[0] / "16").rglob("*_stats.json")]
    assert len(drawn) == sum(counts) - 40 * finished


def test_duplicates_of_finished_shards_are_known_after_a_restart(tmp_path, packages, sources):
    build(tmp_path, packages, sources, per_shard=5)
    before = files(tmp_path)
    tables = {path: shards.table(path) for path in (tmp_path / "16").rglob("*.parquet")}
    again = next(  # a shard with a duplicate of a picture in another
        path
        for path, rows in tables.items()
        for r in rows
        if r["error_message"] == "duplicate" and sum(other["pixels"] == r["pixels"] for other in rows) == 1
    )
    shards.stats_path(again.parent, int(again.stem)).unlink()
    build(tmp_path, packages, sources, per_shard=5)
    assert files(tmp_path) == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_outright(whole, tmp_path, packages, sources):
    script = """if 1:
        import os, signal, sys
        from pathlib import Path
        from unclip import files
        from unclip.data import shards, sources
        from unclip.data.corpora import illustrations
        def dies(handle, count=[0]):
            count[0] += 1
            if count[0] == 9:  # in the second shard, the file written but not yet in its place
                os.kill(os.getpid(), signal.SIGKILL)
        files.os.fsync = dies
        illustrations(sys.argv[1], (16, 32), given=sys.argv[2], workers=1, per_shard=40, progress=False,
                      sources=sources.named(sys.argv[3].split(",")))
    """
    names = ",".join(s.name for s in sources)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(packages), names],
        env=os.environ | {"PYTHONPATH": str(Path(corpora.__file__).parents[2])},
    )
    assert done.returncode == -signal.SIGKILL
    assert 0 < len(list(tmp_path.rglob("*_stats.json"))) < len(list(whole[0].rglob("*_stats.json")))
    build(tmp_path, packages, sources)
    assert files(tmp_path) == files(whole[0])


def test_a_killed_worker_is_one_clear_line(tmp_path, packages, sources):
    def kill_one():
        while len(children := multiprocessing.active_children()) < 2:  # the pool starts its workers one by one
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(UnclipError, match="run again to go on") as caught:
        build(tmp_path, packages, sources, workers=2)
    killer.join()
    assert caught.value.code == 1


def test_another_plan_leaves_no_strays(whole, tmp_path, packages, sources):
    build(tmp_path, packages, sources)
    foreign = tmp_path / "16" / "train" / "notes.txt"
    foreign.write_text("mine")
    build(tmp_path, packages, sources, limit=60)
    assert foreign.exists()
    foreign.unlink()
    part = {s.key: s for folder in (tmp_path / "16").iterdir() if any(folder.iterdir()) for s in shards.read(folder)}
    assert 50 <= len(part) <= 60
    everything = samples(whole[0])
    assert all(everything[key].meta == sample.meta for key, sample in part.items())
    build(tmp_path, packages, sources)
    assert files(tmp_path) == files(whole[0])


def test_a_further_size_is_added(whole, tmp_path, packages, sources):
    build(tmp_path, packages, sources, sizes=(16,))
    build(tmp_path, packages, sources, sizes=(32, 16))
    assert files(tmp_path) == files(whole[0])


def test_input_that_cannot_be_used(tmp_path, packages, sources):
    with pytest.raises(UnclipError, match="is not a folder"):
        illustrations(tmp_path, given=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UnclipError, match="cannot write"):
        build(tmp_path / "file", packages, sources)


def test_an_empty_package_is_named(tmp_path, packages, sources):
    (tmp_path / "given" / sources[0].package.stem).mkdir(parents=True)
    (tmp_path / "given" / "emojibase-data-17.0.0").symlink_to(packages / "emojibase-data-17.0.0")
    with pytest.raises(UnclipError, match="@iconify-json/noto holds no pictures"):
        build(tmp_path / "corpus", tmp_path / "given", sources[:1])
