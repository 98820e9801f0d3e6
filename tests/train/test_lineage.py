"""Every ancestor's recipe, at tiny size, takes a few steps, shows what it has, and is read again."""

import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from unclip.cli.main import main
from unclip.diffusion.process import Process
from unclip.errors import UnclipError
from unclip.lineage.adm import ClassifierConfig, NoisedConfig
from unclip.lineage.autoencoder import AEConfig, MAEConfig
from unclip.lineage.dalle1 import DALLEConfig, DVAEConfig
from unclip.lineage.ddpm import DiffusionConfig
from unclip.lineage.gan import GANConfig
from unclip.lineage.glide import GLIDEConfig, NoisedCLIPConfig
from unclip.lineage.image_gpt import PixelGPTConfig
from unclip.lineage.pixelcnn import PixelCNNConfig, PixelsConfig
from unclip.lineage.pyramid import PyramidConfig
from unclip.lineage.vae import VAEConfig, VAESystem
from unclip.lineage.vqvae import CodebookConfig, VQVAE2Config, VQVAEConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.noised_clip import NoisedImageConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.pictures import to_tensor
from unclip.recipes import lineage
from unclip.train import budget
from unclip.train.loop import train
from unclip.train.recipe import DataConfig, Recipe

SIDE, TOWER = PyramidConfig((8, 16), 1, 2), TransformerConfig(16, 1, 2)
NET = UNetConfig(3, 3, (8, 16), 1, (1,), 8, patch=2, scale_shift=False)
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
    "dvae": DVAEConfig(16, 16, 8, pyramid=PyramidConfig((8, 16), 1, 4)),
    "dalle1": DALLEConfig(8192, 8, 16, 2, 3, TransformerConfig(16, 3, 2)),
    "image_gpt": PixelGPTConfig(8, 16, TOWER),
    "gan": GANConfig(16, 8, 256, 16, 2.0, SIDE, SIDE),
    "ddpm": DiffusionConfig(8, False, NET, Process("linear", 50)),
    "iddpm": DiffusionConfig(8, True, replace(NET, out_channels=6), Process("cosine", 20, variance="learned")),
    "adm": DiffusionConfig(8, False, replace(NET, attention=(0, 1), scale_shift=True), Process("cosine", 20)),
    "adm_classifier": ClassifierConfig(("square", "bar", "dot"), NoisedConfig(8, 3, 16, SIDE, Process("cosine", 20))),
    "glide": GLIDEConfig(decoder=DecoderConfig(
        16, 16, 8192, 8, 1, TOWER, UNetConfig(7, 6, (8, 16), 1, (1,), 8, context=16, patch=2),
        Process("cosine", 20, "x0", "learned"))),
    "glide_clip": NoisedCLIPConfig(Process("cosine", 20), NoisedImageConfig(256, 16, 8, 20, TOWER)),
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
        assert sheet.height > 8


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
        assert all(value >= 0 for value in system.numbers(x).values())


@pytest.mark.parametrize("make", lineage.stages, ids=lambda make: make.__name__)
def test_the_recipe_as_it_stands_makes_a_network(make):
    from unclip.weights.config import from_dict, to_dict

    recipe = make()
    assert from_dict(type(recipe.model), to_dict(recipe.model)) == recipe.model
    assert recipe.name == make.__name__


# ---- budgets and commands ------------------------------------------------------------------------------------


def test_a_budget_becomes_steps(monkeypatch, tmp_path):
    """A fifth of the time shows the speed: here 30 steps, so 150 in all; and too few is said."""
    calls, speed = [], 30

    def fake(recipe, data, out, device, minutes, clock):
        assert clock is time.process_time  # a busy machine takes nothing from a system
        calls.append((recipe.train.steps, minutes))
        before = budget.reached(out / recipe.name)
        steps = before + speed if minutes == 2 else recipe.train.steps
        (out / recipe.name / f"step-{steps:08d}").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(budget, "train", fake)
    cpu = torch.device("cpu")
    assert budget.within(lineage.vae(), tmp_path, tmp_path, cpu, 10) == 150
    assert [steps for steps, _ in calls[1:]] == [150] and calls[0][1] == 2
    assert budget.within(lineage.vae(), tmp_path, tmp_path, cpu, 10) == 150
    assert len(calls) == 3  # the same command goes on by the same plan
    (tmp_path / "ae" / "step-00000007").mkdir(parents=True)  # interrupted while it looked: how far it came says nothing
    assert budget.within(lineage.ae(), tmp_path, tmp_path, cpu, 10) == 157
    speed = 2
    with pytest.raises(UnclipError, match=r"10 steps .* longer --budget") as error:
        budget.within(lineage.gan(), tmp_path, tmp_path, cpu, 10)
    assert error.value.code == 1


