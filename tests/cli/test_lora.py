"""`--lora FILE:0.8`: in every command that draws, noted in the picture, and needed to draw it again."""

import pytest
import torch

from unclip import metadata
from unclip.cli.generate import scaled
from unclip.files import sha256
from unclip.nn.adapter import adapt, learnt, twin
from unclip.weights.adapter import Adapter


@pytest.fixture
def style(tiny, tmp_path):
    net = twin(tiny.decoder)
    torch.manual_seed(0)
    adapt(net, 2)
    for parameter in learnt(net).values():
        parameter.data = torch.randn(parameter.shape) * 0.2
    Adapter.of(net, "decoder", 2).save(tmp_path / "style.safetensors", {})
    return tmp_path / "style.safetensors"


def test_a_path_and_a_scale():
    assert scaled("a.safetensors") == ("a.safetensors", 1.0)
    assert scaled("a.safetensors:0.8") == ("a.safetensors", 0.8)
    assert scaled(r"C:\a.safetensors") == (r"C:\a.safetensors", 1.0)
    assert scaled("/x:y/a:-1") == ("/x:y/a", -1.0)


def test_a_picture_drawn_with_an_adapter_is_drawn_again(cli, few, style, tmp_path, tiny_folder):
    path, lora = tmp_path / "x.png", ["--lora", f"{style}:0.8"]
    assert cli("generate", "a red fox", *few, "--size", 16, "-o", path, *lora).code == 0
    plain = tmp_path / "plain.png"
    cli("generate", "a red fox", *few, "--size", 16, "-o", plain)
    picture = metadata.read(path)
    assert picture.pixels != metadata.read(plain).pixels
    (told,) = picture.record["model"]["lora"]
    assert (told["file"], told["scale"], told["sha256"]) == ("style.safetensors", 0.8, sha256(style))
    assert "LoRA: \"style.safetensors:0.8\"" in picture.parameters
    again = ["inspect", path, "--replay", "--weights", tiny_folder, "--quiet"]
    assert cli(*again, *lora).out == f"the same picture; sha256 equal: {sha256(path)}\n"
    for wrong in ([], ["--lora", style], [*lora, *lora]):
        error = cli(*again, *wrong).error
        assert error.startswith("it was drawn with the adapters style.safetensors:0.8 (sha256 ")
        assert error.endswith("name them in this order: --lora FILE:SCALE")
    done = cli("inspect", plain, "--replay", "--weights", tiny_folder, "--quiet", *lora)
    assert done.error == "it was drawn without an adapter; leave out --lora"


def test_manipulations_take_adapters(cli, style, tmp_path, tiny_folder):
    words = ["--weights", tiny_folder, "--steps", 2, "--size", 16, "--quiet", "--lora", style]
    cli("generate", "a red fox", *words, "--prior-steps", 2, "-o", tmp_path / "x.png")
    done = cli("variations", tmp_path / "x.png", *words, "-n", 1, "-o", tmp_path / "y.png")
    assert done.code == 0
    again = ["inspect", tmp_path / "y.png", "--replay", "--source", tmp_path / "x.png", "--weights", tiny_folder]
    assert cli(*again, "--quiet", "--lora", style).out.startswith("the same picture; sha256 equal")


def test_an_adapter_says_what_it_is(cli, style):
    done = cli("inspect", style)
    assert done.code == 0
    assert "AdapterConfig" in done.out and "part decoder, rank 2, base " in done.out


def test_a_file_that_is_no_adapter(cli, few, tmp_path, tiny_folder):
    error = cli("generate", "x", *few, "--lora", tiny_folder / "prior" / "model.safetensors", "-o", tmp_path).error
    assert "is no adapter of unclip's" in error
    assert "cannot read" in cli("generate", "x", *few, "--lora", tmp_path / "none.safetensors", "-o", tmp_path).error
