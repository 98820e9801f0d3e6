"""The commands that manipulate pictures: what they write, what the files say, and that they can be drawn again."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unclip import metadata


@pytest.fixture
def folder(tmp_path) -> Path:
    """a.png and b.png, 16 px; mask.png; out/"""
    for name, colour in (("a", "red"), ("b", "blue")):
        image = Image.new("RGB", (16, 16), "white")
        ImageDraw.Draw(image).ellipse((3, 3, 12, 12), fill=colour)
        image.save(tmp_path / f"{name}.png")
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 16, 8))
    mask.save(tmp_path / "mask.png")
    (tmp_path / "out").mkdir()
    return tmp_path


COMMANDS = {
    "variations": (["a.png", "-n", 2, "--eta", 0.5], 2),
    "img2img": (["a.png", "a blue cat", "--strength", 0.7], 1),
    "interpolate": (["a.png", "b.png", "--text", "a red fox", "--frames", 3], 3),
    "diff": (["a.png", "a blue cat", "--base", "a red fox", "--theta", 0.5, "--frames", 3], 3),
    "inpaint": (["a.png", "--mask", "mask.png", "--prompt", "a red fox", "--rounds", 2], 1),
    "outpaint": (["a.png", "--left", 4, "--top", 2, "--rounds", 1], 1),
    "invert": (["a.png", "--calls", 2], 1),
}
SOURCES = {"interpolate": ["a.png", "b.png"], "inpaint": ["a.png", "mask.png"]}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_writes_what_can_be_drawn_again(cli, few, folder, monkeypatch, verb):
    monkeypatch.chdir(folder)
    words, count = COMMANDS[verb]
    done = cli(verb, *words, *few, "--size", 16, "--seed", 3, "-o", "out/", "--json")
    assert (done.code, done.err) == (0, "")
    paths = [json.loads(line)["path"] for line in done.out.splitlines()]
    assert paths == ([f"out/{verb}.png"] if count == 1 else [f"out/{verb}-{i}.png" for i in range(count)])
    picture = metadata.read(paths[-1])
    assert picture.record["edit"]["verb"] == verb
    assert picture.record["pixels"] == picture.pixels
    assert "Seed: " in picture.parameters
    again = cli("inspect", paths[-1], "--replay", "--quiet", "--weights", few[1],
                *(word for source in SOURCES.get(verb, ["a.png"]) for word in ("--source", source)))  # fmt: skip
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("the same picture; sha256 equal")


def test_it_draws_what_python_draws(cli, few, folder, tiny_folder):
    from unclip.pipeline import UnCLIP

    cli("diff", folder / "a.png", "a blue cat", *few, "--size", 16, "--frames", 2, "-o", folder / "x.png")
    frames = UnCLIP.from_pretrained(tiny_folder).text_diff(
        folder / "a.png", "a blue cat", frames=2, size=16, steps=3, prior_steps=2, upsampler_steps=2, progress=False
    )
    for i, image in enumerate(frames.images):
        assert metadata.read(folder / f"x-{i}.png").pixels == metadata.pixels(image)


@pytest.mark.parametrize(("name", "form"), [("x.gif", "GIF"), ("x.webp", "WEBP")])
def test_a_film(cli, few, folder, name, form):
    done = cli("interpolate", folder / "a.png", folder / "b.png", *few, "--frames", 4, "-o", folder / name)
    assert (done.code, done.out) == (0, f"{folder / name}\n")
    with Image.open(folder / name) as film:
        assert (film.format, film.n_frames, film.info["loop"]) == (form, 4, 0)
    picture = metadata.read(folder / name)
    assert picture.record["edit"]["verb"] == "interpolate"
    assert "Steps: 3, Sampler: DDIM" in picture.parameters
    assert "Sampler " in cli("inspect", folder / name).out
    bare = cli("interpolate", folder / "a.png", folder / "b.png", *few, "-o", folder / name, "--no-metadata")
    assert bare.code == 0
    assert metadata.read(folder / name).record is None


def test_a_film_that_every_player_shows(cli, few, folder):
    av = pytest.importorskip("av", reason="the extra `film`")
    done = cli("diff", folder / "a.png", "a cat", *few, "--frames", 5, "-o", folder / "x.mp4")
    assert (done.code, done.out) == (0, f"{folder / 'x.mp4'}\n")
    with av.open(str(folder / "x.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.video[0].average_rate == 5
    assert len(frames) == 5 and frames[0].shape == (64, 64, 3)
    cli("diff", folder / "a.png", "a cat", *few, "--frames", 5, "-o", folder / "x.png")
    for i, frame in enumerate(frames):
        true = np.asarray(Image.open(folder / f"x-{i}.png")).mean((0, 1))
        assert np.abs(frame.mean((0, 1)) - true).max() < 6  # colours at half the resolution
    picture = metadata.read(folder / "x.mp4")
    assert (picture.format, picture.record["edit"]["verb"]) == ("MP4", "diff")
    assert "Steps: 3, Sampler: DDIM" in picture.parameters
    again = cli("inspect", folder / "x.mp4", "--replay", "--quiet", "--weights", few[1], "--source", folder / "a.png")
    assert again.out.startswith("the same picture")
    (folder / "half.mp4").write_bytes((folder / "x.mp4").read_bytes()[:900])
    assert "is no MP4 film" in cli("inspect", folder / "half.mp4").error


def test_a_film_without_its_library(cli, few, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    done = cli("interpolate", folder / "a.png", folder / "b.png", *few, "-o", folder / "x.mp4")
    assert (done.code, done.error) == (2, "mp4 needs PyAV: pip install 'unclip[film]'; .webp and .gif do without")


def test_a_strip_of_frames(cli, few, folder):
    cli("diff", folder / "a.png", "a cat", *few, "--size", 16, "--frames", 3, "--grid", "-o", folder / "x.webp")
    picture = metadata.read(folder / "x.webp")
    assert picture.image.size == (3 * 18 + 2, 20)
    again = cli("inspect", folder / "x.webp", "--replay", "--quiet", "--weights", few[1], "--source", folder / "a.png")
    assert again.out.startswith("the same picture")


def test_a_replay_needs_the_right_pictures(cli, few, folder):
    cli("variations", folder / "a.png", *few, "--size", 16, "-n", 1, "-o", folder / "x.png")
    for words in ([], ["--source", folder / "b.png"]):
        done = cli("inspect", folder / "x.png", "--replay", "--quiet", "--weights", few[1], *words)
        assert done.code == 2
        assert "name them in this order: --source PICTURE" in done.error


@pytest.mark.parametrize(
    "change", [{"verb": "open"}, {"verb": ["x"]}, {"options": {"no": 1}}, {"options": 3}, {"picture": 9}], ids=str
)
def test_a_record_is_not_trusted(cli, few, folder, change):
    cli("variations", folder / "a.png", *few, "--size", 16, "-n", 1, "-o", folder / "x.png")
    found = metadata.read(folder / "x.png")
    record = found.record | {"edit": found.record["edit"] | change}
    (folder / "x.png").write_bytes(metadata.encode(found.image, "PNG", record))
    done = cli("inspect", folder / "x.png", "--replay", "--quiet", "--weights", few[1], "--source", folder / "a.png")
    assert done.code == 2
    assert "again" in done.error or "unknown setting 'no'" in done.error


def test_the_pair_in_a_file_serves_as_the_picture(cli, few, folder):
    done = cli("invert", folder / "a.png", *few, "-o", folder / "a.safetensors")
    assert (done.code, done.out) == (0, f"{folder / 'a.safetensors'}\n")
    pictures = []
    for source in ("a.png", "a.safetensors"):
        cli("diff", folder / source, "a cat", *few, "--size", 16, "--frames", 2, "-o", folder / "x.png")
        pictures.append(metadata.read(folder / "x-1.png").pixels)
    assert pictures[0] == pictures[1]


def test_the_probe_learns_its_components_from_a_corpus(cli, few, folder):
    corpus = Path(__file__).parents[1] / "fixtures/illustrations"
    done = cli("probe", folder / "a.png", *few, "--data", corpus, "--dims", "2,8", "-o", folder / "x.png")
    assert done.code == 2 and "no shards in" in done.error  # the tiny decoder draws 16 px, of which there are none


def test_a_sheet_of_files(cli, few, folder):
    cli("variations", folder / "a.png", *few, "-n", 2, "-o", folder / "x.png")
    done = cli("grid", folder / "a.png", folder / "x-0.png", folder / "x-1.png", "--columns", 3, "-o", folder / "s.png")
    assert (done.code, done.out, done.err) == (0, f"{folder / 's.png'}\n", "")
    sheet = metadata.read(folder / "s.png")
    assert sheet.image.size == (3 * 66 + 2, 68)
    assert sheet.record["edit"]["verb"] == "grid"
    assert (np.asarray(sheet.image)[2:66, 68:132] == np.asarray(Image.open(folder / "x-0.png"))).all()
    done = cli("grid", folder / "a.png", folder / "b.png", "-o", folder / "s.png", "--json")
    assert json.loads(done.out) == {"path": str(folder / "s.png")}
    assert metadata.read(folder / "s.png").record is None


def test_of_several_frames_the_first_is_taken(cli, few, folder):
    frames = [Image.open(folder / name) for name in ("a.png", "b.png")]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    done = cli("invert", folder / "film.gif", *few, "-o", folder / "x.png")
    assert done.code == 0
    assert "has 2 frames; the first is taken" in done.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["interpolate", "a.png"], "an interpolation needs two pictures"),
        (["diff", "a.png", "x", "--theta", 2], "theta is 2.0"),
        (["inpaint", "a.png"], "no transparent part"),
        (["inpaint", "a.png", "--box", "0,0,16,16"], "covers the whole picture"),
        (["inpaint", "a.png", "--box", "1,2"], "the box is (1, 2)"),
        (["inpaint", "a.png", "--box", "a"], "'a' is no list of numbers"),
        (["inpaint", "a.png", "--mask", "mask.png", "--box", "0,0,1,1"], "not both"),
        (["outpaint", "a.png"], "nothing is to be added"),
        (["variations", "nowhere.png"], "cannot read 'nowhere.png'"),
        (["variations", "mask.png", "-o", "x.gif"], "has no suffix of a picture"),
        (["variations", "text.txt"], "is no PNG"),
        (["grid", "a.png", "--columns", 0], "--columns is 0"),
    ],
)
def test_errors_are_one_line(cli, few, folder, monkeypatch, words, error):
    monkeypatch.chdir(folder)
    Path("text.txt").write_text("no picture")
    done = cli(*words, *([] if words[0] == "grid" else few))
    assert done.code == 2
    assert error in done.error
