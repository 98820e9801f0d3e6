"""Files are written whole or not at all: temporary name, flush, rename, mode 0644."""

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.errors import UnclipError

if TYPE_CHECKING:
    from PIL import Image

SIDE, BYTES = 4096, 2**26  # the largest picture and picture file that are read

REASONS = {
    errno.ENOENT: "the folder does not exist; create it or name another",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EACCES: "permission denied; choose a path you may write to",
    errno.EPERM: "permission denied; choose a path you may write to",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another disk",
}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into one line that names it."""
    try:
        yield
    except OSError as e:
        at_work = e.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = REASONS.get(e.errno or 0, e.strerror or str(e))
        raise UnclipError(f"cannot write {str(path)!r}: {reason}", code=1 if at_work else 2) from e


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed over `path`, else removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            yield temporary
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes its name once all is written in it; on failure it is removed.

    Raises UnclipError where there is something of that name already, but for an empty folder.
    """
    name, path = str(path), Path(os.path.abspath(path))
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UnclipError(f"{name!r} is there already, and not empty; name another folder, or remove it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            temporary.mkdir(parents=True)
        yield temporary
        with writing(path):
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, data: Any) -> None:
    write_bytes(path, json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n")


def sha256(path: str | Path) -> str:
    """The file's sha256 in hex; a gigabyte takes about a second."""
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror or e}") from e


@contextmanager
def opened(path: str | Path, formats: list[str] | tuple[str, ...]) -> Iterator["Image.Image"]:
    """A picture file of one of these formats, header read, pixels to be read inside the block. Raises UnclipError for
    anything that is not a whole, sound picture, and before decoding for one that is too large."""
    from PIL import Image

    name = repr(str(path))
    try:
        if Path(path).stat().st_size > BYTES:
            raise UnclipError(f"{name} is larger than {BYTES >> 20} MiB; save the picture smaller")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a picture that unpacks to gigabytes
            with Image.open(path, formats=formats) as image:
                check_side(image.size, name)
                yield image
    except UnclipError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as e:  # Pillow's own bound comes first
        raise UnclipError(f"{name} is too large: at most {SIDE}×{SIDE} is read; make it smaller first") from e
    except Exception as e:  # what decoders raise for hostile bytes is not listed anywhere
        if isinstance(e, OSError) and e.errno:
            raise UnclipError(f"cannot read {name}: {e.strerror}") from e
        kinds = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise UnclipError(f"{name} is no {kinds} picture, or a damaged one: {e}") from e


def check_side(size: tuple[int, int], name: str) -> None:
    if max(size) > SIDE:
        raise UnclipError(f"{name} is {size[0]}×{size[1]}; at most {SIDE}×{SIDE} is read; make it smaller first")
