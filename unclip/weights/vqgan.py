"""VQGAN as taming-transformers names it, and Kandinsky's MoVQ: 2.1 with the same names, 2.2 with those of diffusers."""

from functools import partial

import torch

from unclip.errors import UnclipError
from unclip.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from unclip.models.vqgan import VQGAN, VQGANConfig
from unclip.weights.family import Family, From, Names, Schema, Spec, joined, trailed

COMMON = {
    "{side}.conv_in.{p}": "{side}.conv_in.{p}",
    "{side}.conv_out.{p}": "{side}.conv_out.{p}",
    "codebook.weight": "quantize.embedding.weight",
    "before.{p}": "quant_conv.{p}",
    "after.{p}": "post_quant_conv.{p}",
}
# The names of taming-transformers → those of diffusers.
DIFFUSERS = {
    ".down.": ".down_blocks.",
    ".block.": ".resnets.",
    ".attn.": ".attentions.",
    ".mid.block_1": ".mid_block.resnets.0",
    ".mid.attn_1": ".mid_block.attentions.0",
    ".mid.block_2": ".mid_block.resnets.1",
    ".norm.norm_layer": ".spatial_norm.norm_layer",
    ".norm.conv_": ".spatial_norm.conv_",
    ".norm.": ".group_norm.",
    ".norm_out": ".conv_norm_out",
    ".q.": ".to_q.",
    ".k.": ".to_k.",
    ".v.": ".to_v.",
    "proj_out": "to_out.0",
    "nin_shortcut": "conv_shortcut",
    "downsample.": "downsamplers.0.",
    "upsample.": "upsamplers.0.",
}


OLD = {".q.": ".query.", ".k.": ".key.", ".v.": ".value.", "proj_out": "proj_attn"}


def norm(ours: str, theirs: str, spatial: bool) -> dict[str, str | From]:
    if not spatial:
        return {f"{ours}.norm.{{p}}": f"{theirs}.{{p}}"}
    parts = {"norm": "norm_layer", "scale": "conv_y", "shift": "conv_b"}
    return {f"{ours}.{a}.{{p}}": f"{theirs}.{b}.{{p}}" for a, b in parts.items()}


def block(ours: str, theirs: str, spatial: bool) -> dict[str, str | From]:
    parts = {"conv_1": "conv1", "conv_2": "conv2", "skip": "nin_shortcut"}
    norms = norm(f"{ours}.norm_1", f"{theirs}.norm1", spatial) | norm(f"{ours}.norm_2", f"{theirs}.norm2", spatial)
    return norms | {f"{ours}.{a}.{{p}}": f"{theirs}.{b}.{{p}}" for a, b in parts.items()}


def attention(ours: str, theirs: str, spatial: bool, grid: bool) -> dict[str, str | From]:
    """grid: theirs are convolutions of one position, not linear layers."""
    keys = [f"{theirs}.{name}.weight" for name in "qkv"]
    return norm(f"{ours}.norm", f"{theirs}.norm", spatial) | {
        f"{ours}.attention.qkv.weight": columns(*keys) if grid else joined(*keys),
        f"{ours}.attention.qkv.bias": joined(*(f"{theirs}.{name}.bias" for name in "qkv")),
        f"{ours}.attention.out.weight": trailed(f"{theirs}.proj_out.weight", 2 if grid else 0),
        f"{ours}.attention.out.bias": f"{theirs}.proj_out.bias",
    }


def columns(*keys: str) -> From:
    """q, k and v, one above the other as a linear layer."""
    return From(keys, lambda *w: torch.cat(w)[..., 0, 0], lambda w: [v[..., None, None] for v in w.chunk(len(keys))])


def names(config: VQGANConfig, grid: bool = True) -> dict[str, str | From]:
    found: dict[str, str | From] = dict(COMMON)
    for side, way, resize in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        spatial, middle = config.spatial and side == "decoder", f"{side}.middle"
        found |= norm(f"{side}.norm_out", f"{side}.norm_out", spatial)
        found |= block(f"{middle}.0", f"{side}.mid.block_1", spatial)
        found |= block(f"{middle}.2", f"{side}.mid.block_2", spatial)
        found |= attention(f"{middle}.1", f"{side}.mid.attn_1", spatial, grid)
        for level in range(len(config.multiples)):
            ours, theirs = f"{side}.levels.{level}", f"{side}.{way}.{level}"
            found |= block(f"{ours}.blocks.{{j}}", f"{theirs}.block.{{j}}", spatial)
            found |= attention(f"{ours}.attentions.{{j}}", f"{theirs}.attn.{{j}}", spatial, grid)
            found[f"{ours}.resize.{{p}}"] = f"{theirs}.{resize}.conv.{{p}}"
    return found


def diffusers_names(config: VQGANConfig, old: bool = False) -> Names:
    """The same, renamed; diffusers counts the decoder's levels from the coarsest. old: as before its release 0.17."""
    last = len(config.multiples) - 1
    turned = {f".up.{n}.": f".up_blocks.{last - n}." for n in range(last + 1)}

    def rename(key: str) -> str:
        for taming, new in (turned | DIFFUSERS | (OLD if old else {})).items():
            key = key.replace(taming, new)
        return key

    theirs = names(config, grid=False)
    return {ours: rename(way) if isinstance(way, str) else way.renamed(rename) for ours, way in theirs.items()}


