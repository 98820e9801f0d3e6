"""The U-Net as ADM's code names it, and GLIDE, Karlo and Kandinsky after it: input_blocks, middle_block and so on."""

from collections.abc import Callable, Iterator

from torch import Tensor

from unclip.errors import UnclipError
from unclip.nn.unet import UNetConfig
from unclip.weights.family import From, Schema, same, trailed

RES = {"norm_1": "in_layers.0", "conv_1": "in_layers.2", "emb": "emb_layers.1", "norm_2": "out_layers.0",
       "conv_2": "out_layers.3", "skip": "skip_connection"}  # fmt: skip
Rows = Callable[[str, int], From]


def by_head(heads: int, parts: int = 3, axes: int = 0) -> Callable[[str], From]:
    """Rows of theirs are q, k and v of the first head, then of the next; ours all q, all k, all v. Of theirs there are
    `axes` of one more."""

    def there(w: Tensor) -> Tensor:
        return w[(..., *(0,) * axes)].unflatten(0, (heads, parts, -1)).transpose(0, 1).flatten(0, 2)

    def back(w: Tensor) -> list[Tensor]:
        return [w.unflatten(0, (parts, heads, -1)).transpose(0, 1).flatten(0, 2)[(..., *(None,) * axes)]]

    return lambda key: From((key,), there, back)


def both(ours: str, theirs: str) -> dict[str, From]:
    return {f"{ours}.{p}": same(f"{theirs}.{p}") for p in ("weight", "bias")}


def res(ours: str, theirs: str) -> dict[str, From]:
    return {k: v for a, b in RES.items() for k, v in both(f"{ours}.{a}", f"{theirs}.{b}").items()}


def attention(ours: str, theirs: str, heads: int, new: bool) -> dict[str, From]:
    """new: all q, all k, all v, as "use_new_attention_order" has it."""
    names = both(f"{ours}.norm", f"{theirs}.norm")
    for p, axes in (("weight", 1), ("bias", 0)):
        plain = trailed if axes else same
        names[f"{ours}.attention.qkv.{p}"] = (plain if new else by_head(heads, 3, axes))(f"{theirs}.qkv.{p}")
        names[f"{ours}.attention.context.{p}"] = by_head(heads, 2, axes)(f"{theirs}.encoder_kv.{p}")
        names[f"{ours}.attention.out.{p}"] = plain(f"{theirs}.proj_out.{p}")
    return names


def resize(ours: str, theirs: str, c: UNetConfig, conv: str) -> dict[str, From]:
    return both(f"{ours}.conv", f"{theirs}.{conv}") if c.convolve else res(ours, theirs)


def downward(c: UNetConfig, ours: str = "unet.", theirs: str = "", new: bool = False) -> dict[str, From]:
    """Names of the time embedding, the way down and the middle."""
    names = both(f"{ours}time.0", f"{theirs}time_embed.0") | both(f"{ours}time.2", f"{theirs}time_embed.2")
    names |= both(f"{ours}conv_in", f"{theirs}input_blocks.0.0")
    for j, (level, last) in enumerate(blocks(c)):
        ours_j, theirs_j = f"{ours}down.{j}", f"{theirs}input_blocks.{j + 1}"
        names |= resize(f"{ours_j}.0", f"{theirs_j}.0", c, "op") if last else res(f"{ours_j}.0", f"{theirs_j}.0")
        names |= attention(f"{ours_j}.1", f"{theirs_j}.1", heads(c, level), new)
    middle = f"{theirs}middle_block"
    names |= res(f"{ours}middle.0", f"{middle}.0") | res(f"{ours}middle.2", f"{middle}.{2 if c.attention else 1}")
    return names | attention(f"{ours}middle.1", f"{middle}.1", heads(c, -1), new)


def unet(c: UNetConfig, ours: str = "unet.", theirs: str = "", new: bool = False) -> dict[str, From]:
    """Names of the whole U-Net, ours → theirs."""
    names = downward(c, ours, theirs, new)
    for j in range(len(c.channels) * (c.depth + 1)):
        level = len(c.channels) - 1 - j // (c.depth + 1)
        ours_j, theirs_j = f"{ours}up.{j}", f"{theirs}output_blocks.{j}"
        names |= res(f"{ours_j}.0", f"{theirs_j}.0")
        names |= attention(f"{ours_j}.1", f"{theirs_j}.1", heads(c, level), new)
        names |= resize(f"{ours_j}.2", f"{theirs_j}.{2 if level in c.attention else 1}", c, "conv")
    return names | both(f"{ours}norm_out", f"{theirs}out.0") | both(f"{ours}conv_out", f"{theirs}out.2")


def heads(c: UNetConfig, level: int) -> int:
    return c.heads or max(1, c.channels[level] // c.head)


def blocks(c: UNetConfig) -> Iterator[tuple[int, bool]]:
    """The level of each block on the way down, and whether it halves the grid."""
    for level in range(len(c.channels)):
        yield from [(level, False)] * c.depth
        if level < len(c.channels) - 1:
            yield level, True


def config(found: Schema, prefix: str = "", head: int = 64, joined: int = 0) -> UNetConfig:
    """What shapes tell of a U-Net. They do not tell its heads. joined: channels that are no part of x."""

    def size(key: str, axis: int = 0) -> int:
        return found.size(prefix + key, axis)

    def attends(i: int) -> bool:
        return found.holds(f"{prefix}input_blocks.{i}.1.{{rest}}")

    blocks, convolved = found.count(prefix + "input_blocks.{i}.{rest}"), prefix + "input_blocks.{i}.0.op.{rest}"
    if found.holds(prefix + "output_blocks.{rest}"):
        ends = (f"output_blocks.{{i}}.{n}.{name}.{{rest}}" for n in (1, 2) for name in ("in_layers", "conv"))
        levels = 1 + sum(found.count(prefix + end) for end in ends)
        depth = blocks // levels - 1
    else:  # half a U-Net: its last level is as deep as attention reaches back without a gap
        depth = 0
        while attends(blocks - 1 - depth):
            depth += 1
        levels = blocks // (depth + 1)
    if depth < 1 or blocks != levels * (depth + 1):
        raise UnclipError(f"{blocks} blocks in {prefix + 'input_blocks'!r}, which make no levels alike")
    firsts = [1 + i * (depth + 1) for i in range(levels)]
    channels = tuple(size(f"input_blocks.{i}.0.out_layers.0.weight") for i in firsts)
    attended = [n for n, i in enumerate(firsts) if attends(i)]
    first = f"{prefix}input_blocks.{firsts[attended[0]]}.1.encoder_kv.weight" if attended else ""
    time, out = size("time_embed.0.weight", 1), f"{prefix}out.2.weight"
    return UNetConfig(
        in_channels=size("input_blocks.0.0.weight", 1) - joined, layout=joined,
        out_channels=found.size(out) if out in found else 3,
        channels=channels, depth=depth, attention=tuple(attended), head=head,
        context=found.size(first, 1) if first in found else None,
        scale_shift=size("input_blocks.1.0.emb_layers.1.weight") == 2 * channels[0],
        convolve=found.holds(convolved), time=0 if time == channels[0] else time,
    )  # fmt: skip
