"""Frames as an MP4 film, by PyAV (the extra `film`): made in memory, read without trust."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.errors import UnclipError
from unclip.files import BYTES, check_side

RATE = 5  # frames a second


def library() -> Any:
    """PyAV. Raises UnclipError where it is not installed."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as e:
        raise UnclipError("mp4 needs PyAV: pip install 'unclip[film]'; .webp and .gif do without") from e
    return av


def encode(frames: Sequence[Image.Image], comment: str = "") -> bytes:
    """The bytes of an MP4 of frames of one size, an even number of pixels a side: H.264 as every player shows it."""
    av, out = library(), io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "bitexact"}) as film:
        film.metadata["comment"] = comment
        stream = film.add_stream("libx264", rate=RATE, options={"crf": "10", "threads": "1"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_image(frame.convert("RGB"))))
        film.mux(stream.encode())
    return out.getvalue()


def is_film(path: str | Path) -> bool:
    """Whether a file begins as MP4 does."""
    try:
        with open(path, "rb") as file:
            return file.read(8)[4:] == b"ftyp"
    except OSError:
        return False


def read(path: str | Path) -> tuple[Image.Image, str]:
    """The first frame of an MP4, and its comment. Raises UnclipError for anything that is not a whole, sound film."""
    av, name = library(), repr(str(path))
    if Path(path).stat().st_size > BYTES:
        raise UnclipError(f"{name} is larger than {BYTES >> 20} MiB; save the film smaller")
    try:
        with av.open(io.BytesIO(Path(path).read_bytes()), format="mp4") as film:
            stream = film.streams.video[0]
            check_side((stream.width, stream.height), name)
            return next(film.decode(stream)).to_image(), str(film.metadata.get("comment", ""))
    except (av.FFmpegError, IndexError, StopIteration, ValueError) as e:
        raise UnclipError(f"{name} is no MP4 film, or a damaged one: {e}") from e