def config(found: Schema, block: str, attention: str) -> VQGANConfig:
    """block, attention: how those of level `{i}` are named."""
    channels, levels = found.size("encoder.conv_in.weight"), found.count(block + ".{rest}")
    widths = [found.size(f"{block}.0.conv1.weight".replace("{i}", str(n))) for n in range(levels)]
    depth = found.count(block.replace("{i}", "0") + ".{i}.{rest}")
    on = tuple(n for n in range(levels) if found.holds(attention.replace("{i}", str(n)) + ".{rest}"))
    codes, embed = found.size("quantize.embedding.weight"), found.size("quantize.embedding.weight", 1)
    spatial = any(".conv_y." in key for key in found)
    multiples = tuple(width // channels for width in widths)
    said = found.about.get("config")
    groups = said.get("norm_num_groups", 32) if isinstance(said, dict) else 32
    if not isinstance(groups, int) or groups < 1 or any(width % groups for width in widths):
        raise UnclipError(f"its config.json asks for norms of {groups!r} groups; one number that divides {widths}")
    latent = found.size("encoder.conv_out.weight")
    return VQGANConfig(channels, multiples, depth, on, latent, embed, codes, spatial, groups)


taming_config = partial(config, block="encoder.down.{i}.block", attention="encoder.down.{i}.attn")
diffusers_config = partial(
    config, block="encoder.down_blocks.{i}.resnets", attention="encoder.down_blocks.{i}.attentions"
)


def kl_config(found: Schema) -> AutoencoderKLConfig:
    codes = {"quantize.embedding.weight": Spec((0, found.size("post_quant_conv.weight", 1)), "float32")}
    c = diffusers_config(Schema({**found, **codes}))
    said = found.about.get("config")
    said = said if isinstance(said, dict) else {}
    scale, groups = said.get("scaling_factor", 0.18215), said.get("norm_num_groups", 32)
    if not isinstance(scale, (int, float)) or not scale > 0 or groups != 32 or said.get("shift_factor"):
        told = {name: said.get(name) for name in ("scaling_factor", "norm_num_groups", "shift_factor")}
        raise UnclipError(f"its config.json asks for {told}; expected a factor above 0, 32 groups and no shift")
    sizes = c.channels, c.multiples, c.depth, c.attention, c.latent // 2, c.embed
    return AutoencoderKLConfig(*sizes, scale=float(scale))


F16 = {
    "f16 of ImageNet, 1024 codes": VQGANConfig(),
    "f16 of ImageNet, 16384 codes": VQGANConfig(codes=16384),
}
MOVQ = VQGANConfig(128, (1, 2, 2, 4), 2, (3,), 4, 4, 16384, True)
COMMON_SIGNS = ("quantize.embedding.weight", "quant_conv.weight", "post_quant_conv.weight", "encoder.conv_in.weight")
SIGNS = (*COMMON_SIGNS, "encoder.down.{i}.block.0.conv1.weight", "encoder.mid.attn_1.q.weight")
VQGAN_F16 = Family("VQGAN", "autoencoder", SIGNS, taming_config, VQGAN, names, ("loss.{rest}",), F16, "MIT")
MOVQ_21 = Family(
    "Kandinsky MoVQ", "autoencoder", (*SIGNS, "decoder.norm_out.conv_y.weight"), taming_config, VQGAN, names,
    ("loss.{rest}",), {"2.1": MOVQ}, "Apache-2.0",
)  # fmt: skip
MOVQ_22 = Family(
    "Kandinsky MoVQ (diffusers)", "autoencoder",
    (*COMMON_SIGNS, "decoder.conv_norm_out.conv_y.weight", "encoder.down_blocks.{i}.resnets.0.conv1.weight"),
    diffusers_config, VQGAN, diffusers_names, published={"2.2": MOVQ}, licence="Apache-2.0",
)  # fmt: skip
KL_SIGNS = ("quant_conv.weight", "post_quant_conv.weight", "decoder.conv_norm_out.weight",
            "encoder.down_blocks.{i}.resnets.0.conv1.weight")  # fmt: skip
AUTOENCODER_KL = Family(
    "Autoencoder of Stable Diffusion", "autoencoder", (*KL_SIGNS, "encoder.mid_block.attentions.0.to_q.weight"),
    kl_config, AutoencoderKL, diffusers_names, published={"f8": AutoencoderKLConfig()}, licence="Open RAIL++-M",
)  # fmt: skip
AUTOENCODER_KL_OLD = Family(
    "Autoencoder of Stable Diffusion, older names", "autoencoder",
    (*KL_SIGNS, "encoder.mid_block.attentions.0.query.weight"), kl_config, AutoencoderKL,
    partial(diffusers_names, old=True), published={"f8": AutoencoderKLConfig()}, licence="Open RAIL++-M",
)  # fmt: skip