def test_a_command_draws(run, tmp_path, capsys):
    sheet = tmp_path / "drawn.png"
    where = ["--out", str(run), "-o", str(sheet), "--device", "cpu"]
    assert main(["lineage", "sample", "gan", "a red apple", "-n", "3", *where]) == 0
    assert capsys.readouterr().out.strip() == str(sheet)
    with Image.open(sheet) as image:
        assert image.size == (3 * 18 + 2, 20)
    assert main(["lineage", "sample", "ae", "--out", str(run)]) == 2
    assert "draws nothing" in capsys.readouterr().err
    glide = ["lineage", "sample", "glide", "red", "-n", "1", "--clip-guidance"]
    assert main([*glide, "5", *where]) == 0
    assert main(["lineage", "sample", "gan", "red", "--clip-guidance", "5", *where]) == 2
    assert "--clip-guidance is for glide" in capsys.readouterr().err
    assert main(["lineage", "sample", "gam", "--out", str(run)]) == 2
    assert "did you mean 'gan'?" in capsys.readouterr().err
    assert main(["lineage", "train", "--data", "x", "--budget", "soon"]) == 2
    assert "write 90s, 10m or 1h" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pixelcnn", "vqvae", "vqvae2", "image_gpt"])
def test_the_likeliest_alone_is_the_same_for_every_seed(name, run):
    system = lineage.SYSTEMS[name][0].load(run / "model")
    a, b = system.sample(["", ""], [1, 2])
    assert not torch.equal(a, b)
    for setting in ({"temperature": 0.0}, {"top_k": 1}):
        system.temperature, system.top_k = {"temperature": 1.0, "top_k": 0, **setting}.values()
        a, b = system.sample(["", ""], [1, 2])
        assert torch.equal(a, b)


def test_settings_of_one_system_are_heeded_by_it_alone(run, tmp_path, capsys):
    where = ["--out", str(run), "-o", str(tmp_path / "drawn.png"), "--device", "cpu"]
    dalle = ["lineage", "sample", "dalle1", "red", "-n", "1", *where]
    seen = []
    for more in ([], ["--temperature", "0", "--top-k", "1", "--candidates", "1"], ["--candidates", "2"]):
        assert main([*dalle, *more]) == 0
        seen.append((tmp_path / "drawn.png").read_bytes())
    assert len({*seen}) > 1
    assert main(["lineage", "sample", "adm", "red", "-n", "1", "--scale", "0", *where]) == 0
    assert "heeds the style, if one is named" in capsys.readouterr().err
    assert main(["lineage", "sample", "vae", "red", "-n", "1", *where]) == 0
    assert "VAE reads no captions" in capsys.readouterr().err
    assert main(["lineage", "sample", "vae", "--top-k", "3", *where]) == 2
    assert "--top-k is for pixelcnn, vqvae, vqvae2, dalle1, image_gpt; vae has no" in capsys.readouterr().err
    assert main([*dalle, "--candidates", "0"]) == 2
    assert "--candidates is 0; it must be 1 or more" in capsys.readouterr().err


def test_pictures_are_redrawn(run, tmp_path, capsys):
    """A row for each: as it was, then as it is told again; the known half and the opaque part stay as they are."""
    first, second, sheet = (tmp_path / f"{name}.png" for name in ("first", "second", "sheet"))
    Image.new("RGB", (16, 16), (200, 40, 40)).save(first)
    holed = Image.new("RGBA", (16, 16), (40, 40, 200, 255))
    holed.paste((0, 0, 0, 0), (4, 4, 12, 12))
    holed.save(second)
    where = ["--out", str(run), "-o", str(sheet), "--device", "cpu"]

    def cells(*words: str) -> list[list[Tensor]]:
        assert main(["lineage", "redraw", *words, *where]) == 0
        with Image.open(sheet) as image:
            x = to_tensor(image.convert("RGB"))[0]
        side = lineage.SYSTEMS[words[0]][0].load(run / "model").size
        height, width = (range(2, length, side + 2) for length in x.shape[1:])
        return [[x[:, y : y + side, i : i + side] for i in width] for y in height]

    for name in ("ae", "dae", "mae", "vae", "vqvae", "vqvae2", "dalle1"):
        assert [len(row) for row in cells(name, str(first), str(second))] == [2, 2]
    for name in ("image_gpt", "pixelcnn"):
        ((_, a, b),) = cells(name, str(first), "-n", "2")
        assert torch.equal(a[:, :4], b[:, :4]) and not torch.equal(a, b)
    ((was, filled),) = cells("glide", str(second), "--prompt", "red")
    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[4:12, 4:12] = True
    assert torch.equal(was[:, ~hole], filled[:, ~hole]) and not torch.equal(was[:, hole], filled[:, hole])
    ((*way,),) = cells("vae", str(first), str(second), "--between", "-n", "4")
    assert len(way) == 6
    for words, why in [
        (["gan", str(first)], "takes no pictures"),
        (["glide", str(first)], "nothing of the picture is transparent"),
        (["ae", str(first), str(second), "--between"], "is for vae"),
        (["vae", str(first), "--between"], "two pictures or more"),
        (["vae", str(tmp_path / "none.png")], "none.png"),
    ]:
        capsys.readouterr()
        assert main(["lineage", "redraw", *words, *where]) == 2
        assert why in capsys.readouterr().err


def test_a_part_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnclipError, match="holds no 'vae'"):
        VAESystem.load(tmp_path)
