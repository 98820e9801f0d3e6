"""Stages that train an adapter alone, and what they leave behind."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from unclip.errors import UnclipError
from unclip.nn.adapter import merge
from unclip.stored import PARTS
from unclip.train.loop import train
from unclip.train.state import checkpoints
from unclip.weights.adapter import Adapter, fingerprint
from unclip.weights.checkpoint import load_module

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return tmp_path_factory.mktemp("first")


@pytest.fixture
def trained(first, data, recipes):
    for name in ("clip", "prior", "decoder"):
        if not (first / "model" / name).exists():
            train(recipes[name], data, first, CPU)
    return first / "model"


@pytest.mark.parametrize("name", ["prior", "decoder"])
def test_the_weights_that_are_written_are_the_old_ones_and_the_adapter(name, data, recipes, trained, tmp_path):
    train(replace(recipes[name], lora=2), data, tmp_path, CPU, start=trained)
    (old, _), (new, _) = (load_module(model / name, *PARTS[name]) for model in (trained, tmp_path / "model"))
    adapter = Adapter.load(tmp_path / f"{name}.lora.safetensors")
    adapter.check(old, fingerprint(old))
    assert any(v.any() for k, v in adapter.tensors.items() if k.endswith(".B"))
    merge(old, adapter.tensors, 1.0)
    for key, value in old.named_parameters():
        torch.testing.assert_close(value, dict(new.named_parameters())[key], atol=2e-3, rtol=2e-3)


def test_resuming_is_exact_and_holds_the_weights(data, recipes, trained, tmp_path, power_cut):
    recipe, outs = replace(recipes["decoder"], lora=2), [tmp_path / "whole", tmp_path / "broken"]
    train(recipe, data, outs[0], CPU, start=trained)
    with power_cut(5):
        train(recipe, data, outs[1], CPU, start=trained)
    train(recipe, data, outs[1], CPU, start=trained)
    whole, broken = (load_file(checkpoints(out / "decoder")[0] / "state.safetensors") for out in outs)
    assert whole.keys() == broken.keys()
    assert all(torch.equal(v, broken[k]) for k, v in whole.items())
    assert "net.unet.conv_in.parametrizations.weight.original" in whole
    assert not [k for k in whole if k.startswith("ema.") and k.endswith(".original")]


def test_an_adapter_needs_weights(data, recipes, trained, tmp_path):
    (tmp_path / "model").symlink_to(trained)
    with pytest.raises(UnclipError, match="lora is 2: an adapter needs trained weights; name them: --from mini"):
        train(replace(recipes["decoder"], lora=2), data, tmp_path, CPU)
