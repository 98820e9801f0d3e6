"""Every ancestor's recipe, at tiny size, takes a few steps, shows what it has, and is read again."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from unclip.lineage.autoencoder import AEConfig, MAEConfig
from unclip.lineage.pixelcnn import PixelCNNConfig, PixelsConfig
from unclip.lineage.pyramid import PyramidConfig
from unclip.lineage.vae import VAEConfig
from unclip.lineage.vqvae import CodebookConfig, VQVAE2Config, VQVAEConfig
from unclip.nn.transformer import TransformerConfig
from unclip.recipes import lineage
from unclip.train.loop import train
from unclip.train.recipe import DataConfig, Recipe

SIDE, TOWER = PyramidConfig((8, 16), 1, 2), TransformerConfig(16, 1, 2)
BOOK, GRID = CodebookConfig(codes=16, width=8), PixelCNNConfig(4, 16, 8, 2, 3)
TINY = {
    "ae": AEConfig(16, 8, 0.0, SIDE),
    "dae": AEConfig(16, 8, 0.3, SIDE),
    "mae": MAEConfig(16, 4, 0.75, TOWER, TOWER),
    "vae": VAEConfig(16, 8, 1.0, SIDE),
    "pixelcnn": PixelsConfig(16, PixelCNNConfig(8, 16, 8, 2, 3)),
    "vqvae": VQVAEConfig(16, SIDE, BOOK),
    "vqvae_prior": GRID,
    "vqvae2": VQVAE2Config(16, SIDE, PyramidConfig((8, 8), 1, 1), BOOK),
    "vqvae2_top": replace(GRID, grid=2),
    "vqvae2_bottom": replace(GRID, given=16),
}


def tiny(recipe: Recipe) -> Recipe:
    quick = replace(recipe.train, steps=3, batch=4, save_every=100, sample_every=3, log_every=1, warmup=1)
    return replace(recipe, model=TINY[recipe.name], train=quick, data=DataConfig(16, coloured=0.0))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run in which every stage of every system has been trained, in the recipe's order."""
    out = tmp_path_factory.mktemp("lineage")
    for make in lineage.stages:
        assert train(tiny(make()), data, out, torch.device("cpu"))
    return out


@pytest.mark.parametrize("name", [make.__name__ for make in lineage.stages])
def test_a_sheet_to_look_at(name, run):
    with Image.open(run / name / "samples" / "00000003.png") as sheet:
        assert sheet.height > 2 * 8


@pytest.mark.parametrize("name", lineage.SYSTEMS)
def test_a_system_is_read_again(name, run):
    system = lineage.SYSTEMS[name][0].load(run / "model")
    x = torch.rand(2, 3, system.size, system.size) * 2 - 1
    with torch.inference_mode():
        if system.draws:
            drawn = system.sample(["red, bar", "blue"], [3, 4])
            assert drawn.shape == x.shape and drawn.isfinite().all()
            torch.testing.assert_close(system.sample(["blue"], [4])[0], drawn[1], atol=1e-4, rtol=1e-4)
        for answer in (system.reconstruct(x), system.bits(x), system.features(x)):
            assert answer is None or (len(answer) == 2 and answer.isfinite().all())


@pytest.mark.parametrize("make", lineage.stages, ids=lambda make: make.__name__)
def test_the_recipe_as_it_stands_makes_a_network(make):
    from unclip.weights.config import from_dict, to_dict

    recipe = make()
    assert from_dict(type(recipe.model), to_dict(recipe.model)) == recipe.model
    assert recipe.name == make.__name__
