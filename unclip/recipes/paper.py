"""The systems of DALL·E 2 as published (2204.06125, table 3): to read and to measure against, not to train at home."""

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
from unclip.train.stages.prior import PriorRecipe
from unclip.train.stages.prior_ar import PriorARRecipe
from unclip.train.stages.upsampler import UpsamplerRecipe

TEXT = TransformerConfig(width=2048, depth=24, heads=32)
VOCAB, CONTEXT, EMBED = 49_408, 256, 1024


def clip() -> CLIPRecipe:
    """ViT-H/16 at 256 px and a causal text Transformer (appendix C; the paper also trains with SAM, rho = 0.1)."""
    image = TransformerConfig(width=1280, depth=32, heads=16)
    text = TransformerConfig(width=1024, depth=24, heads=16)
    model = CLIPConfig(EMBED, 256, 16, image, text, VOCAB, CONTEXT)
    return CLIPRecipe("clip", model, data=DataConfig(size=256), keep=1.0)


def prior() -> PriorRecipe:
    return PriorRecipe(
        "prior",
        PriorConfig(EMBED, 1024, CONTEXT, TEXT),
        TrainConfig(600_000, 4096, lr=1.1e-4, beta2=0.96, eps=1e-6, weight_decay=6e-2, ema=0.9999),
        DataConfig(size=256),
    )


def prior_ar() -> PriorARRecipe:
    """319 of 1024 components, 1024 buckets each (section 2.2)."""
    return PriorARRecipe(
        "prior_ar",
        PriorARConfig(EMBED, 1024, CONTEXT, 319, 1024, TransformerConfig(width=1664, depth=24, heads=26)),
        TrainConfig(1_000_000, 4096, lr=1.6e-4, beta2=0.91, eps=1e-10, weight_decay=4e-2, ema=0.999),
        DataConfig(size=256),
    )


def decoder() -> DecoderRecipe:
    net = UNetConfig(3, 6, (512, 1024, 1536, 2048), 3, (1, 2, 3), 64, context=2048, dropout=0.1)
    return DecoderRecipe(
        "decoder",
        DecoderConfig(64, EMBED, VOCAB, CONTEXT, 4, TEXT, net, Process(variance="learned")),
        TrainConfig(800_000, 2048, lr=1.2e-4, beta2=0.999, weight_decay=0.0, ema=0.9999),
    )


def upsampler() -> UpsamplerRecipe:
    net = UNetConfig(6, 3, (320, 640, 960, 1280), 3, attention=(), dropout=0.1)
    return UpsamplerRecipe(
        "upsampler_256",
        UpsamplerConfig(64, 256, False, net, Process()),
        TrainConfig(1_000_000, 1024, lr=1.2e-4, beta2=0.999, weight_decay=0.0, ema=0.9999),
        DataConfig(size=256),
    )


def upsampler_1024() -> UpsamplerRecipe:
    net = UNetConfig(6, 3, (192, 192, 384, 384, 768, 768), 2, attention=())
    return UpsamplerRecipe(
        "upsampler_1024",
        UpsamplerConfig(256, 1024, False, net, Process("linear")),
        TrainConfig(1_000_000, 512, lr=1.0e-4, beta2=0.999, weight_decay=0.0, ema=0.9999),
        DataConfig(size=1024),
    )


stages = (clip, prior, decoder, upsampler, upsampler_1024)
