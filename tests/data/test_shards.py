import io
import json
import pickle
import tarfile
import time

import pyarrow.parquet
import pytest
from PIL import Image

from unclip.data.shards import Damage, Sample, failure, read, row, write, write_shard
from unclip.errors import UnclipError


def picture(form: str = "WEBP", shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 90, 30)).save(buffer, form)
    return buffer.getvalue()


def samples(n: int) -> list[Sample]:
    return [Sample(f"cat-{i:02d}", picture(shade=i), {"caption": f"cat {i}, 猫", "label": "cat"}) for i in range(n)]


def members(*names_and_data: tuple[str, bytes], form=tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in names_and_data:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unended(data: bytes) -> bytes:
    """A tar without the zero blocks that end it."""
    return data[: -(-len(data.rstrip(b"\0")) // 512) * 512]


def trio(key: str, image: bytes | None = None) -> list[tuple[str, bytes]]:
    document = json.dumps({"key": key, "label": "cat"}).encode()
    return [(f"{key}.webp", image or picture()), (f"{key}.txt", b"a cat"), (f"{key}.json", document)]


def read_all(folder) -> tuple[list[str], dict[str, int]]:
    damage = Damage()
    return [s.key for s in read(folder, damage)], dict(damage.counts)


@pytest.fixture
def shard(tmp_path):
    """Writes bytes as the shard of a folder and reads it: (keys, damage)."""

    def put(data: bytes) -> tuple[list[str], dict[str, int]]:
        (tmp_path / "00000.tar").write_bytes(data)
        return read_all(tmp_path)

    return put


# What is written


def test_what_is_written_is_read_again_in_order(tmp_path):
    given = samples(7)
    assert write(tmp_path, given, per_shard=3) == 3
    damage = Damage()
    got = list(read(tmp_path, damage))
    assert [(s.key, s.image) for s in got] == [(s.key, s.image) for s in given]
    assert [s.meta for s in got] == [{"key": s.key, **s.meta} for s in given]
    assert not damage.counts
    assert str(damage) == "no damage"
    assert got == list(read(tmp_path))


def test_the_layout_is_that_of_img2dataset(tmp_path):
    write(tmp_path, samples(3), per_shard=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000.parquet", "00000.tar", "00000_stats.json", "00001.parquet", "00001.tar", "00001_stats.json"
    ]  # fmt: skip
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert tar.getnames() == [f"cat-0{i}.{s}" for i in range(2) for s in ("webp", "txt", "json")]
        assert tar.extractfile("cat-01.txt").read().decode() == "cat 1, 猫"
        assert json.load(tar.extractfile("cat-01.json"))["key"] == "cat-01"
    table = pyarrow.parquet.read_table(tmp_path / "00000.parquet").to_pylist()
    assert table[1] | {"sha256": None} == {
        "key": "cat-01", "caption": "cat 1, 猫", "label": "cat", "status": "success", "error_message": None,
        "width": 8, "height": 8, "sha256": None,
    }  # fmt: skip
    assert len(table[1]["sha256"]) == 64
    stats = json.loads((tmp_path / "00000_stats.json").read_text())
    assert stats == {"count": 2, "successes": 2, "failed": 0, "status_dict": {"success": 2}}


def test_failures_stand_in_table_and_statistics(tmp_path):
    good = samples(1)[0]
    rows = [row(good, pixels="f00"), failure("dog", {"caption": "dog", "label": "dog"}, "does not render", pixels="")]
    write_shard(tmp_path, 3, [good], rows, fingerprint="abc")
    stats = json.loads((tmp_path / "00003_stats.json").read_text())
    assert stats["status_dict"] == {"does not render": 1, "success": 1}
    assert (stats["count"], stats["successes"], stats["failed"], stats["fingerprint"]) == (2, 1, 1, "abc")
    table = pyarrow.parquet.read_table(tmp_path / "00003.parquet").to_pylist()
    assert [(r["key"], r["status"], r["error_message"]) for r in table] == [
        ("cat-00", "success", None), ("dog", "failed", "does not render")
    ]  # fmt: skip


def test_the_same_samples_make_the_same_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, samples(3))
        time.sleep(0.01)
    for file in ("00000.tar", "00000.parquet", "00000_stats.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnclipError, match="cannot write"):
        write(tmp_path / "file" / "train", samples(1))


# What is read


def test_no_shards(tmp_path):
    with pytest.raises(UnclipError, match="no shards"):
        list(read(tmp_path))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_other_writers(shard, form):
    keys, damage = shard(members(*trio("one"), *trio("two"), form=form))
    assert keys == ["one", "two"]
    assert not damage


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(shard, form):
    long = "a-very-long-key-" * 9
    keys, damage = shard(members(*trio(long), *trio("猫"), *trio("./three"), form=form))
    assert keys == [long, "猫", "three"]
    assert not damage


def test_time_stamps_as_fractions(shard):
    """Such as webdataset writes them: in extended headers before each member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in trio("one"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1234567.125
            tar.addfile(info, io.BytesIO(data))
    assert shard(buffer.getvalue()) == (["one"], {})


def test_a_tar_of_a_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in trio("one"):
        (folder / name).write_bytes(data)
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        tar.add(folder, ".")
    assert read_all(tmp_path) == (["one"], {})


@pytest.mark.parametrize("form", ["WEBP", "JPEG", "PNG"])
def test_image_formats(shard, form):
    suffix = {"WEBP": "webp", "JPEG": "jpg", "PNG": "PNG"}[form]
    assert shard(members((f"one.{suffix}", picture(form)), ("one.txt", b"cat"))) == (["one"], {})


def test_a_text_alone_is_a_caption_and_json_alone_will_do(tmp_path):
    (tmp_path / "00000.tar").write_bytes(
        members(("a.webp", picture()), ("a.txt", b"a cat"), ("b.webp", picture()), ("b.json", b'{"caption": "a dog"}'))
    )
    assert [s.meta for s in read(tmp_path)] == [{"key": "a", "caption": "a cat"}, {"key": "b", "caption": "a dog"}]


# Damage


def test_truncated_anywhere(shard):
    whole = unended(members(*trio("one"), *trio("two")))
    end_of_one = len(unended(members(*trio("one"))))
    for cut in range(1, len(whole) + 1, 61):
        keys, damage = shard(whole[:cut])
        assert damage["truncated"] == 1
        assert ("one" in keys) or cut < end_of_one
        assert "two" not in keys or cut > end_of_one + 1536  # picture and text are enough


def test_cut_in_the_middle_of_a_picture(shard):
    before = unended(members(*trio("one")))
    keys, damage = shard((before + members(("two.webp", b"x" * 2000)))[: len(before) + 1024])
    assert keys == ["one"]
    assert damage == {"truncated": 1}


@pytest.mark.parametrize("lost", ["webp", "txt", "json"])
def test_a_bad_header_costs_one_member(shard, lost):
    whole = bytearray(members(*trio("one"), *trio("two"), *trio("three")))
    at = whole.index(f"two.{lost}".encode())
    whole[at + 130] ^= 0x55
    keys, damage = shard(bytes(whole))
    assert damage["bad header"] == 1
    if lost == "webp":
        assert keys == ["one", "three"]
        assert damage["missing partner"] == 1
    elif lost == "json":  # the text still carries the caption
        assert keys == ["one", "two", "three"]


def test_garbage_between_members(shard):
    one, two = unended(members(*trio("one"))), members(*trio("two"))
    for garbage in (b"\xa7" * 5 * 512, b"\xa7" * 512 + b"\0" * 512 * 3):
        assert shard(one + garbage + two) == (["one", "two"], {"bad header": 1})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([("one.webp", picture())], "missing partner"),
        ([("one.txt", b"a cat"), ("one.json", b"{}")], "missing partner"),
        ([("one.webp", b"not a picture"), ("one.txt", b"cat")], "bad image"),
        ([("one.webp", b""), ("one.txt", b"cat")], "bad image"),
        ([("one.webp", picture()[:-20]), ("one.txt", b"cat")], "bad image"),
        ([("one.jpg", picture("JPEG")[:-20]), ("one.txt", b"cat")], "bad image"),
        ([("one.png", picture("PNG")[:-20]), ("one.txt", b"cat")], "bad image"),
        ([("one.webp", picture()), ("one.json", b"{")], "bad text"),
        ([("one.webp", picture()), ("one.json", b"[1]")], "bad text"),
        ([("one.webp", picture()), ("one.json", b"{}")], "bad text"),
        ([("one.webp", picture()), ("one.json", b'{"caption": 7}')], "bad text"),
        ([("one.webp", picture()), ("one.json", b"[" * 100_000)], "bad text"),
        ([("one.webp", picture()), ("one.txt", b"\xff\xfe\x80")], "bad text"),
    ],
)
def test_a_bad_sample_is_counted_and_the_next_one_read(shard, content, reason):
    assert shard(members(*content, *trio("two"))) == (["two"], {reason: 1})


def test_duplicate_keys_across_and_within_shards(tmp_path):
    (tmp_path / "00000.tar").write_bytes(members(*trio("one"), *trio("two"), *trio("one")))
    (tmp_path / "00001.tar").write_bytes(members(*trio("two"), *trio("three")))
    assert read_all(tmp_path) == (["one", "two", "three"], {"duplicate key": 2})


def test_duplicate_members(shard):
    assert shard(members(*trio("one"), *trio("one"))) == (["one"], {"duplicate key": 3})


@pytest.mark.parametrize("data", [b"", b"\0" * 1024, b"\0" * 10240])
def test_empty(shard, data):
    assert shard(data) == ([], {"empty shard": 1})


def test_not_a_tar_at_all(shard):
    keys, damage = shard(b"PK\x03\x04" + bytes(range(256)) * 20)
    assert keys == []
    assert damage == {"bad header": 1}


def test_places_of_damage_are_kept_and_bounded(tmp_path):
    (tmp_path / "00000.tar").write_bytes(members(*[(f"cat{i}.webp", picture()) for i in range(50)]))
    damage = Damage()
    assert list(read(tmp_path, damage)) == []
    assert str(damage) == "50 × missing partner"
    assert len(damage.places) == 20
    assert damage.places[0] == "00000.tar/cat0: missing partner"


# Hostile members


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_hostile_members_are_counted_and_never_opened(tmp_path):
    names = [
        "../evil.webp",
        "/abs/evil.webp",
        "a/../../evil.webp",
        "..webp",
        ".hidden.webp",
        "C:\\evil.webp",
        "a\nb.webp",
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        for suffix in ("pkl", "pyd", "pth", "cls", "webp.pkl"):
            data = pickle.dumps(Evil())
            info = tarfile.TarInfo(f"one.{suffix}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"link{i}.webp")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "00000.tar").write_bytes(unended(buffer.getvalue()) + members(*trio("two")))
    before = sorted(tmp_path.rglob("*"))
    keys, damage = read_all(folder)
    assert keys == ["two"]
    assert damage == {"name is not plain": len(names), "unknown suffix": 5, "not a plain file": 4}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_claims_to_be_huge_is_not_read(shard):
    header = tarfile.TarInfo("big.webp")
    header.size = 1 << 50
    keys, damage = shard(header.tobuf(tarfile.GNU_FORMAT) + members(*trio("two")))
    assert keys == []
    assert damage == {"truncated": 1}


def test_a_large_text_is_skipped(shard):
    keys, damage = shard(members(("one.txt", b"x" * (1 << 21)), *trio("two")))
    assert keys == ["two"]
    assert damage == {"too large": 1}


def test_a_link_after_a_long_name_does_not_lend_it(shard):
    """The long name belongs to the member that follows, whatever that is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("long-" * 40 + ".webp")
        info.type = tarfile.SYMTYPE
        tar.addfile(info)
        for name, data in trio("two"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert shard(buffer.getvalue()) == (["two"], {"not a plain file": 1})
