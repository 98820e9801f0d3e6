"""The U-Net as diffusers' folders name it: down_blocks, mid_block, up_blocks."""

from typing import Any

from unclip.errors import UnclipError
from unclip.nn.unet import UNetConfig
from unclip.weights.adm_unet import both
from unclip.weights.family import NONE, From, Schema, joined

RES = {"norm_1": "norm1", "conv_1": "conv1", "emb": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2",
       "skip": "conv_shortcut"}  # fmt: skip


def res(ours: str, theirs: str) -> dict[str, From]:
    return {k: v for a, b in RES.items() for k, v in both(f"{ours}.{a}", f"{theirs}.{b}").items()}


def attention(ours: str, theirs: str) -> dict[str, From]:
    names = both(f"{ours}.norm", f"{theirs}.group_norm") | both(f"{ours}.attention.out", f"{theirs}.to_out.0")
    for p in ("weight", "bias"):
        names[f"{ours}.attention.qkv.{p}"] = joined(*(f"{theirs}.to_{part}.{p}" for part in "qkv"))
        names[f"{ours}.attention.context.{p}"] = joined(*(f"{theirs}.add_{part}_proj.{p}" for part in "kv"))
    return names


# Of a Transformer block around attention: q, k and v have no bias, and one layer makes both value and gate.
BLOCK = {"norm_1": "norm1", "itself.out": "attn1.to_out.0", "norm_2": "norm2", "attention.out": "attn2.to_out.0",
         "norm_3": "norm3", "gated": "ff.net.0.proj", "mlp": "ff.net.2"}  # fmt: skip


def transformer(ours: str, theirs: str) -> dict[str, From]:
    block = f"{theirs}.transformer_blocks.0"
    names = both(f"{ours}.norm", f"{theirs}.norm") | both(f"{ours}.enter", f"{theirs}.proj_in")
    names |= both(f"{ours}.leave", f"{theirs}.proj_out")
    for a, b in BLOCK.items():
        names |= both(f"{ours}.{a}", f"{block}.{b}")
    for layer, of, parts in (("itself.qkv", "attn1", "qkv"), ("attention.qkv", "attn2", "q"),
                             ("attention.context", "attn2", "kv")):  # fmt: skip
        names[f"{ours}.{layer}.weight"] = joined(*(f"{block}.{of}.to_{part}.weight" for part in parts))
        names[f"{ours}.{layer}.bias"] = NONE
    return names


def unet(c: UNetConfig, ours: str = "unet.", theirs: str = "") -> dict[str, From]:
    """Names of the whole U-Net, ours → theirs."""
    look = transformer if c.transformer else attention

    def resize(ours: str, theirs: str) -> dict[str, From]:
        return both(f"{ours}.conv", f"{theirs}.conv") if c.convolve else res(ours, theirs)

    names = both(f"{ours}time.0", f"{theirs}time_embedding.linear_1")
    names |= both(f"{ours}time.2", f"{theirs}time_embedding.linear_2") | both(f"{ours}conv_in", f"{theirs}conv_in")
    levels, deep = len(c.channels), c.depth + 1
    for j in range(levels * deep - 1):
        level, block = f"{theirs}down_blocks.{j // deep}", j % deep
        if block == c.depth:  # it halves the grid
            names |= resize(f"{ours}down.{j}.0", f"{level}.downsamplers.0")
        else:
            names |= res(f"{ours}down.{j}.0", f"{level}.resnets.{block}")
        names |= look(f"{ours}down.{j}.1", f"{level}.attentions.{block}")
    names |= look(f"{ours}middle.1", f"{theirs}mid_block.attentions.0")
    names |= res(f"{ours}middle.0", f"{theirs}mid_block.resnets.0")
    names |= res(f"{ours}middle.2", f"{theirs}mid_block.resnets.1")
    for j in range(levels * deep):
        level, block = f"{theirs}up_blocks.{j // deep}", j % deep
        names |= res(f"{ours}up.{j}.0", f"{level}.resnets.{block}")
        names |= look(f"{ours}up.{j}.1", f"{level}.attentions.{block}")
        names |= resize(f"{ours}up.{j}.2", f"{level}.upsamplers.0")
    return names | both(f"{ours}norm_out", f"{theirs}conv_norm_out") | both(f"{ours}conv_out", f"{theirs}conv_out")


def config(found: Schema, prefix: str = "", said: dict[str, Any] | None = None, joins: int = 0) -> UNetConfig:
    """What shapes tell of a U-Net; `said`, its config.json, tells the channels of a head. joins: channels of what is
    joined to x."""
    levels = found.count(prefix + "down_blocks.{i}.resnets.{rest}")
    depth = found.count(prefix + "down_blocks.0.resnets.{i}.{rest}")
    first = [f"{prefix}down_blocks.{i}.attentions.0" for i in range(levels)]
    wrapped = f"{prefix}mid_block.attentions.0.proj_in.weight" in found
    norm = "norm.weight" if wrapped else "group_norm.weight"
    attended = tuple(i for i, key in enumerate(first) if f"{key}.{norm}" in found)
    channels = tuple(found.size(f"{prefix}down_blocks.{i}.resnets.0.conv1.weight") for i in range(levels))
    keys = "transformer_blocks.0.attn2.to_k.weight" if wrapped else "add_k_proj.weight"
    context = f"{first[attended[0]]}.{keys}" if attended else ""
    head, heads = (said or {}).get("attention_head_dim", 64), 0  # channels of each, or how many
    if wrapped and said and "attention_head_dim" in said:  # how many heads there are is so called there
        head, heads = (64, head) if isinstance(head, int) else (of_each(head, channels), 0)
    if not isinstance(head, int) or head < 1 or heads < 0 or any(channels[i] % (heads or head) for i in attended):
        told = f"{heads} heads" if heads else f"heads of {head!r} channels"
        raise UnclipError(f"its config.json asks for {told}; one number that divides {channels}")
    scale_shift = found.size(f"{prefix}down_blocks.0.resnets.0.time_emb_proj.weight") == 2 * channels[0]
    return UNetConfig(
        found.size(f"{prefix}conv_in.weight", 1) - joins, found.size(f"{prefix}conv_out.weight"), channels, depth,
        attended, head if attended else 64, heads, layout=joins,
        context=found.size(context, 1) if context in found else None, scale_shift=scale_shift, transformer=wrapped,
        convolve=f"{prefix}down_blocks.0.downsamplers.0.conv.weight" in found,
    )  # fmt: skip


def of_each(heads: Any, channels: tuple[int, ...]) -> int | None:
    """The channels of a head, from how many heads there are at each level; None if they differ."""
    if not isinstance(heads, list) or len(heads) != len(channels) or not all(isinstance(n, int) and n for n in heads):
        return None
    widths = {width / n for n, width in zip(heads, channels, strict=True)}
    return int(widths.pop()) if len(widths) == 1 else None
