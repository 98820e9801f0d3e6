"""The U-Net as diffusers' folders name it: down_blocks, mid_block, up_blocks."""

from typing import Any

from unclip.errors import UnclipError
from unclip.nn.unet import UNetConfig
from unclip.weights.adm_unet import both
from unclip.weights.family import From, Schema, joined

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


def unet(c: UNetConfig, ours: str = "unet.", theirs: str = "") -> dict[str, From]:
    """Names of the whole U-Net, ours → theirs."""
    names = both(f"{ours}time.0", f"{theirs}time_embedding.linear_1")
    names |= both(f"{ours}time.2", f"{theirs}time_embedding.linear_2") | both(f"{ours}conv_in", f"{theirs}conv_in")
    levels, deep = len(c.channels), c.depth + 1
    for j in range(levels * deep - 1):
        level, block = f"{theirs}down_blocks.{j // deep}", j % deep
        last = block == c.depth  # it halves the grid
        names |= res(f"{ours}down.{j}.0", f"{level}.downsamplers.0" if last else f"{level}.resnets.{block}")
        names |= attention(f"{ours}down.{j}.1", f"{level}.attentions.{block}")
    names |= attention(f"{ours}middle.1", f"{theirs}mid_block.attentions.0")
    names |= res(f"{ours}middle.0", f"{theirs}mid_block.resnets.0")
    names |= res(f"{ours}middle.2", f"{theirs}mid_block.resnets.1")
    for j in range(levels * deep):
        level, block = f"{theirs}up_blocks.{j // deep}", j % deep
        names |= res(f"{ours}up.{j}.0", f"{level}.resnets.{block}")
        names |= attention(f"{ours}up.{j}.1", f"{level}.attentions.{block}")
        names |= res(f"{ours}up.{j}.2", f"{level}.upsamplers.0")
    return names | both(f"{ours}norm_out", f"{theirs}conv_norm_out") | both(f"{ours}conv_out", f"{theirs}conv_out")


def config(found: Schema, prefix: str = "", said: dict[str, Any] | None = None, joins: int = 0) -> UNetConfig:
    """What shapes tell of a U-Net; `said`, its config.json, tells the channels of a head. joins: channels of what is
    joined to x."""
    levels = found.count(prefix + "down_blocks.{i}.resnets.0.norm1.weight")
    depth = found.count(prefix + "down_blocks.0.resnets.{i}.norm1.weight")
    first = [f"{prefix}down_blocks.{i}.attentions.0" for i in range(levels)]
    attended = tuple(i for i, key in enumerate(first) if f"{key}.group_norm.weight" in found)
    channels = tuple(found.size(f"{prefix}down_blocks.{i}.resnets.0.conv1.weight") for i in range(levels))
    context = f"{first[attended[0]]}.add_k_proj.weight" if attended else ""
    head = (said or {}).get("attention_head_dim", 64)
    if not isinstance(head, int) or head < 1 or any(channels[i] % head for i in attended):
        raise UnclipError(f"its config.json asks for heads of {head!r} channels; one number that divides {channels}")
    scale_shift = found.size(f"{prefix}down_blocks.0.resnets.0.time_emb_proj.weight") == 2 * channels[0]
    return UNetConfig(
        found.size(f"{prefix}conv_in.weight", 1) - joins, found.size(f"{prefix}conv_out.weight"), channels, depth,
        attended, head if attended else 64, context=found.size(context, 1) if context in found else None, layout=joins,
        scale_shift=scale_shift,
    )  # fmt: skip
