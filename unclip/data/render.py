"""From SVG or bitmap to square RGBA pictures at every size asked, encoded as WebP."""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

EXTERNAL = re.compile(rb"<(?:\w+:)?image\b[^>]*?href\s*=\s*[\"'](?!data:|#)")
LETTERING = re.compile(rb"<(?:\w+:)?(?:text|flowRoot)\b[^>]*>(?=.*?\w)", re.S)


class Rendered(NamedTuple):
    """`images` maps a size in pixels to WebP bytes; `pixels` is the hash of the smallest rendering.

    When the picture could not be used, `images` is empty and `reason` says why.
    """

    images: dict[int, bytes]
    pixels: str = ""
    reason: str = ""


def render(data: bytes, sizes: Sequence[int]) -> Rendered:
    """Draw once at the largest of `sizes`; the others are exact reductions of that drawing."""
    try:
        full = draw(data, max(sizes))
    except (ValueError, OSError) as e:
        return Rendered({}, reason=str(e).splitlines()[0][:80] if isinstance(e, Unusable) else "does not render")
    if full.getchannel("A").getextrema()[1] < 32:
        return Rendered({}, reason="blank")
    pictures = {size: reduce(full, size) for size in sizes}
    smallest = pictures[min(sizes)]
    # Colours under full transparency are invisible, so they must not tell two pictures apart.
    pixels = hashlib.blake2b(smallest.convert("RGBa").tobytes(), digest_size=16).hexdigest()
    return Rendered({size: webp(picture) for size, picture in pictures.items()}, pixels)


class Unusable(ValueError):
    """A picture that could be drawn only in part."""


def draw(data: bytes, size: int) -> "Image.Image":
    """A (size, size) RGBA picture on transparent ground: aspect kept, centred. Raises ValueError or OSError."""
    from PIL import Image

    if data.lstrip()[:1] == b"<":
        import resvg_py

        if EXTERNAL.search(data):
            raise Unusable("needs a file outside the SVG")
        if LETTERING.search(data):
            raise Unusable("needs a font")
        # dpi: sizes given in pt or cm fail without one. Fonts of this machine would make the corpus differ elsewhere.
        data = bytes(
            resvg_py.svg_to_bytes(
                svg_string=data.decode("utf-8"), width=size, height=size, dpi=96, skip_system_fonts=True
            )
        )
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    scale = size / max(picture.size)
    if scale != 1:
        shape = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(shape, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)
    if picture.size != (size, size):
        square = Image.new("RGBA", (size, size))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        picture = square
    return picture


def reduce(picture: "Image.Image", size: int) -> "Image.Image":
    """Area average to (size, size). Pillow premultiplies RGBA by alpha before it resizes."""
    from PIL import Image

    return picture if picture.width == size else picture.resize((size, size), Image.Resampling.BOX)


def webp(picture: "Image.Image") -> bytes:
    """Lossy colour at quality 90, lossless alpha."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90, alpha_quality=100, method=2)
    return buffer.getvalue()
