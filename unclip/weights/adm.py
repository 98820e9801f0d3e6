"""OpenAI's guided-diffusion and improved-diffusion: U-Nets and classifiers (Dhariwal & Nichol 2021; Nichol & Dhariwal
2021)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from unclip.diffusion.process import Process
from unclip.models.adm import ADM, ADMConfig, Classifier, ClassifierConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import adm_unet
from unclip.weights.family import Family, From, Names, Schema, same, trailed, transposed

C = TypeVar("C", ADMConfig, ClassifierConfig)
LINEAR, COSINE = Process("linear", variance="learned"), Process("cosine", variance="learned")
LONG = Process("cosine", 4000, variance="learned", rescale=True)  # of improved-diffusion


def net(width: int, multiples: tuple[float, ...], depth: int, attention: tuple[int, ...], heads: int = 0,
        layout: int = 0, convolve: bool = False, scale_shift: bool = True) -> UNetConfig:  # fmt: skip
    channels = tuple(int(width * m) for m in multiples)
    return UNetConfig(
        out_channels=6, channels=channels, depth=depth, attention=attention, head=64, heads=heads, layout=layout,
        scale_shift=scale_shift, convolve=convolve, time=0 if channels[0] == width else width,
    )  # fmt: skip


FOUR, SIX = (1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
GUIDED = {
    "64x64": ADMConfig(64, 1000, net(192, FOUR, 3, (1, 2, 3)), COSINE, 1.0),
    "128x128": ADMConfig(128, 1000, net(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), heads=4), LINEAR, 0.5),
    "256x256": ADMConfig(256, 1000, net(256, SIX, 2, (3, 4, 5)), LINEAR, 1.0),
    "256x256 unconditional, or LSUN": ADMConfig(256, 0, net(256, SIX, 2, (3, 4, 5)), LINEAR, 10.0),
    "512x512": ADMConfig(512, 1000, net(256, (0.5, *SIX), 2, (4, 5, 6)), LINEAR, 4.0),
    "64→256": ADMConfig(256, 1000, net(192, SIX, 2, (3, 4, 5), heads=4, layout=3), LINEAR),
    "128→512": ADMConfig(512, 1000, net(192, (1, 1, 2, 2, 4, 4), 2, (4, 5), layout=3), LINEAR),
}
IMPROVED = {
    "ImageNet 64": ADMConfig(64, 0, net(128, FOUR, 3, (2, 3), heads=4, convolve=True), LONG),
    "ImageNet 64 with classes": ADMConfig(64, 1000, net(192, FOUR, 3, (2, 3), heads=4, convolve=True), LONG),
    "CIFAR-10": ADMConfig(32, 0, net(128, (1, 2, 2, 2), 3, (1, 2), heads=4, convolve=True), LONG),
    "LSUN": ADMConfig(256, 0, net(128, SIX, 2, (4,), heads=1, convolve=True, scale_shift=False), LINEAR),
    "64→256": ADMConfig(256, 1000, net(192, SIX, 2, (4, 5), heads=4, layout=3, convolve=True),
                        replace(LONG, schedule="linear")),
}  # fmt: skip
CLASSIFIERS = {
    f"{size}x{size}": ClassifierConfig(
        size, 1000, UNetConfig(channels=channels, depth=depth, attention=attention, head=64, time=time)
    )
    for size, depth, attention, channels, time in (
        (64, 4, (1, 2, 3), (128, 256, 384, 512), 0), (128, 2, (2, 3, 4), (128, 128, 256, 384, 512), 0),
        (256, 2, (3, 4, 5), (128, 128, 256, 256, 512, 512), 0),
        (512, 2, (4, 5, 6), (64, 128, 128, 256, 256, 512, 512), 128),
    )
}  # fmt: skip
NEW_ORDER = (GUIDED["64x64"],)  # "use_new_attention_order"


def twin(found: C, published: Mapping[str, C]) -> C:
    """The published model of the same shapes, which tells what shapes do not; or what was found."""

    def shapes(c: C) -> tuple:
        return getattr(c, "classes", 0), replace(c.unet, head=64, heads=0)

    return next((c for c in published.values() if shapes(c) == shapes(found)), found)


def config(found: Schema, published: Mapping[str, ADMConfig], heads: int = 0) -> ADMConfig:
    classes = found.size("label_emb.weight") if "label_emb.weight" in found else 0
    channels = found.size("input_blocks.0.0.weight", 1)
    unet = adm_unet.config(found, joined=channels - 3 if channels > 3 else 0)
    plain = ADMConfig(4 << len(unet.channels), classes, replace(unet, heads=heads), LINEAR)
    return twin(plain, published)


def names(c: ADMConfig, new: bool = False) -> Names:
    return adm_unet.unet(c.unet, new=new or c in NEW_ORDER) | {"labels.weight": same("label_emb.weight")}


def classifier_config(found: Schema) -> ClassifierConfig:
    unet, classes = adm_unet.config(found), found.size("out.2.c_proj.weight")
    side = round((found.size("out.2.positional_embedding", 1) - 1) ** 0.5)
    unet = replace(unet, out_channels=3)
    return twin(ClassifierConfig(side * unet.grain, classes, unet), CLASSIFIERS)


def classifier_names(c: ClassifierConfig) -> Names:
    pool: dict[str, From] = {"pool.position": transposed("out.2.positional_embedding")}
    for p, plain in (("weight", trailed), ("bias", same)):
        pool |= {f"pool.qkv.{p}": plain(f"out.2.qkv_proj.{p}"), f"pool.out.{p}": plain(f"out.2.c_proj.{p}")}
    return adm_unet.downward(c.unet) | adm_unet.both("norm_out", "out.0") | pool


BODY = ("input_blocks.0.0.weight", "time_embed.0.weight", "input_blocks.1.0.in_layers.0.weight", "out.0.weight")
SIGNS = (*BODY, "output_blocks.0.0.in_layers.0.weight", "out.2.weight")

GUIDED_DIFFUSION = Family(
    "guided-diffusion", "decoder", SIGNS,
    partial(config, published=GUIDED), ADM, names, published=GUIDED, licence="MIT",
)  # fmt: skip
NEW_GUIDED_DIFFUSION = replace(  # "use_new_attention_order", which shapes do not tell
    GUIDED_DIFFUSION, name="guided-diffusion, new attention order", names=partial(names, new=True), published={},
    named_only=True,
)  # fmt: skip
IMPROVED_DIFFUSION = Family(
    "improved-diffusion", "decoder", (*SIGNS, "input_blocks.{i}.0.op.weight"),
    partial(config, published=IMPROVED, heads=4), ADM, names, published=IMPROVED, licence="MIT",
)  # fmt: skip
CLASSIFIER = Family(
    "guided-diffusion classifier", "classifier", (*BODY, "out.2.positional_embedding", "out.2.qkv_proj.weight"),
    classifier_config, Classifier, classifier_names, published=CLASSIFIERS, licence="MIT",
)  # fmt: skip
