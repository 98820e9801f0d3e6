"""Pictures to tensors, and tensors to pictures."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unclip.errors import UnclipError
from unclip.files import check_side, opened

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # that are read; none of their readers runs a program


def grid(pictures: Tensor, columns: int = 8, gap: int = 2) -> Image.Image:
    """[N, 3, H, W] in [−1, 1] → one sheet."""
    return sheet(to_pil(pictures), columns, gap)


def sheet(images: Sequence[Image.Image], columns: int = 8, gap: int = 2) -> Image.Image:
    """Pictures of one size side by side on white, row after row."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    paper = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        paper.paste(image, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return paper


def to_uint8(pictures: Tensor) -> Tensor:
    """[N, 3, H, W] in [−1, 1] → uint8 [N, H, W, 3] on the CPU."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def to_pil(pictures: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in [−1, 1] → N pictures."""
    return [Image.fromarray(picture.numpy()) for picture in to_uint8(pictures)]


def read(source: str | Path | Image.Image) -> Image.Image:
    """A picture of any mode, upright, with 8 bits a channel, as RGB or with its alpha as RGBA.

    16-bit grey is reduced, CMYK converted without a profile; of several frames the first is taken. Raises UnclipError
    for what is no picture, and from the header alone for one of more than 4096 pixels a side.
    """
    if isinstance(source, Image.Image):
        check_side(source.size, "the picture")
        return plain(source)
    with opened(source, FORMATS) as image:
        frames, image = getattr(image, "n_frames", 1), plain(image)
    if frames > 1:
        warnings.warn(f"{str(source)!r} has {frames} frames; the first is taken", stacklevel=2)
    return image


def plain(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise UnclipError("the picture holds floating-point values; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def flat(image: Image.Image) -> Image.Image:
    """RGB on white, the ground that the corpus has."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def square(image: Image.Image, side: int, ground: str | tuple[int, ...] = "white") -> Image.Image:
    """The picture in the middle of a square, scaled to `side`."""
    longest = max(image.size)
    paper = Image.new(image.mode, (longest, longest), ground)
    paper.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    return paper.resize((side, side), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB → [1, 3, H, W] in [−1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
