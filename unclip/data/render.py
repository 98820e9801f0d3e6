"""From SVG or bitmap to square RGBA pictures at every size asked, encoded as WebP."""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from unclip.errors import UnclipError

if TYPE_CHECKING:
    from PIL import Image

EXTERNAL = re.compile(rb"<(?:\w+:)?image\b[^>]*?href\s*=\s*[\"'](?!data:|#)")
FAINTEST = 16  # of 255: anything fainter is not seen
SMALL, FILLED, LARGEST_ZOOM = 0.75, 0.94, 6.0  # of a page: what is brought close, how close, and at most
LETTERING = re.compile(  # an element of text that holds some
    rb"<(?:\w+:)?(text|flowRoot)\b(?:[^>]*[^/>])?>(?:\s|<(?!/(?:\w+:)?\1\b)[^>]*>)*[^\s<]"
)


class Rendered(NamedTuple):
    """`images` maps a size in pixels to WebP bytes; `pixels` is the hash of the smallest rendering.

    When the picture could not be used, `images` is empty and `reason` says why.
    """

    images: dict[int, bytes]
    pixels: str = ""
    reason: str = ""


def render(data: bytes, trim: bool, sizes: Sequence[int]) -> Rendered:
    """Draw once at the largest of `sizes`; the others are exact reductions of that drawing.

    A bitmap is not enlarged: sizes beyond its own are left out, as long as one is left.
    trim: a drawing that is lost on a large page is brought close.
    """
    import numpy as np

    try:
        sizes = [size for size in sizes if size <= largest(data)] or [min(sizes)]
        full = draw(data, max(sizes), trim)
    except (ValueError, OSError) as e:
        return Rendered({}, reason=str(e).splitlines()[0][:80] if isinstance(e, Unusable) else "does not render")
    premultiplied = np.asarray(full.convert("RGBa"))
    if (premultiplied[..., 3:] - premultiplied[..., :3]).max() < FAINTEST:
        return Rendered({}, reason="blank, or white on white")
    pictures = {size: reduce(full, size) for size in sizes}
    smallest = pictures[min(sizes)]
    # Colours under full transparency are invisible, so they must not tell two pictures apart.
    pixels = hashlib.blake2b(smallest.convert("RGBa").tobytes(), digest_size=16).hexdigest()
    return Rendered({size: webp(picture) for size, picture in pictures.items()}, pixels)


def largest(data: bytes) -> float:
    """The longer side of a bitmap, in pixels; an SVG can be drawn at any size."""
    from PIL import Image

    return float("inf") if is_svg(data) else max(Image.open(io.BytesIO(data)).size)


def is_svg(data: bytes) -> bool:
    return data.lstrip()[:1] == b"<"


class Unusable(ValueError):
    """A picture that could be drawn only in part."""


def draw(data: bytes, size: int, trim: bool = False) -> "Image.Image":
    """A (size, size) RGBA picture on transparent ground: aspect kept, centred. Raises ValueError or OSError."""
    from PIL import Image

    picture = _open(data, size)
    box = picture.getchannel("A").point([255 * (a > FAINTEST) for a in range(256)]).getbbox() if trim else None
    if box and (extent := max(box[2] - box[0], box[3] - box[1])) < SMALL * size:
        zoom = min(FILLED * size / extent, LARGEST_ZOOM)
        near = _open(data, round(size * zoom))
        middle = [round((low + high) / 2 * near.width / picture.width) for low, high in (box[::2], box[1::2])]
        left, top = (at - size // 2 for at in middle)
        return near.crop((left, top, left + size, top + size))
    square = Image.new("RGBA", (size, size))
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square


def _open(data: bytes, size: int) -> "Image.Image":
    """An SVG drawn, or a bitmap resized, so that its longer side is `size`."""
    from PIL import Image

    if is_svg(data):
        data = _rasterise(data, size)
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    scale = size / max(picture.size)
    if scale == 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)


def _rasterise(svg: bytes, size: int) -> bytes:
    try:
        import resvg_py
    except ImportError as e:
        raise UnclipError("resvg-py is needed to draw SVG: pip install 'unclip[data]'") from e
    if EXTERNAL.search(svg):
        raise Unusable("needs a file outside the SVG")
    if LETTERING.search(svg):
        raise Unusable("needs a font")
    # dpi: sizes given in pt or cm fail without one. Fonts of this machine would make the corpus differ elsewhere.
    text = svg.decode("utf-8")
    return bytes(resvg_py.svg_to_bytes(text, width=size, height=size, dpi=96, skip_system_fonts=True))


def reduce(picture: "Image.Image", size: int) -> "Image.Image":
    """Area average to (size, size). Pillow premultiplies RGBA by alpha before it resizes."""
    from PIL import Image

    return picture if picture.width == size else picture.resize((size, size), Image.Resampling.BOX)


def webp(picture: "Image.Image") -> bytes:
    """Lossy colour at quality 90, lossless alpha."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90, alpha_quality=100, method=2)
    return buffer.getvalue()
