"""Inpainting and outpainting: pixels that are kept, and the rest drawn to go with them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import pictures
from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.guidance import Known
from unclip.diffusion.levels import Levels, mix
from unclip.diffusion.samplers import Randn, ddim, walk
from unclip.edit.session import Session, Source, open_picture
from unclip.errors import UnclipError
from unclip.files import SIDE, check_side
from unclip.settings import Generated, check_whole

if TYPE_CHECKING:
    from unclip.pipeline import Tell, UnCLIP

Box = Sequence[int]  # left, top, right, bottom in pixels, the last two not included
Mask = Source | Box | None


def inpaint(system: "UnCLIP", source: Source, mask: Mask = None, prompt: str = "", n: int = 1, seed: int = 0,
            rounds: int = 4, **options: Any) -> Generated:  # fmt: skip
    """`n` times the picture, of its own size, with the masked part drawn anew and every other pixel as it was.

    mask: a picture of the same size, transparent where to draw if it has alpha, else white there; a box; or None for
    the transparent part of `source`. With a `prompt` the prior draws its z_i; without one the decoder guesses from what
    it sees. Each level is passed `rounds` times, noised again in between (RePaint 2201.09865, algorithm 1).
    """
    image = open_picture(source)
    return system.fill_in(pictures.flat(image), hole(image, mask), prompt, n, seed, rounds, **options)


def outpaint(system: "UnCLIP", source: Source, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0,
             prompt: str = "", n: int = 1, seed: int = 0, rounds: int = 4, **options: Any) -> Generated:  # fmt: skip
    """`n` times the picture with so many pixels more on each side; its own stay as they are. See `inpaint`."""
    image = pictures.flat(open_picture(source))
    for name, value in {"left": left, "top": top, "right": right, "bottom": bottom}.items():
        check_whole(name, value, 0, SIDE)
    if not left + top + right + bottom:
        raise UnclipError("nothing is to be added: say how many pixels, left, top, right or bottom")
    size = image.width + left + right, image.height + top + bottom
    check_side(size, "the enlarged picture")
    paper, new = Image.new("RGB", size, "white"), Image.new("L", size, 255)
    paper.paste(image, (left, top))
    new.paste(0, (left, top, left + image.width, top + image.height))
    return system.fill_in(paper, new, prompt, n, seed, rounds, **options)


def fill_in(system: "UnCLIP", image: Image.Image, new: Image.Image, prompt: str, n: int, seed: int, rounds: int,
            **options: Any) -> Generated:  # fmt: skip
    """RGB `image` with the pixels drawn where `new` (L, of its size) is 255."""
    check_whole("rounds", rounds, 1, 100)
    side, longest = system.sizes[0], max(image.size)
    usual: dict[str, Any] = {"guidance": 2.0 if prompt else 1.0, "size": side if longest <= side else None}
    session = Session(system, [prompt] * n, seed, **usual | options)
    x0, known = (v.to(system.device) for v in kept(image, new, session.side))
    wanted = [at.z_i for at in session.imagine([prompt] * n)] if prompt else [system.embed(x0)] * n
    known, x0 = F.max_pool2d((~known[:, :1]).float(), system.factor) == 0, system.enter(x0)

    def paint(i: int, tell: "Tell") -> tuple[Tensor, Tensor]:
        noise = session.noise(i, "decoder")
        denoise, given = system.guided(wanted[i], prompt, session.request.negative, session.s, blind=not prompt)
        walking = harmonised(Known(denoise, x0, known), noise.like(x0), session.levels, rounds, noise.like, given=given)
        x = system.follow(walking, rounds * session.s.steps, tell)
        return x, wanted[i] if prompt else system.embed(system.leave(x))

    drawn = session.draw(paint, rounds * session.s.steps)
    drawn.images = [put_back(picture, image, new) for picture in drawn.images]
    return drawn


def kept(image: Image.Image, new: Image.Image, side: int) -> tuple[Tensor, Tensor]:
    """The picture in the middle of a square as [1, 3, side, side] in [−1, 1], and where it is known, of the same shape:
    of a pixel that is known in part, only that part counts."""
    seen = image.convert("RGBA")
    seen.putalpha(new.point(lambda v: 255 - v))
    seen = pictures.square(seen, side, (0, 0, 0, 0))
    known = pictures.to_tensor(seen.getchannel("A").convert("RGB")) == 1
    return pictures.to_tensor(seen.convert("RGB")), known


def put_back(square: Image.Image, image: Image.Image, new: Image.Image) -> Image.Image:
    """`image` with what was drawn in a square around it where `new` is 255."""
    longest = max(image.size)
    left, top = ((longest - k) // 2 for k in image.size)
    whole = square.resize((longest, longest), Image.Resampling.LANCZOS)
    return Image.composite(whole.crop((left, top, left + image.width, top + image.height)), image, new)


def harmonised(denoise: Denoise, x: Tensor, levels: Levels, rounds: int, randn: Randn, **cond: Any
               ) -> Iterator[tuple[Tensor, Estimate]]:  # fmt: skip
    """Down the levels, each passed `rounds` times: what is new then learns of what is known (RePaint, section 4.2)."""
    for at, to in levels.down():
        for again in range(rounds):
            if again:
                ratio = at.alpha / to.alpha
                x = mix((ratio, x), ((at.sigma**2 - (ratio * to.sigma) ** 2).sqrt(), randn(x)))
            ((x, est),) = walk(denoise, x, [(at, to)], ddim(1.0), randn, **cond)
            yield x, est


def clear(image: Image.Image) -> Image.Image:
    """Where an RGBA picture is more transparent than not: 255 in L."""
    return image.getchannel("A").point([255] * 128 + [0] * 128)


def hole(image: Image.Image, mask: Mask) -> Image.Image:
    """The part to draw, as L of the picture's size: 255 there, else 0."""
    if mask is None:
        if image.mode != "RGBA":
            raise UnclipError("the picture has no transparent part to draw; give a mask or a box")
        new = clear(image)
    elif isinstance(mask, Sequence) and not isinstance(mask, str):
        if len(mask) != 4 or not (0 <= mask[0] < mask[2] <= image.width and 0 <= mask[1] < mask[3] <= image.height):
            within = f"{image.width}×{image.height}"
            raise UnclipError(f"the box is {tuple(mask)}; give left, top, right, bottom within {within}")
        new = Image.new("L", image.size, 0)
        new.paste(255, (mask[0], mask[1], mask[2], mask[3]))
    else:
        found = open_picture(mask)
        if found.size != image.size:
            told = f"{found.width}×{found.height}, the picture {image.width}×{image.height}"
            raise UnclipError(f"the mask is {told}; make them the same size")
        new = clear(found) if found.mode == "RGBA" else found.convert("L").point([0] * 128 + [255] * 128)
    low, high = new.getextrema()
    if high == 0:
        raise UnclipError("the mask is empty, so there is nothing to draw; mark the part with white, or transparency")
    if low == 255:
        raise UnclipError("the mask covers the whole picture; nothing would be kept, so use unclip generate")
    return new
