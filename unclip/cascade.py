"""The upsamplers on a picture of the user's own: of any shape, from any size, in tiles if memory is short."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image

from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.models.upsampler import Upsampler
from unclip.pictures import flat, to_pil, to_tensor
from unclip.pipeline import UnCLIP
from unclip.settings import Callback, Reporter, Settings, check_whole
from unclip.weights.config import from_dict

LARGEST = 4096  # pixels a side

Way = list[tuple[str, Upsampler | None, int]]  # name of the stage, its network (None: interpolation), the longer side


@torch.inference_mode()
def upscale(
    system: UnCLIP,
    image: Image.Image,
    to: int | None = None,
    seed: int = 0,
    *,
    start: int | None = None,
    skip: Sequence[int] = (),
    callback: Callback | None = None,
    progress: bool = True,
    **settings: Any,
) -> Image.Image:
    """Enlarge a picture until its longer side is `to` pixels (by default what the largest upsampler draws).

    start: first shrink its longer side to this, so that a stage is done anew. skip: sizes of upsamplers, as 256, whose
    work is left to interpolation. settings: `upsampler_steps`, `upsampler_1024_steps` and `tile` of `Settings`.
    Raises UnclipError when the weights cannot enlarge so much; the message says how far they can.
    """
    s, nets = from_dict(Settings, settings), system.upsamplers
    if not nets:
        raise UnclipError(f"the weights {system.name!r} hold no upsampler; train one: unclip train mini.upsampler")
    if not all(isinstance(net, Upsampler) for net in nets.values()):
        raise UnclipError(f"the upsampler of the weights {system.name!r} enlarges only what it is told of; use others")
    to = max(net.config.size for net in nets.values()) if to is None else to
    check_whole("to", to, 1, LARGEST)
    check_whole("start", LARGEST if start is None else start, 1, LARGEST)
    check_whole("seed", seed, 0, 2**63 - 1)
    if unknown := set(skip) - {net.config.size for net in nets.values()}:
        raise UnclipError(f"no upsampler to {min(unknown)} to skip; these weights hold {sizes(nets)}")
    image = flat(image)
    if start and start < max(image.size):
        image = image.resize(shape(image.size, start), Image.Resampling.BOX)
    way = route(nets, max(image.size), to, skip)
    for _, net, _ in way:
        if net:
            net.denoiser(s.tile)  # says now what would fail later
    extent, steps = image.size, sum(getattr(s, f"{name}_steps") for name, net, _ in way if net)
    with Reporter(callback, progress, 1, steps) as report:
        for name, net, side in way:
            width, height = shape(extent, side)
            if net:
                low, tell = to_tensor(image).to(system.device), partial(report, 0, name)
                image = to_pil(system.upsample(low, Draw([seed], name), s, tell, net, (height, width)))[0]
            else:
                image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image


def route(nets: dict[str, Upsampler], side: int, to: int, skip: Sequence[int] = ()) -> Way:
    """The stages from a picture of `side` to one of `to` pixels, each at most as far as its network was trained for."""
    way, last, began = [], list(nets)[-1], side
    for name, net in nets.items():
        if side < to and (side < net.config.size or name == last):
            skipped = net.config.size in skip
            goal = to if name == last else min(to, net.config.size)
            side = goal if skipped else min(goal, side * net.factor)
            way.append((name, None if skipped else net, side))
    if began >= to:
        raise UnclipError(f"the picture is {began} px already; ask for more than that, or shrink it first (--from)")
    if side < to:
        raise UnclipError(f"these weights enlarge {began} px to {side} at most, not to {to}; they hold {sizes(nets)}")
    return way


def shape(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height scaled until the longer of them is `side`."""
    width, height = (max(1, round(n * side / max(size))) for n in size)
    return width, height


def sizes(nets: dict[str, Upsampler]) -> str:
    return " and ".join(f"{net.config.low} → {net.config.size}" for net in nets.values())
