"""Adapter files: to their own network strictly, and what a picture says of them."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.errors import UnclipError
from unclip.nn.adapter import adapt, learnt, twin
from unclip.pipeline import UnCLIP
from unclip.weights.adapter import Adapter, fingerprint

FEW = {"steps": 2, "prior_steps": 2, "upsampler_steps": 1, "size": 16, "progress": False}


def made(net, part: str, seed: int = 0, rank: int = 2) -> Adapter:
    """An adapter that has learnt something at random."""
    net = twin(net)
    torch.manual_seed(seed)
    adapt(net, rank)
    for parameter in learnt(net).values():
        parameter.data = torch.randn(parameter.shape) * 0.2
    return Adapter.of(net, part, rank)


@pytest.fixture
def system(tiny_folder):
    return UnCLIP.from_pretrained(tiny_folder, device="cpu")


@pytest.fixture
def style(system, tmp_path):
    made(system.decoder, "decoder").save(tmp_path / "style.safetensors", {})
    return tmp_path / "style.safetensors"


def pixels(system, **options):
    return system.generate("a red fox", **(FEW | options)).images[0].tobytes()


def test_what_is_written_is_read(system, style):
    adapter, again = made(system.decoder, "decoder"), Adapter.load(style)
    assert again.config == adapter.config and again.tensors.keys() == adapter.tensors.keys()
    for key, tensor in adapter.tensors.items():
        torch.testing.assert_close(again.tensors[key], tensor.half().float(), rtol=0, atol=0)
    assert style.stat().st_size < 2 * sum(v.numel() for v in adapter.tensors.values()) + 60_000


def test_an_adapter_adds_its_difference_scale_times(system, style):
    before, adapter = system.decoder.unet.conv_in.weight.clone(), Adapter.load(style)
    a, b = (adapter.tensors[f"unet.conv_in.weight.{k}"] for k in "AB")
    assert pixels(system.load_lora(style, 0.0)) == pixels(system)
    system.load_lora(style, 0.8)
    torch.testing.assert_close(system.decoder.unet.conv_in.weight, before + 0.8 * (b @ a).view(before.shape))


def test_adapters_add_up_and_the_record_knows_them(system, style, tmp_path, tiny_folder):
    made(system.prior, "prior", 1).save(tmp_path / "taste.safetensors", {})
    made(system.decoder, "decoder", 2).save(tmp_path / "other.safetensors", {})
    drawn = {pixels(system)}
    for file, scale in ((style, 0.5), (tmp_path / "taste.safetensors", 1.0), (tmp_path / "other.safetensors", 2.0)):
        drawn.add(pixels(system.load_lora(file, scale)))
    assert len(drawn) == 4
    told = [(a["file"], a["scale"], a["part"]) for a in system.lora]
    assert told == [("style.safetensors", 0.5, "decoder"), ("taste.safetensors", 1.0, "prior"),
                    ("other.safetensors", 2.0, "decoder")]  # fmt: skip


def test_what_is_refused(system, style, tmp_path):
    def refused(tensors, notes, match):
        save_file(tensors, tmp_path / "x.safetensors", notes)
        with pytest.raises(UnclipError, match=match) as error:
            system.load_lora(tmp_path / "x.safetensors")
        assert "\n" not in str(error.value)

    tensors = load_file(style)
    about = {"kind": "AdapterConfig", "part": "decoder", "rank": 2, "base": fingerprint(system.decoder)}
    refused(tensors, {}, "is no adapter of unclip's; train one: unclip train … --set lora=16")
    refused(tensors, {"config": "[1]"}, "is no adapter")
    refused(tensors, {"config": json.dumps(about | {"rank": "2"})}, "is damaged: rank is '2'; it must be int")
    refused(tensors, {"config": json.dumps(about | {"part": "painter"})}, "for the part 'painter', which .* lack")
    refused(tensors, {"config": json.dumps(about | {"rank": 1})}, r"another decoder: its .* is \(2, .*\), not \(1, ")
    refused(tensors, {"config": json.dumps(about | {"base": "0" * 10})},
            f"was trained on the decoder 0000000000, but this is {about['base']}; name the weights")  # fmt: skip
    tensors["more.A"] = torch.zeros(1)
    refused(tensors, {"config": json.dumps(about)}, r"another decoder: its 'more.A' is \(1,\), not absent")
    del tensors["more.A"], tensors["unet.conv_in.bias.d"]
    refused(tensors, {"config": json.dumps(about)}, r"'unet.conv_in.bias.d' is absent, not \(8,\)")
    with pytest.raises(UnclipError, match="scale of adapter .* is nan; it must be from -10 to 10"):
        system.load_lora(style, float("nan"))
    (tmp_path / "x.safetensors").write_bytes(style.read_bytes()[:-9])
    with pytest.raises(UnclipError, match="is damaged"):
        system.load_lora(tmp_path / "x.safetensors")
    assert system.lora == ()


@pytest.fixture
def quick(tiny, tmp_path):
    """The tiny pipeline with a student that is an adapter, as a folder."""
    student = made(tiny.decoder, "decoder", 3)
    system = UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, tiny.upsampler, "quick",
                    students={"decoder_fast": student})  # fmt: skip
    return UnCLIP.from_pretrained(system.save_pretrained(tmp_path / "quick", torch.float32), device="cpu"), student


def test_a_student_is_its_teacher_and_an_adapter(quick, tmp_path):
    system, student = quick
    assert isinstance(system.students["decoder_fast"], Adapter)
    slow = pixels(system)
    assert pixels(system, fast=2) != slow == pixels(system)
    net = system.student("decoder_fast")
    a, b = (student.tensors[f"unet.conv_in.weight.{k}"] for k in "AB")
    before = system.decoder.unet.conv_in.weight
    torch.testing.assert_close(net.unet.conv_in.weight, before + (b @ a).view(before.shape))
    assert net.tokens.weight is system.decoder.tokens.weight  # what is not adapted is not held twice


def test_a_student_takes_on_the_adapters_of_its_teacher(quick, style, tmp_path):
    system, _ = quick
    fast = pixels(system, fast=2)
    system.load_lora(style)
    assert pixels(system, fast=2) != fast
    again = UnCLIP.from_pretrained(system.save_pretrained(tmp_path / "merged", torch.float32), device="cpu")
    assert pixels(again, fast=2) == pixels(system, fast=2)  # the student that was saved is for the merged weights


def test_in_little_memory_there_are_no_adapters(quick, style, tmp_path, capsys):
    system, _ = quick
    small = UnCLIP.from_pretrained(tmp_path / "quick", device="cpu", memory="6GB")
    assert pixels(small) == pixels(system)
    for ask in (lambda: pixels(small, fast=2), lambda: small.load_lora(style)):
        with pytest.raises(UnclipError, match="leave .* or the limit of memory"):
            ask()


def test_a_student_of_another_teacher_is_refused(quick):
    system, student = quick
    system.decoder.unet.conv_in.weight.data += 1
    system.students["decoder_fast"] = replace(student, name="decoder_fast")
    assert pixels(system)
    with pytest.raises(UnclipError, match="adapter 'decoder_fast' was trained on the decoder .*, but this is"):
        pixels(system, fast=2)
