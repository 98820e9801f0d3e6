"""OpenAI's GLIDE: base and upsampler, as they were first trained and tuned to inpaint (Nichol et al. 2021)."""

from dataclasses import replace
from itertools import product

from unclip.diffusion.process import Process
from unclip.models.glide import Glide, GlideConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.weights import adm_unet
from unclip.weights.adm_unet import both, by_head
from unclip.weights.family import Family, From, Names, Schema, same

BASE = GlideConfig(
    unet=UNetConfig(out_channels=6, channels=(192, 384, 576, 768), depth=3, attention=(1, 2, 3), head=64, context=512),
    diffusion=Process("cosine", variance="learned"),
)
UPSAMPLE = GlideConfig(
    256, low=64, diffusion=Process("linear", variance="learned"),
    unet=UNetConfig(out_channels=6, channels=(192, 192, 384, 384, 768, 768), depth=2, attention=(3, 4, 5), head=64,
                    context=512, layout=3),
)  # fmt: skip


def inpainting(c: GlideConfig) -> GlideConfig:
    return replace(c, inpaint=True, unet=replace(c.unet, layout=c.unet.layout + 4))


PUBLISHED = {"base": BASE, "upsample": UPSAMPLE, "base, inpaint": inpainting(BASE),
             "upsample, inpaint": inpainting(UPSAMPLE)}  # fmt: skip


def config(found: Schema) -> GlideConfig:
    joined = max(0, found.size("input_blocks.0.0.weight", 1) - 3)
    unet = adm_unet.config(found, joined=joined)
    width = found.size("token_embedding.weight", 1)
    text = TransformerConfig(width, found.count("transformer.resblocks.{i}.{rest}"), max(1, width // 64))
    size = 4 << len(unet.channels)
    low, inpaint = (size // 4 if joined in (3, 7) else 0), joined in (4, 7)
    return GlideConfig(size, found.size("token_embedding.weight"),
                       found.size("positional_embedding"), low, inpaint, text, unet,
                       Process("linear" if low else "cosine", variance="learned"))  # fmt: skip


def text_names(ours: str, theirs: str, c: TransformerConfig, final: str) -> dict[str, From]:
    """A Transformer as GLIDE's code names it, and Karlo's prior."""
    names = both(f"{ours}.norm", final)
    for i, (a, b) in product(range(c.depth), (("norm_1", "ln_1"), ("norm_2", "ln_2"), ("mlp.0", "mlp.c_fc"),
                                              ("mlp.2", "mlp.c_proj"), ("attention.out", "attn.c_proj"))):  # fmt: skip
        names |= both(f"{ours}.blocks.{i}.{a}", f"{theirs}.resblocks.{i}.{b}")
    for i, p in product(range(c.depth), ("weight", "bias")):
        names[f"{ours}.blocks.{i}.attention.qkv.{p}"] = by_head(c.heads)(f"{theirs}.resblocks.{i}.attn.c_qkv.{p}")
    return names


def names(c: GlideConfig) -> Names:
    return {
        **adm_unet.unet(c.unet), **text_names("text", "transformer", c.text, "final_ln"),
        **both("text_emb", "transformer_proj"), "tokens.weight": same("token_embedding.weight"),
        "position": same("positional_embedding"), "padding": same("padding_embedding"),
    }  # fmt: skip


GLIDE = Family(
    "GLIDE", "decoder",
    ("padding_embedding", "transformer_proj.weight", "transformer.resblocks.{i}.attn.c_qkv.weight",
     "input_blocks.0.0.weight", "middle_block.1.encoder_kv.weight", "token_embedding.weight", "final_ln.weight"),
    config, Glide, names, published=PUBLISHED, licence="MIT",
)  # fmt: skip
