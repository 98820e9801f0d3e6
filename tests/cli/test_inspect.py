"""`unclip inspect`: what is read from pictures and weights, and pictures drawn again."""

import json
import shutil
import struct

import pytest
import torch
from PIL import Image, PngImagePlugin

from unclip import metadata
from unclip.files import sha256


@pytest.fixture
def picture(cli, few, tmp_path):
    """A picture drawn with every setting other than the default."""
    cli("generate", "a red fox, sitting", *few, "-o", tmp_path / "x.png", "--seed", 9, "--size", 16, "--best-of", 3,
        "--guidance", 2.5, "--prior-guidance", 1.5, "--sampler", "dpmpp_2m", "--negative-prompt", "blue")  # fmt: skip
    return tmp_path / "x.png"


def changed(path, **changes):
    """The picture with another record."""
    found = metadata.read(path)
    info = PngImagePlugin.PngInfo()
    info.add_text("unclip", json.dumps(found.record | changes))
    found.image.save(path, "PNG", pnginfo=info)
    return path


# ---- pictures ------------------------------------------------------------------------------------------------


def test_a_picture(cli, picture):
    done = cli("inspect", picture)
    rows = dict(line.split("  ", 1) for line in done.out.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert (done.code, done.err) == (0, "")
    assert rows["Picture"] == f"{picture}, PNG, 16×16"
    assert rows["Prompt"] == "a red fox, sitting"
    assert rows["Negative prompt"] == "blue"
    assert (rows["Sampler"], rows["CFG scale"], rows["Seed"], rows["Model"]) == ("DPM++ 2M", "2.5", "9", "tiny")
    assert "prior_guidance 1.5" in rows["Settings"]
    assert rows["Pixels"] == "as drawn"


def test_a_picture_as_json(cli, picture):
    facts = json.loads(cli("inspect", picture, "--json").out)
    assert facts["record"] == metadata.read(picture).record
    assert facts["parameters"] == metadata.read(picture).parameters
    assert (facts["format"], facts["size"], facts["sha256"]) == ("PNG", [16, 16], sha256(picture))


def test_a_picture_that_was_changed(cli, picture):
    found = metadata.read(picture)
    found.image.putpixel((3, 3), (1, 2, 3))
    picture.write_bytes(metadata.encode(found.image, "PNG", found.record))
    assert "Pixels           changed since the picture was drawn" in cli("inspect", picture).out


def test_a_picture_of_another_tool(cli, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    out = cli("inspect", tmp_path / "x.png").out
    assert "Prompt     a cat\n" in out
    assert "Sampler    Euler a\n" in out
    assert "Negative" not in out
    Image.new("RGB", (8, 8)).save(tmp_path / "x.webp")
    assert "the file does not say" in cli("inspect", tmp_path / "x.webp").out


def test_what_a_picture_says_cannot_steer_the_terminal(cli, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a\x1b[2J\x07cat\nSteps: 1, \x1bSeed: 2, Size: \x1b]0;owned\x07")
    info.add_text("unclip", json.dumps({"settings": {"\x1b": "\x1b"}, "grid": {"\x1b": 1}, "device": "\x1b"}))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    for words in ([], ["--json"]):
        done = cli("inspect", tmp_path / "x.png", *words)
        assert done.code == 0
        assert not {"\x1b", "\x07"} & set(done.out)


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.jpg"])
@pytest.mark.parametrize("more", [[], ["--grid", "-n", 3]])
def test_drawn_again_it_is_the_same_file(cli, few, tmp_path, tiny_folder, name, more):
    first, second = tmp_path / name, tmp_path / f"again-{name}"
    cli("generate", "a red fox", "a red fox", "狐狸", *few, "-o", first, "--grid", "--seed", 3, "--size", 16, *more)
    done = cli("inspect", first, "--replay", "-o", second, "--weights", tiny_folder, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"the same picture; sha256 equal: {sha256(first)}\n"
    assert first.read_bytes() == second.read_bytes()


def test_every_setting_is_replayed(cli, picture, tiny_folder):
    done = cli("inspect", picture, "--replay", "--weights", tiny_folder, "--quiet", "--json")
    said = json.loads(done.out)
    assert done.code == 0
    assert said["same"]
    assert said["sha256"] == [sha256(picture)] * 2


def test_drawn_with_other_weights_it_is_another_picture(cli, picture, tiny, tmp_path):
    with torch.inference_mode():
        weights = tiny.save_pretrained(tmp_path / "w", torch.bfloat16)
    done = cli("inspect", picture, "--replay", "--weights", weights, "--quiet")
    assert done.code == 1
    assert done.out.startswith("another picture; sha256 ")
    assert done.err.startswith("unclip: warning: drawn with other weights: ")


def test_a_picture_does_not_choose_what_is_fetched(cli, picture):
    changed(picture, model={"name": "somebody/something", "digest": "x"})
    done = cli("inspect", picture, "--replay")
    assert done.error == (
        "it was drawn with the weights 'somebody/something' (x); say where they are: --weights FOLDER"
    )


def test_shipped_weights_are_found_by_name(cli, picture, tiny_folder, monkeypatch):
    monkeypatch.setattr("unclip.weights.hub.SHIPPED", tiny_folder.parent)
    assert cli("inspect", picture, "--replay", "--quiet").out.startswith("the same picture; sha256 equal")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": 3}, "the configuration must be an object"),
        ({"settings": {"stepz": 3}}, "unknown setting 'stepz'"),
        ({"settings": {"steps": 10**9}}, "steps is 1000000000"),
        ({"settings": {"callback_on_step_end": "x"}}, "unknown setting 'callback_on_step_end'"),
        ({"seed": "7"}, "seed is '7'"),
        ({"prompt": ["a", 7]}, "the prompt is 7"),
        ({"prompt": None}, "'NoneType' object is not iterable"),
        ({"model": 3}, "not subscriptable"),
        ({"grid": {"columns": 10**9}}, "a sheet of 1000000000 columns"),
        ({"grid": {"n": 10**9}}, "n is 1000000000"),
        ({"grid": [1]}, "object has no attribute 'get'"),
    ],
)
def test_a_damaged_record(cli, picture, tiny_folder, changes, message):
    done = cli("inspect", changed(picture, **changes), "--replay", "--weights", tiny_folder)
    assert done.code == 2
    assert "x.png' is damaged: " in done.error
    assert message in done.error


def test_a_picture_without_a_record(cli, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    assert "has no record of unclip's" in cli("inspect", tmp_path / "x.png", "--replay").error


def test_where_to_write_is_checked_first(cli, picture, tmp_path, tiny_folder):
    done = cli("inspect", picture, "--replay", "-o", tmp_path / "none" / "y.png", "--weights", tiny_folder)
    assert "the folder does not exist" in done.error
    assert "-o is for --replay" in cli("inspect", picture, "-o", tmp_path / "y.png").error


# ---- weights -------------------------------------------------------------------------------------------------


def test_a_folder(cli, tiny, tiny_folder):
    done = cli("inspect", tiny_folder)
    total = sum(p.numel() for part in tiny.parts.values() for p in part.state_dict().values())
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].startswith(f"tiny: {total:,} parameters, ")
    assert done.out.splitlines()[0].endswith(", files whole")
    for part in tiny.parts:
        assert f"\n\n{part}  " in done.out
    facts = json.loads(cli("inspect", tiny_folder, "--json").out)
    assert facts["parts"]["prior"]["config"]["transformer"]["width"] == 16
    assert facts["parts"]["prior"]["tensors"]["final"] == [1, 1, 16]
    assert facts["parts"]["prior"]["dtypes"] == ["float16"]
    assert facts["parameters"] == total


@pytest.mark.parametrize("name", ["prior", "prior/model.safetensors"])
def test_one_network(cli, tiny, tiny_folder, name):
    done = cli("inspect", tiny_folder / name)
    count = sum(p.numel() for p in tiny.prior.state_dict().values())
    assert done.out.splitlines()[0].split("  ") == [name.split("/")[-1], "PriorConfig"]
    assert f"  {count:,} parameters in {len(tiny.prior.state_dict())} tensors, float16" in done.out
    assert "config: kind PriorConfig, embed 16" in done.out


def test_a_damaged_folder_is_told(cli, tiny_folder, tmp_path):
    weights = shutil.copytree(tiny_folder, tmp_path / "w")
    with open(weights / "prior" / "model.safetensors", "r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x7f")
    done = cli("inspect", weights)
    assert done.code == 0
    assert "model.safetensors' is damaged: it is not what was written" in done.out.splitlines()[0]


def header(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


HARMFUL = {
    "empty": (b"", "is empty or cut off (0 bytes)"),
    "text": (b"hello there, this is text", "is damaged, or no file of weights"),
    "a zip that is none": (b"PK\x03\x04" + bytes(99), "is damaged or no file of weights"),
    "a bare pickle": (b"\x80\x02}q\x00." + bytes(9), "is a pickle or an archive of before 2017"),
    "a header that claims to be huge": (struct.pack("<Q", 2**63) + b"{}", "damaged"),
    "a header that is no JSON": (header(b"{oops"), "damaged"),
    "a header that is deep": (header(b'{"a":' * 10_000), "damaged"),
    "a tensor out of bounds": (header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "damaged"),
    "a picture that is none": (b"\x89PNG\r\n\x1a\n" + bytes(99), "damaged"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_file_is_one_line(cli, tmp_path, name):
    data, message = HARMFUL[name]
    (tmp_path / "x").write_bytes(data)
    done = cli("inspect", tmp_path / "x")
    assert (done.code, done.out) == (2, "")
    assert message in done.error


def test_what_is_no_file(cli, tmp_path):
    assert "No such file" in cli("inspect", tmp_path / "none").error
    assert "holds no weights; name a file or folder of weights" in cli("inspect", tmp_path).error
    assert "is neither a file nor a folder" in cli("inspect", "/dev/zero").error
    assert "No such file" in cli("inspect", tmp_path / "none", "--replay").error


def test_a_configuration_that_is_no_json(cli, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3, 2)}, tmp_path / "x.safetensors", {"config": "{", "note": "\x1b[2J"})
    done = cli("inspect", tmp_path / "x.safetensors")
    assert done.code == 0
    assert "6 parameters in 1 tensors, float32" in done.out
    assert "\x1b" not in done.out
    assert done.err.startswith("unclip: warning: the configuration noted in")
