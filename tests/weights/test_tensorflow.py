"""TensorFlow's checkpoints. image_gpt_tiny.* was written by TensorFlow 2.21 (SaveV2 of two halves, then
MergeV2Checkpoints): an Image-GPT of width 16 whose every tensor is the recipe's, and a global_step."""

import shutil
from contextlib import suppress

import pytest
import torch

import unclip
from unclip.errors import UnclipError
from unclip.weights.container import open_file

NAME = "image_gpt_tiny"


@pytest.fixture
def checkpoint(golden_folder, tmp_path):
    for path in golden_folder.glob(f"{NAME}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / NAME


@pytest.mark.parametrize("end", ["", ".index"])
def test_every_tensor_of_every_shard(checkpoint, recipe, end):
    file = open_file(f"{checkpoint}{end}")
    step = file.schema.pop("global_step")
    assert (step.shape, step.dtype) == ((), "int64")
    assert file.read("global_step") == 1_000_000
    assert len(file.schema) == 21
    for key, spec in file.schema.items():
        assert torch.equal(file.read(key), recipe(key, spec.shape)), key


def test_image_gpt(checkpoint, recipe):
    """The model as the published code writes it: RMS norms, projections apart by head, an output matrix of its own."""
    net, heads, colours = unclip.load(checkpoint), 2, torch.tensor([[1, 7, 3, 3, 0]])

    def w(name: str, *shape: int) -> torch.Tensor:
        return recipe(f"model/{name}", shape)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w(f"{name}/g", 16)

    x = torch.cat([w("sos", 16)[None], w("wte", 8, 16)[colours[0]]]) + w("wpe", 16, 16)[:6]
    for i in range(2):
        y, split = norm(x, f"h{i}/ln_1"), (heads, 8, 16)
        q, k, v = (torch.einsum("sf,hef->hse", y, w(f"h{i}/attn/{n}_proj", *split)) for n in "qkv")
        scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1)
        x = x + torch.einsum("hse,hef->sf", scores @ v, w(f"h{i}/attn/c_proj", *split))
        hidden = norm(x, f"h{i}/ln_2") @ w(f"h{i}/mlp/c_fc/w", 16, 64)
        x = x + (hidden * (1.702 * hidden).sigmoid()) @ w(f"h{i}/mlp/c_proj/w", 64, 16)
    torch.testing.assert_close(net(colours)[0], norm(x, "ln_f") @ w("wtet", 8, 16).T, rtol=1e-5, atol=1e-5)


def test_what_is_damaged(checkpoint):
    index, shard = checkpoint.with_name(f"{NAME}.index"), checkpoint.with_name(f"{NAME}.data-00000-of-00002")
    whole = index.read_bytes()
    for at in range(0, len(whole), 5):  # whichever byte of the index: our error, or another name or number
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(UnclipError):
            file = open_file(index)
            for key in file.schema:
                file.read(key)
    index.write_bytes(whole)
    with open(shard, "r+b") as f:
        f.truncate(1000)
    with pytest.raises(UnclipError, match="cut off"):
        open_file(index)
    shard.unlink()
    with pytest.raises(UnclipError, match="No such file"):
        open_file(index)
