"""`unclip upscale` as a user calls it."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from unclip import metadata


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def upscale(cli, folder, picture, *words):
    return cli("upscale", picture, "--weights", folder, "--quiet", "--upsampler-steps", 2, *words)


def test_a_picture_is_enlarged_and_says_so(cli, tiny_folder, photo, tmp_path):
    done = upscale(cli, tiny_folder, photo, "-o", tmp_path / "large.png", "--seed", 3, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["seed"] == 3
    large, small = metadata.read(tmp_path / "large.png"), metadata.read(photo)
    assert large.image.size == (64, 40)
    edit = large.record["edit"]
    assert edit == {"verb": "upscale", "options": {"to": None, "start": None, "skip": []}, "sources": [small.pixels]}
    assert large.record["settings"]["upsampler_steps"] == 2
    again = upscale(cli, tiny_folder, photo, "-o", tmp_path / "again.png", "--seed", 3)
    assert again.out.strip() == str(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "large.png").read_bytes()


def test_options_reach_the_stages(cli, tiny_folder, photo, tmp_path):
    named = upscale(cli, tiny_folder, photo, "--to", 40, "-o", f"{tmp_path}/")
    assert named.out.strip() == str(tmp_path / "photo-large.png")
    with Image.open(tmp_path / "photo-large.png") as image:
        assert image.size == (40, 25)
    pictures = {}
    for words in ([], ["--from", 8, "--to", 32], ["--skip", 64, "--to", 32], ["--to", 32]):
        out = tmp_path / f"{len(pictures)}.png"
        assert upscale(cli, tiny_folder, photo, "-o", out, *words).code == 0
        pictures[str(words)] = metadata.pixels(Image.open(out))
    assert len(set(pictures.values())) == 4


def test_pictures_of_every_kind(cli, tiny_folder, photo, tmp_path):
    with Image.open(photo) as image:
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 6
        image.save(tmp_path / "turned.jpg", exif=turned)
        image.convert("P").save(tmp_path / "palette.png")
        image.convert("CMYK").save(tmp_path / "cmyk.jpg")
        Image.new("RGBA", image.size, (255, 0, 0, 0)).save(tmp_path / "clear.png")
    sizes = {}
    for name in ("turned.jpg", "palette.png", "cmyk.jpg", "clear.png"):
        out = tmp_path / f"large-{name}.png"
        done = upscale(cli, tiny_folder, tmp_path / name, "--skip", 64, "-o", out)
        assert done.code == 0, done.err
        with Image.open(out) as image:
            sizes[name] = image.size
            if name == "clear.png":
                assert image.getextrema() == ((255, 255),) * 3
    assert sizes == {"turned.jpg": (40, 64), "palette.png": (64, 40), "cmyk.jpg": (64, 40), "clear.png": (64, 40)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", 300], "these weights enlarge 16 px to 64 at most, not to 300; they hold 16 → 64"),
        (["--to", 8], "the picture is 16 px already; ask for more than that, or shrink it first (--from)"),
        (["--skip", 256], "no upsampler to 256 to skip"),
        (["--tile", 3], "tile is 3; it must be from 16 to 4096"),
        (["-o", "large.tiff"], "has no suffix of a picture"),
    ],
)
def test_what_cannot_be_done(cli, tiny_folder, photo, words, message):
    done = upscale(cli, tiny_folder, photo, *words)
    assert done.code == 2
    assert message in done.error


def test_what_is_no_picture(cli, tiny_folder, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert "damaged" in upscale(cli, tiny_folder, tmp_path / "x.png").error
    assert "cannot read" in upscale(cli, tiny_folder, tmp_path / "none.png").error
