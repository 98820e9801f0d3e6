"""`--from`: a stage that begins with trained weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from unclip.errors import UnclipError
from unclip.train.loop import train
from unclip.weights import hub

CPU = torch.device("cpu")


@pytest.fixture
def trained(data, recipes, tmp_path):
    for name in ("clip", "prior", "decoder"):
        train(recipes[name], data, tmp_path / "first", CPU)
    return tmp_path / "first" / "model"


@pytest.mark.parametrize("name", ["clip", "prior", "decoder"])
def test_a_rate_of_nothing_gives_the_same_weights(name, data, recipes, trained, tmp_path):
    still = replace(recipes[name], train=replace(recipes[name].train, lr=0.0, seed=7))
    train(still, data, tmp_path / "run", CPU, start=trained)
    before, after = (load_file(m / name / "model.safetensors") for m in (trained, tmp_path / "run" / "model"))
    learnt = {k for k in before if k != "error"}  # which the prior measures when it is written
    assert before.keys() == after.keys() and learnt
    assert all(torch.equal(before[k], after[k]) for k in learnt)


def test_the_other_parts_come_along(data, recipes, trained, tmp_path):
    train(recipes["decoder"], data, tmp_path / "run", CPU, start=trained)
    model = tmp_path / "run" / "model"
    assert hub.digest(model)  # sound, and whole
    for file in ("clip/model.safetensors", "prior/model.safetensors", "tokenizer/tokenizer.json"):
        assert (model / file).read_bytes() == (trained / file).read_bytes()
    name = "decoder/model.safetensors"
    assert (model / name).read_bytes() != (trained / name).read_bytes()


def test_weights_of_another_shape_are_refused(data, recipes, trained, tmp_path):
    unet = replace(recipes["decoder"].model.unet, channels=(8, 24))
    wider = replace(recipes["decoder"], model=replace(recipes["decoder"].model, unet=unet))
    with pytest.raises(UnclipError, match=r"decoder' does not fit: .* is .*, the recipe's is .*config\.json") as error:
        train(wider, data, tmp_path / "run", CPU, start=trained)
    assert "\n" not in str(error.value)


def test_a_run_keeps_to_where_it_began(data, recipes, trained, tmp_path):
    train(recipes["decoder"], data, tmp_path / "run", CPU, start=trained)
    longer = replace(recipes["decoder"], train=replace(recipes["decoder"].train, steps=10))
    with pytest.raises(UnclipError, match=r"other settings: from was '[0-9a-f]{10}', now is None"):
        train(longer, data, tmp_path / "run", CPU)
    assert train(longer, data, tmp_path / "run", CPU, start=trained)
