"""A corpus of a few dozen 16 px pictures, and recipes that learn it in seconds."""

import io
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from unclip.data import shards
from unclip.models.clip import CLIPConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.prior_ar import PriorARConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.recipes import mini
from unclip.train import loop
from unclip.train.recipe import DataConfig, TrainConfig
from unclip.train.stages.clip import CLIPRecipe
from unclip.train.stages.decoder import DecoderRecipe
from unclip.train.stages.fast import DecoderFastRecipe, Lesson, UpsamplerFastRecipe
from unclip.train.stages.prior import PriorRecipe
from unclip.train.stages.prior_ar import PriorARRecipe
from unclip.train.stages.upsampler import UpsamplerRecipe

COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 80, 220), "black": (0, 0, 0)}
STYLES = ("square", "bar", "dot")


def picture(colour: str, style: str, size: int) -> bytes:
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    box = {"square": (2, 2, 14, 14), "bar": (0, 6, 16, 10), "dot": (6, 6, 10, 10)}[style]
    image.paste((*COLOURS[colour], 255), tuple(v * size // 16 for v in box))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True)
    return out.getvalue()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for size in (16, 64):
        samples = []
        for i in range(36):
            colour, style = list(COLOURS)[i % 4], STYLES[i % 3]
            meta = {"key": f"{i:05d}", "label": colour, "label_zh": None, "keywords": ["flat", "plain"], "style": style,
                    "source": "test", "licence": "CC0-1.0", "concept": colour, "tone": False, "flag": False,
                    "mono": False, "core": True, "weight": 1.0, "caption": f"{colour}, {style}"}  # fmt: skip
            samples.append(shards.Sample(meta["key"], picture(colour, style, size), meta))
        for split, part in (("train", samples), ("val", samples[:6]), ("compose", samples[6:12])):
            shards.write(folder / str(size) / split, part, 16)
    return folder


@pytest.fixture
def power_cut(monkeypatch):
    """`with power_cut(5): train(…)` meets a fault once the loop has taken five steps, wherever it then is."""

    @contextmanager
    def cut(steps: int):
        real, taken = loop.EMA.update, []

        def update(self, net, step):
            real(self, net, step)
            taken.append(step)
            if len(taken) == steps:
                raise RuntimeError("power cut")

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
            patch.setattr(loop.EMA, "update", update)
            yield

    return cut


TOWER = TransformerConfig(16, 1, 2)
QUICK = TrainConfig(steps=8, batch=4, lr=3e-3, warmup=2, save_every=3, sample_every=4, log_every=2, precision="fp32")
SMALL = DataConfig(size=16, coloured=0.3)
NET = UNetConfig(3, 6, (8, 16), 1, (1,), 8, context=16, patch=2, layout=2, dropout=0.1)


@pytest.fixture
def recipes() -> dict:
    """One of each stage: tiny, with dropout, so that every kind of randomness is in play."""
    upsampler = UpsamplerConfig(16, 64, True, UNetConfig(6, 3, (8, 8), 1, (), patch=2))
    local = replace(upsampler, unet=replace(upsampler.unet, local=True))
    decoder = DecoderConfig(16, 16, 400, 16, 4, TOWER, NET, mini.decoder().model.diffusion)
    student = partial(DecoderFastRecipe, "decoder_fast", decoder, QUICK, SMALL)
    lesson, pair = Lesson(calls=2, steps=8), Lesson(calls=1, steps=4, guidance=1.0)
    return {
        "clip": CLIPRecipe("clip", CLIPConfig(16, 16, 4, TOWER, TOWER, 400, 16), QUICK, SMALL),
        "prior": PriorRecipe("prior", PriorConfig(16, 16, 16, TransformerConfig(16, 1, 2, 0.1)), QUICK, SMALL),
        "prior_ar": PriorARRecipe(
            "prior_ar", PriorARConfig(16, 16, 16, 0, 64, TransformerConfig(16, 1, 2, 0.1)), QUICK, SMALL
        ),
        "decoder": DecoderRecipe("decoder", decoder, QUICK, SMALL),
        "muon": DecoderRecipe("decoder", decoder, replace(QUICK, optimiser="muon"), SMALL),
        "upsampler": UpsamplerRecipe("upsampler_64", upsampler, QUICK, DataConfig(size=64)),
        "fast": student(lesson=lesson),
        "progressive": student(lesson=replace(lesson, method="progressive")),
        "adapter": student(lesson=replace(lesson, method="progressive"), lora=2),
        "upsampler_fast": UpsamplerFastRecipe(
            "upsampler_64_fast", upsampler, QUICK, DataConfig(size=64), lora=2, lesson=pair
        ),
        "crops": UpsamplerRecipe("upsampler_64", local, QUICK, DataConfig(size=64, crop=24, limit=20), bsr=0.5),
    }
