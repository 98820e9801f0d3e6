"""OpenAI's nine CLIPs, and those of open_clip, which took over the names (Radford et al. 2021; Ilharco et al. 2021)."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.clip_resnet import ResNetConfig
from unclip.nn.transformer import TransformerConfig
from unclip.weights.family import NONE, Family, From, Names, Schema, led, transposed

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BLOCK = {
    "attention.qkv.{p}": "attn.in_proj_{p}",
    "attention.out.{p}": "attn.out_proj.{p}",
    "norm_1.{p}": "ln_1.{p}",
    "norm_2.{p}": "ln_2.{p}",
    "mlp.0.{p}": "mlp.c_fc.{p}",
    "mlp.2.{p}": "mlp.c_proj.{p}",
}
TEXT: dict[str, str | From] = {
    "log_scale": "logit_scale",
    "text.tokens.weight": "token_embedding.weight",
    "text.position": led("positional_embedding"),
    "text.transformer.norm.{p}": "ln_final.{p}",
    "text.project.weight": transposed("text_projection"),
    **{f"text.transformer.blocks.{{i}}.{a}": f"transformer.resblocks.{{i}}.{b}" for a, b in BLOCK.items()},
}
VIT: dict[str, str | From] = {
    "image.patches.weight": "visual.conv1.weight",
    "image.patches.bias": NONE,
    "image.first": led("visual.class_embedding", 2),
    "image.position": led("visual.positional_embedding"),
    "image.norm.{p}": "visual.ln_pre.{p}",
    "image.transformer.norm.{p}": "visual.ln_post.{p}",
    "image.project.weight": transposed("visual.proj"),
    **{f"image.transformer.blocks.{{i}}.{a}": f"visual.transformer.resblocks.{{i}}.{b}" for a, b in BLOCK.items()},
}
STEM = {f"image.stem.{3 * n + m}.{{p}}": f"visual.{what}{n + 1}.{{p}}"
        for n in range(3) for m, what in enumerate(("conv", "bn"))}  # fmt: skip
STAGE = {f"image.stages.{n}.{{i}}.{what}_{m}.{{p}}": f"visual.layer{n + 1}.{{i}}.{theirs}{m}.{{p}}"
         for n in range(4) for m in (1, 2, 3) for what, theirs in (("conv", "conv"), ("norm", "bn"))}  # fmt: skip
SKIP = {f"image.stages.{n}.{{i}}.skip.{what}.{{p}}": f"visual.layer{n + 1}.{{i}}.downsample.{m}.{{p}}"
        for n in range(4) for m, what in enumerate(("conv", "norm"))}  # fmt: skip
RESNET: dict[str, str | From] = {
    **STEM, **STAGE, **SKIP,
    "image.pool.position": "visual.attnpool.positional_embedding",
    "image.pool.project.{p}": "visual.attnpool.c_proj.{p}",
    "image.pool.{qkv}.{p}": "visual.attnpool.{qkv}_proj.{p}",
}  # fmt: skip


def names(config: CLIPConfig) -> Names:
    return TEXT | (RESNET if config.resnet else VIT)


def tower(found: Schema, prefix: str, heads: Mapping[int, int], activation: Any) -> TransformerConfig:
    width, hidden = found.size(f"{prefix}.0.ln_1.weight"), found.size(f"{prefix}.0.mlp.c_fc.weight")
    depth = found.count(prefix + ".{i}.{rest}")
    mlp = None if hidden == 4 * width else hidden
    return TransformerConfig(width, depth, heads.get(width, width // 64 or 1), 0.0, activation, mlp)


def side(places: int, key: str) -> int:
    """The side of a square grid of so many places, the first of them not on the grid."""
    if isqrt(places - 1) ** 2 != places - 1:
        raise UnclipError(f"{key!r} has {places} rows, expected a square and one")
    return isqrt(places - 1)


def config(found: Schema, heads: Mapping[int, int] | None = None, activation: str = "quick_gelu") -> CLIPConfig:
    """heads: for a picture tower's width, the number of heads where a head is not 64 wide."""
    vocab = found.size("token_embedding.weight")
    text = tower(found, "transformer.resblocks", {}, activation)
    c = CLIPConfig(found.size("text_projection", 1), text=text, vocab=vocab, end=vocab - 1,
                   context=found.size("positional_embedding"), mean=MEAN, std=STD, pre_norm=True)  # fmt: skip
    if "visual.layer1.0.conv1.weight" in found or "visual.attnpool.positional_embedding" in found:
        width = found.size("visual.conv3.weight")
        depth = tuple(found.count(f"visual.layer{n}.{{i}}.{{rest}}") for n in (1, 2, 3, 4))
        key = "visual.attnpool.positional_embedding"
        grid = side(found.size(key), key)
        resnet = ResNetConfig(width, depth, width // 2)
        return replace(c, image_size=32 * grid, patch=32, pre_norm=False, resnet=resnet, image=TransformerConfig())
    patch, key = found.size("visual.conv1.weight", 2), "visual.positional_embedding"
    image = tower(found, "visual.transformer.resblocks", heads or {}, activation)
    return replace(c, image_size=patch * side(found.size(key), key), patch=patch, image=image)


def vit(embed: int, size: int, patch: int, image: TransformerConfig, text: TransformerConfig) -> CLIPConfig:
    return CLIPConfig(embed, size, patch, image, text, 49408, 77, 49407, True, None, MEAN, STD)


def resnet(embed: int, size: int, width: int, depth: tuple[int, ...], text: TransformerConfig) -> CLIPConfig:
    return CLIPConfig(embed, size, 32, TransformerConfig(), text, 49408, 77, 49407, False,
                      ResNetConfig(width, depth, width // 2), MEAN, STD)  # fmt: skip


def quick(width: int, depth: int = 12) -> TransformerConfig:
    return TransformerConfig(width, depth, width // 64, activation="quick_gelu")


OPENAI = {
    "ViT-B/32": vit(512, 224, 32, quick(768), quick(512)),
    "ViT-B/16": vit(512, 224, 16, quick(768), quick(512)),
    "ViT-L/14": vit(768, 224, 14, quick(1024, 24), quick(768)),
    "ViT-L/14@336px": vit(768, 336, 14, quick(1024, 24), quick(768)),
    "RN50": resnet(1024, 224, 64, (3, 4, 6, 3), quick(512)),
    "RN101": resnet(512, 224, 64, (3, 4, 23, 3), quick(512)),
    "RN50x4": resnet(640, 288, 80, (4, 6, 10, 6), quick(640)),
    "RN50x16": resnet(768, 384, 96, (6, 8, 18, 8), quick(768)),
    "RN50x64": resnet(1024, 448, 128, (3, 15, 36, 10), quick(1024)),
}
# Widths whose heads are not 64 wide: ViT-g, ViT-H and ViT-bigG.
HEADS = {1408: 16, 1280: 16, 1664: 16}
gelu = TransformerConfig
OPEN = {
    "ViT-B/32": vit(512, 224, 32, gelu(768, 12, 12), gelu(512, 12, 8)),
    "ViT-B/32@256px": vit(512, 256, 32, gelu(768, 12, 12), gelu(512, 12, 8)),
    "ViT-B/16": vit(512, 224, 16, gelu(768, 12, 12), gelu(512, 12, 8)),
    "ViT-B/16+@240px": vit(640, 240, 16, gelu(896, 12, 14), gelu(640, 12, 10)),
    "ViT-L/14": vit(768, 224, 14, gelu(1024, 24, 16), gelu(768, 12, 12)),
    "ViT-L/14@336px": vit(768, 336, 14, gelu(1024, 24, 16), gelu(768, 12, 12)),
    "ViT-H/14": vit(1024, 224, 14, gelu(1280, 32, 16), gelu(1024, 24, 16)),
    "ViT-H/14@378px": vit(1024, 378, 14, gelu(1280, 32, 16), gelu(1024, 24, 16)),
    "ViT-H/16": vit(1024, 224, 16, gelu(1280, 32, 16), gelu(1024, 24, 16)),
    "ViT-g/14": vit(1024, 224, 14, gelu(1408, 40, 16, mlp=6144), gelu(1024, 24, 16)),
    "ViT-bigG/14": vit(1280, 224, 14, gelu(1664, 48, 16, mlp=8192), gelu(1280, 32, 20)),
    "RN50": resnet(1024, 224, 64, (3, 4, 6, 3), gelu(512, 12, 8)),
    "RN101": resnet(512, 224, 64, (3, 4, 23, 3), gelu(512, 12, 8)),
}
SIGNS = ("text_projection", "token_embedding.weight", "visual.conv1.weight", "ln_final.weight",
         "transformer.resblocks.{i}.attn.in_proj_weight")  # fmt: skip
SCALARS = ("input_resolution", "context_length", "vocab_size")  # of the archives: plain numbers

OPENAI_CLIP = Family(
    "OpenAI CLIP", "clip", SIGNS, config, CLIP, names, unused=SCALARS, published=OPENAI, licence="MIT"
)  # fmt: skip


def open_config(found: Schema) -> CLIPConfig:
    """Its open_clip_config.json, where there is one, says whether the activation is that of OpenAI's."""
    said = found.about.get("config")
    model = said.get("model_cfg") if isinstance(said, dict) else None
    quick = isinstance(model, dict) and model.get("quick_gelu") is True
    return config(found, HEADS, "quick_gelu" if quick else "gelu")


OPEN_CLIP = Family("open_clip", "clip", SIGNS, open_config, CLIP, names, published=OPEN, licence="MIT, mostly")
