"""`mini`: all four stages in about two hours on two CPU cores, on the core part of the illustrations."""

from unclip.diffusion.process import Process
from unclip.models.clip import CLIPConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.prior_ar import PriorARConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.train.recipe import DataConfig, TrainConfig
from unclip.train.stages.clip import CLIPRecipe
from unclip.train.stages.decoder import DecoderRecipe
from unclip.train.stages.fast import DecoderFastRecipe, UpsamplerFastRecipe
from unclip.train.stages.prior import PriorRecipe
from unclip.train.stages.prior_ar import PriorARRecipe
from unclip.train.stages.text import TextRecipe
from unclip.train.stages.upsampler import UpsamplerRecipe


def clip() -> CLIPRecipe:
    return CLIPRecipe(
        "clip",
        CLIPConfig(text=TransformerConfig(width=256, depth=4, heads=4), sketch=8),
        TrainConfig(steps=850, batch=128, lr=8e-4, warmup=60, ema=0.99, weight_decay=0.1, save_every=100,
                    sample_every=50, log_every=10),
    )  # fmt: skip


def text() -> TextRecipe:
    """More words for a trained CLIP: trained when asked for by name, on a corpus with `unclip data words`."""
    return TextRecipe(
        "text", clip().model,
        TrainConfig(steps=6000, batch=128, lr=1e-3, warmup=50, ema=0.99, save_every=250, sample_every=500,
                    log_every=25),
    )  # fmt: skip


def prior() -> PriorRecipe:
    return PriorRecipe(
        "prior",
        PriorConfig(whiten=0.5, transformer=TransformerConfig(width=256, depth=6, heads=4)),
        TrainConfig(steps=10_400, batch=128, optimiser="muon", lr=1.6e-3, warmup=100, decay=0.3, weight_decay=0.03,
                    ema=0.998, save_every=500, sample_every=500),
    )  # fmt: skip


def prior_ar() -> PriorARRecipe:
    """The other prior. Pictures can be drawn without it: it is trained when asked for by name."""
    return PriorARRecipe(
        "prior_ar",
        PriorARConfig(transformer=TransformerConfig(width=256, depth=6, heads=4, dropout=0.1)),
        TrainConfig(steps=3000, batch=128, optimiser="muon", lr=1e-3, warmup=100, weight_decay=0.05, ema=0.995,
                    save_every=500, sample_every=500),
    )  # fmt: skip


def decoder() -> DecoderRecipe:
    return DecoderRecipe(
        "decoder",
        DecoderConfig(
            text=TransformerConfig(width=160, depth=3, heads=5),
            unet=UNetConfig(out_channels=6, channels=(96, 128, 160), depth=1, context=160, patch=4, layout=4),
            diffusion=Process(predicts="x0", variance="learned", cap=4.0, floor=0.0005),
        ),
        TrainConfig(steps=3600, batch=64, optimiser="muon", lr=1e-3, ema=0.998,
                    save_every=100, sample_every=300),
    )


def upsampler() -> UpsamplerRecipe:
    return UpsamplerRecipe(
        "upsampler_256",
        UpsamplerConfig(unet=UNetConfig(in_channels=6, channels=(64, 96, 128), depth=1, attention=(), patch=4)),
        TrainConfig(steps=3000, batch=16, lr=8e-4, save_every=250, sample_every=500),
        DataConfig(size=256),
    )


def upsampler_1024() -> UpsamplerRecipe:
    """Of one level and local, so that tiles are exact; learns on crops of a quarter of the side."""
    return UpsamplerRecipe(
        "upsampler_1024",
        UpsamplerConfig(
            256, 1024, unet=UNetConfig(in_channels=6, channels=(32,), depth=2, attention=(), patch=4, local=True),
            diffusion=Process("linear", predicts="x0", cap=20.0),
        ),
        TrainConfig(steps=2000, batch=8, lr=1e-3, warmup=100, save_every=250, sample_every=500),
        DataConfig(size=1024, crop=288, limit=3000),
        bsr=0.5,
    )  # fmt: skip


def decoder_fast() -> DecoderFastRecipe:
    """The decoder in four calls, guidance 2 within: distilled by consistency of four segments, as an adapter to it."""
    return DecoderFastRecipe(
        "decoder_fast", decoder().model,
        TrainConfig(steps=1500, batch=32, lr=1e-3, warmup=50, ema=0.99, save_every=100, sample_every=250), lora=16,
    )  # fmt: skip


def upsampler_fast() -> UpsamplerFastRecipe:
    """The first upsampler in two calls."""
    return UpsamplerFastRecipe(
        "upsampler_256_fast", upsampler().model,
        TrainConfig(steps=1000, batch=16, lr=1e-3, warmup=50, ema=0.99, save_every=250, sample_every=250),
        DataConfig(size=256), lora=16,
    )  # fmt: skip


def judge() -> CLIPRecipe:
    """A second CLIP of another shape and seed, that measures and is used for no picture."""
    tower = TransformerConfig(width=192, depth=5, heads=6)
    return CLIPRecipe(
        "judge",
        CLIPConfig(embed=192, patch=8, image=tower, text=tower),
        TrainConfig(steps=950, batch=128, lr=8e-4, warmup=60, ema=0.99, weight_decay=0.1, seed=1, save_every=100,
                    sample_every=50, log_every=10),
    )  # fmt: skip


stages = (clip, prior, decoder, upsampler)  # in the order in which they are trained
