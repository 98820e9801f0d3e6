"""Pictures of any kind are read alike: mode, depth, orientation, alpha, and what is too large or no picture."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import UnclipError
from unclip.pictures import flat, read, square, to_pil, to_tensor


@pytest.fixture
def rgb() -> Image.Image:
    values = np.linspace(0, 255, 12 * 8 * 3).reshape(8, 12, 3).astype(np.uint8)
    return Image.fromarray(values)


def near(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


@pytest.mark.parametrize(("suffix", "mode"), [("png", "RGB"), ("png", "P"), ("png", "L"), ("png", "1"), ("png", "LA"),
                                              ("bmp", "RGB"), ("webp", "RGB"), ("tiff", "CMYK"), ("jpg", "CMYK"),
                                              ("ppm", "RGB"), ("gif", "P"), ("tiff", "YCbCr")])  # fmt: skip
def test_modes(tmp_path, rgb, suffix, mode):
    rgb = Image.new("RGB", (12, 8), (0, 0, 0)) if mode == "1" else rgb
    rgb.convert(mode).save(tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = read(tmp_path / f"x.{suffix}")
    assert found.mode == ("RGBA" if mode == "LA" else "RGB")
    tolerance = {"P": 60, "CMYK": 30, "YCbCr": 3}.get(mode, 0)
    expected = rgb.convert("L").convert("RGB") if mode in ("L", "LA") else rgb
    assert near(flat(found), expected) <= tolerance


def test_sixteen_bits(tmp_path):
    deep = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    assert np.asarray(read(tmp_path / "x.png"))[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "x.tiff")
    assert np.asarray(read(tmp_path / "x.tiff"))[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(UnclipError, match="floating-point values"):
        read(tmp_path / "x.tiff")


def test_transparency_of_a_palette(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=0)
    found = read(tmp_path / "x.png")
    assert [found.getpixel((0, 0))[3], found.getpixel((1, 0))] == [0, (200, 100, 50, 255)]


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(tmp_path, rgb, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    way = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
           7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    image = rgb.transpose(Image.Transpose[way[turn]]) if turn > 1 else rgb
    image.save(tmp_path / "x.png", exif=exif)
    assert near(read(tmp_path / "x.png"), rgb) == 0


def test_the_size_is_refused_from_the_header(tmp_path, monkeypatch):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 10, 8, 2, 0, 0, 0))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(UnclipError, match="is 5000×10; at most 4096×4096 is read"):
        read(tmp_path / "x.png")
    with pytest.raises(UnclipError, match="the picture is 1×4097"):
        read(Image.new("RGB", (1, 4097)))


def test_what_unpacks_to_gigabytes(tmp_path):
    Image.new("1", (13000, 13000)).save(tmp_path / "x.png")
    with pytest.raises(UnclipError, match="is too large: at most 4096×4096 is read"):
        read(tmp_path / "x.png")


def test_what_runs_programs_is_not_read(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(UnclipError, match="is no PNG"):
        read(tmp_path / "x.png")


def test_to_a_square_and_back(rgb):
    wide = Image.new("RGB", (8, 4), (10, 20, 30))
    assert np.asarray(square(wide, 8))[:, 0].tolist() == [[255] * 3] * 2 + [[10, 20, 30]] * 4 + [[255] * 3] * 2
    assert near(square(Image.new("RGB", (300, 300), (9, 9, 9)), 64), Image.new("RGB", (64, 64), (9, 9, 9))) == 0
    x = to_tensor(rgb)
    assert (x.shape, x.dtype) == ((1, 3, 8, 12), torch.float32)
    assert (x.min(), x.max()) == (-1, 1)
    assert near(to_pil(x)[0], rgb) == 0
