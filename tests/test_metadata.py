"""What a picture's file says: every format there and back, other tools' lines, and files made to do harm."""

import io
import json
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from unclip import metadata
from unclip.errors import UnclipError
from unclip.settings import LONGEST, SAMPLERS

RECORD = {
    "prompt": "a red fox, sitting\n一只狐狸",
    "negative_prompt": "blurry: 模糊",
    "seed": 2**63 - 1,
    "settings": {"size": 64, "steps": 25, "guidance": 3.0, "sampler": "ddim"},
    "model": {"name": "mini", "digest": "0123456789"},
    "version": "0.1.0",
}
LINES = """a red fox, sitting
一只狐狸
Negative prompt: blurry: 模糊
Steps: 25, Sampler: DDIM, CFG scale: 3, Seed: 9223372036854775807, Size: 64x64, Model hash: 0123456789, Model: mini, \
Version: unclip 0.1.0"""


def image(size: int = 16) -> Image.Image:
    return Image.frombytes("RGB", (size, size), bytes(i * 7 % 256 for i in range(size * size * 3)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, side: int = 1) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def read(tmp_path: Path, data: bytes) -> metadata.Picture:
    (tmp_path / "x").write_bytes(data)
    return metadata.read(tmp_path / "x")


def packet(picture: metadata.Picture) -> str:
    """The XMP of a picture, as Pillow finds it."""
    found = picture.image.info.get("xmp", b"")
    return (found.decode() if isinstance(found, bytes) else found).removeprefix("\ufeff")


def test_the_lines_are_those_that_other_tools_know():
    assert metadata.parameters(RECORD) == LINES


@pytest.mark.parametrize("form", sorted(set(metadata.FORMATS.values())))
def test_there_and_back(tmp_path, form):
    picture = read(tmp_path, metadata.encode(image(), form, RECORD))
    assert (picture.format, picture.parameters, picture.record) == (form, LINES, RECORD)
    assert (picture.pixels == metadata.pixels(image())) == (form != "JPEG")
    (marks,) = ElementTree.fromstring(packet(picture)).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    source = marks.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("form", sorted(set(metadata.FORMATS.values())))
def test_nothing_is_said_when_nothing_is_to_be_said(tmp_path, form):
    picture = read(tmp_path, metadata.encode(image(), form, None))
    assert (picture.parameters, picture.record) == (None, None)
    assert not packet(picture)


@pytest.mark.parametrize("form", ["WEBP", "JPEG"])
def test_the_longest_prompts_fit(tmp_path, form):
    record = RECORD | {"prompt": "狐" * LONGEST, "negative_prompt": ""}
    assert read(tmp_path, metadata.encode(image(), form, record)).record == record


def test_what_does_not_fit_into_a_format_is_told():
    with pytest.raises(UnclipError, match="too long to be noted in JPEG"):
        metadata.encode(image(), "JPEG", RECORD | {"prompt": "狐" * 40_000})


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.lists(LINE, min_size=1, max_size=3), st.text("ab,: ", max_size=5), st.sampled_from(SAMPLERS))
def test_prompts_come_back_whole(lines, name, sampler):
    prompt = "\n".join(lines).strip()
    if any(line.startswith("Negative prompt:") for line in prompt.split("\n")):
        return
    record = RECORD | {"prompt": prompt, "model": {"name": name, "digest": "x"}}
    record["settings"] = record["settings"] | {"sampler": sampler}
    found, negative, pairs = metadata.parse(metadata.parameters(record))
    assert (found, negative) == (prompt, RECORD["negative_prompt"])
    assert pairs["Model"].strip() == name.strip()
    assert pairs["Sampler"] == metadata.LABELS[sampler]
    assert list(pairs) == ["Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Version"]


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "pairs"),
    [
        ('cat\nNegative prompt: dog,\nugly\nSteps: 20, Sampler: Euler a, CFG scale: 7, Lora hashes: "a: 1, b: 2", '
         "Size: 8x8",
         "cat", "dog,\nugly",
         {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Lora hashes": "a: 1, b: 2", "Size": "8x8"}),
        ("cat\nSteps: 20, Seed: 3", "cat\nSteps: 20, Seed: 3", "", {}),  # two pairs may be a prompt
        ("Steps: 20, Seed: 3, Size: 8x8", "", "", {"Steps": "20", "Seed": "3", "Size": "8x8"}),
        ("", "", "", {}),
    ],
)  # fmt: skip
def test_lines_of_other_tools(text, prompt, negative, pairs):
    assert metadata.parse(text) == (prompt, negative, pairs)


def test_a_line_that_would_take_for_ever_is_left_alone():
    text = "x\n" + "a" * 2**20
    assert metadata.parse(text) == (text, "", {})


def test_comments_of_other_tools(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a cat"
    out = io.BytesIO()
    image().save(out, "JPEG", exif=exif)
    picture = read(tmp_path, out.getvalue())
    assert (picture.parameters, picture.record) == ("a cat", None)


@pytest.mark.parametrize("note", ["[1]", "{", "null", "7", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "\xff"])
def test_a_record_that_is_none(tmp_path, note):
    info = PngImagePlugin.PngInfo()
    info.add_text("unclip", note)
    out = io.BytesIO()
    image().save(out, "PNG", pnginfo=info)
    assert read(tmp_path, out.getvalue()).record is None


WHOLE = metadata.encode(image(), "PNG", RECORD)
HARMFUL = {
    "empty": b"",
    "text": b"hello",
    "cut in the header": WHOLE[:20],
    "cut in a chunk": WHOLE[:100],
    "cut in the pixels": WHOLE[:-60],
    "one bit of the pixels": WHOLE[:-30] + bytes([WHOLE[-30] ^ 1]) + WHOLE[-29:],
    "one bit of a chunk": WHOLE[:60] + bytes([WHOLE[60] ^ 1]) + WHOLE[61:],
    "a billion pixels": png(side=30_000),
    "more pixels than are read": png(side=5000),
    "a chunk that unpacks to gigabytes": png(chunk(b"zTXt", b"unclip\0\0" + zlib.compress(bytes(2**24)))),
    "a chunk that claims to be huge": png()[:33] + struct.pack(">I", 2**31 - 1) + b"tEXtunclip\0",
    "a TIFF": b"II*\0" + bytes(100),
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_file_is_one_line(tmp_path, name):
    with pytest.raises(UnclipError, match="is no PNG, WEBP, JPEG or GIF picture, or a damaged one|is read") as caught:
        read(tmp_path, HARMFUL[name])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "x", "wb") as f:
        f.write(png())
        f.truncate(2**40)
    with pytest.raises(UnclipError, match="larger than 64 MiB"):
        metadata.read(tmp_path / "x")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnclipError, match="cannot read .*No such file"):
        metadata.read(tmp_path / "x")


@pytest.mark.parametrize("path, form", [("x.png", "PNG"), ("X.PNG", "PNG"), ("a/x.webp", "WEBP"), ("x.jpg", "JPEG")])
def test_the_suffix_says_the_format(path, form):
    assert metadata.picture_format(path) == form


@pytest.mark.parametrize("path", ["x", "x.gif", "x.png.txt", ".png"])
def test_a_suffix_of_no_picture(path):
    with pytest.raises(UnclipError, match=r"no suffix of a picture; use \.png, \.webp, \.jpg, \.jpeg"):
        metadata.picture_format(path)


def test_pixels_tell_size_and_colour():
    a, b = Image.new("RGB", (2, 8)), Image.new("RGB", (4, 4))
    assert metadata.pixels(a) != metadata.pixels(b)
    assert metadata.pixels(a) == metadata.pixels(a.copy())
    b.putpixel((0, 0), (0, 0, 1))
    assert metadata.pixels(b) != metadata.pixels(Image.new("RGB", (4, 4)))


def test_the_record_is_plain_json(tmp_path):
    chunks = dict(Image.open(io.BytesIO(WHOLE)).info)
    assert json.loads(chunks["unclip"]) == RECORD
