"""What is fetched of a repository, and what is noted of it; without a network."""

import json

import pytest

from unclip.errors import UnclipError
from unclip.published import native
from unclip.weights.hub import chosen, fingerprint


def test_of_each_network_one_file_and_never_code():
    names = ["model_index.json", "README.md", "evil.py", "prior/config.json", "prior/diffusion_pytorch_model.bin",
             "prior/diffusion_pytorch_model.safetensors", "prior/diffusion_pytorch_model.fp16.safetensors",
             "text_encoder/pytorch_model.bin", "text_encoder/modeling.py",
             "decoder/diffusion_pytorch_model-00001-of-00002.safetensors", "x.ckpt"]  # fmt: skip
    assert chosen(names, native) == [
        "model_index.json", "README.md", "prior/config.json", "prior/diffusion_pytorch_model.safetensors",
        "text_encoder/pytorch_model.bin", "decoder/diffusion_pytorch_model-00001-of-00002.safetensors",
    ]  # fmt: skip


def test_own_files_of_a_known_system():
    own = ["ViT-L-14.pt", "ViT-L-14_stats.th", "prior-ckpt-step=01000000-of-01000000.ckpt"]
    assert chosen(["a.json", "other.ckpt", "setup.py", *own], native) == ["a.json", *own]


def test_a_snapshot_is_noted_and_compared(tmp_path):
    snapshot = tmp_path / "models--org--x" / "snapshots" / "abc"
    (snapshot / "prior").mkdir(parents=True)
    weights = snapshot / "prior" / "w.bin"
    weights.write_bytes(b"1")
    first = fingerprint(snapshot, ["prior"])
    assert len(first) == 10
    assert fingerprint(snapshot, ["prior"]) == first
    assert list(json.loads((snapshot.parent.parent / "unclip-abc.json").read_text())) == ["prior/w.bin"]
    weights.write_bytes(b"2")
    with pytest.raises(UnclipError, match="is damaged: it is not what was fetched; fetch it again"):
        fingerprint(snapshot, ["prior"])
