"""The whole system saved and read again: what weights are taken, and what damage is found."""

import json
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.errors import UnclipError
from unclip.models.decoder import Decoder
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler
from unclip.pipeline import UnCLIP
from unclip.settings import Settings

FEW = {"steps": 3, "prior_steps": 3, "upsampler_steps": 2}


def pixels(system, **options) -> bytes:
    """Of one picture, drawn in few steps."""
    return system.generate("a red fox", progress=False, **(FEW | options)).images[0].tobytes()


def test_saved_and_loaded_it_draws_the_same(tiny, tmp_path):
    system = UnCLIP.from_pretrained(tiny.save_pretrained(tmp_path / "w", torch.float32), device="cpu")
    assert pixels(system) == pixels(tiny)
    assert system.name == "tiny"
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == [
        "clip", "decoder", "model_index.json", "prior", "prior_ar", "tokenizer", "upsampler_256",
    ]  # fmt: skip
    again = UnCLIP.from_pretrained(system.save_pretrained(tmp_path / "again", torch.float32))
    assert again.digest == system.digest
    assert len(system.digest) == 10


def test_the_digest_names_the_weights(tiny, tiny_folder, tmp_path):
    half = UnCLIP.from_pretrained(tiny_folder)
    assert half.digest != UnCLIP.from_pretrained(tiny.save_pretrained(tmp_path, torch.float32)).digest


def test_without_an_upsampler_it_draws_small(tiny, tmp_path):
    small = UnCLIP(tiny.tokenizer, tiny.clip, tiny.prior, tiny.decoder, None, "small")
    system = UnCLIP.from_pretrained(small.save_pretrained(tmp_path, torch.float32), device="cpu")
    usual = Settings().upsampler_steps
    assert pixels(system, upsampler_steps=usual) == pixels(tiny, size=16)
    with pytest.raises(UnclipError, match="^upsampler_steps does nothing with the weights 'small': they have no ups"):
        pixels(system, upsampler_steps=usual + 1)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("decoder", {"embed": 8}, "different embedding spaces: .*'decoder': 8"),
        ("decoder", {"vocab": 400}, "different vocabularies"),
        ("upsampler", {"low": 32}, "different small pictures: {'decoder': 16, 'upsampler': 32}"),
    ],
)
def test_parts_that_were_not_trained_together(tiny, part, change, message):
    kind = {"decoder": Decoder, "upsampler": Upsampler}[part]
    parts = {"clip": tiny.clip, "prior": tiny.prior, "decoder": tiny.decoder, "upsampler": tiny.upsampler}
    parts[part] = kind(replace(parts[part].config, **change))
    with pytest.raises(UnclipError, match=message):
        UnCLIP(tiny.tokenizer, **parts)


def test_a_tokenizer_of_another_system(tiny):
    with pytest.raises(UnclipError, match="end tokens|entries"):
        UnCLIP(Tokenizer.clip(), tiny.clip, tiny.prior, tiny.decoder, None)


@pytest.fixture
def copy(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def forget_sums(folder):
    """As an older folder, or one made by hand: nothing is known of how the files were."""
    index = json.loads((folder / "model_index.json").read_text())
    del index["sha256"]
    (folder / "model_index.json").write_text(json.dumps(index))


def refused(folder, message, **options):
    with pytest.raises(UnclipError, match=message) as caught:
        UnCLIP.from_pretrained(folder, **options)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["clip/model.safetensors", "decoder/config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("where", [0, 0.3, 0.999])
def test_one_flipped_bit_is_found(copy, name, where):
    data = bytearray((copy / name).read_bytes())
    data[int(where * len(data))] ^= 4
    (copy / name).write_bytes(data)
    refused(copy, f"{name}' is damaged: it is not what was written")


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("name", ["prior/model.safetensors", "prior/config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_file_is_found(copy, name, sums, keep):
    if not sums:
        forget_sums(copy)
    (copy / name).write_bytes((copy / name).read_bytes()[:keep])
    refused(copy, name)


@pytest.mark.parametrize("name", ["prior/model.safetensors", "clip/config.json", "tokenizer/tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("final"), "lacks 1 tensors of Prior, 'final' first"),
        (lambda t: t.update(extra=torch.ones(2)), r"holds 'extra' \[2\], which Prior lacks"),
        (lambda t: t.update(final=torch.ones(1, 1, 8)), r"'final' is \[1, 1, 8\], but Prior has \[1, 1, 16\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy, change, message):
    forget_sums(copy)
    path = copy / "prior" / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    refused(copy, message)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("prior/config.json", {"depht": 3}, "unknown setting 'depht'"),
        ("prior/config.json", {"kind": "DecoderConfig"}, "describes 'DecoderConfig', not a PriorConfig"),
        ("prior/config.json", {"embed": "16"}, "embed is '16'; it must be int"),
        ("model_index.json", {"parts": ["clip", "prior"]}, "lacks the part 'decoder'"),
        ("model_index.json", {"parts": 5}, "no index of unclip's"),
        ("model_index.json", {"library": "diffusers", "_class_name": "OtherPipeline"}, "no index of unclip's"),
        ("model_index.json", {"name": ["x"]}, "no index of unclip's"),
    ],
)
def test_settings_that_do_not_fit_are_named(copy, name, change, message):
    forget_sums(copy)
    data = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(data | change))
    refused(copy, message)


def test_code_beside_the_weights_is_never_run(copy, tmp_path):
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')"
    for name in ("__init__.py", "pipeline.py", "clip/modeling_clip.py"):
        (copy / name).write_text(trap)
    assert UnCLIP.from_pretrained(copy).name == "tiny"
    assert not (tmp_path / "ran").exists()


def test_where_weights_are_looked_for(tmp_path, monkeypatch):
    def connect(self, address):
        raise AssertionError(f"the network was asked for {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    refused("minni", "is neither shipped nor a folder")
    refused(tmp_path / "none", "is neither shipped nor a folder")
    refused(tmp_path, "holds no model_index.json")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file, not a folder")
    error = refused("nobody/nothing", "'nobody/nothing': no such folder, and not to be had from the hub")
    assert error.code == 1
    refused("nobody/nothing", "not to be had", local_files_only=True)
