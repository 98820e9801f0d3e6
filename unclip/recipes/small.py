"""`small`: all of the corpus on one modern accelerator in about half an hour, 31 million parameters in all.

Repeating `unclip train small --minutes 9` runs it in slices; corpus, augmentation and noise stay on the device.
"""

from unclip.models.clip import CLIPConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.prior_ar import PriorARConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.recipes import mini
from unclip.train.recipe import DataConfig, TrainConfig
from unclip.train.stages.clip import CLIPRecipe
from unclip.train.stages.decoder import DecoderRecipe
from unclip.train.stages.prior import PriorRecipe
from unclip.train.stages.prior_ar import PriorARRecipe
from unclip.train.stages.upsampler import UpsamplerRecipe

EVERYTHING = DataConfig(core=False, coloured=0.15)


def clip() -> CLIPRecipe:
    return CLIPRecipe(
        "clip",
        CLIPConfig(text=TransformerConfig(width=256, depth=4, heads=4), sketch=8),
        TrainConfig(steps=3000, batch=1024, lr=1e-3, warmup=200, ema=0.995, weight_decay=0.1, log_every=50),
        EVERYTHING,
    )


def prior() -> PriorRecipe:
    return PriorRecipe(
        "prior",
        PriorConfig(whiten=0.5, transformer=TransformerConfig(width=256, depth=6, heads=4)),
        TrainConfig(steps=12_000, batch=512, lr=6e-4, weight_decay=0.03, ema=0.9995,
                    save_every=2000, sample_every=2000),
        EVERYTHING,
    )  # fmt: skip


def prior_ar() -> PriorARRecipe:
    """The other prior, trained when asked for by name."""
    return PriorARRecipe(
        "prior_ar",
        PriorARConfig(transformer=TransformerConfig(width=256, depth=6, heads=4, dropout=0.1)),
        TrainConfig(steps=12_000, batch=512, lr=6e-4, weight_decay=0.05, ema=0.9995,
                    save_every=2000, sample_every=2000),
        EVERYTHING,
    )  # fmt: skip


def decoder() -> DecoderRecipe:
    """Twice mini's grid: 2×2 patches, four levels."""
    return DecoderRecipe(
        "decoder",
        DecoderConfig(
            text=TransformerConfig(width=160, depth=2, heads=5),
            unet=UNetConfig(
                out_channels=6, channels=(96, 128, 128, 96), depth=1, attention=(1, 2, 3), context=160, patch=2,
                layout=4,
            ),
        ),
        TrainConfig(steps=20_000, batch=128, lr=8e-4, ema=0.9995, save_every=2000, sample_every=2000),
        EVERYTHING,
    )


def upsampler() -> UpsamplerRecipe:
    return UpsamplerRecipe(
        "upsampler_256",
        UpsamplerConfig(unet=UNetConfig(in_channels=6, channels=(64, 96, 128), depth=1, attention=(), patch=2)),
        TrainConfig(steps=12_000, batch=64, lr=8e-4, ema=0.9995, save_every=2000, sample_every=2000),
        DataConfig(size=256, core=False),
    )


def judge() -> CLIPRecipe:
    """mini's judge: one measure for both."""
    return mini.judge()


stages = (clip, prior, decoder, upsampler)
