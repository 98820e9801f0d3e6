"""Pictures kept as they are drawn, so that a run that was broken off goes on."""

from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unclip.errors import UnclipError
from unclip.files import atomic, write_json, writing
from unclip.weights.config import read_json

IDENTITY = "drawn_with.json"


class Gallery:
    """FOLDER/SPLIT/KEY.png, its caption in it. Without a folder nothing is kept.

    identity: all that the pictures depend on beside their captions, as JSON holds it. A folder of pictures made
    otherwise is refused.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any]):
        self.folder = folder
        if folder is None:
            return
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if (folder / IDENTITY).exists():
            before = read_json(folder / IDENTITY)
            changed = sorted(k for k in before.keys() | identity.keys() if before.get(k) != identity.get(k))
            if changed:
                told = "; ".join(f"{k} {before.get(k)}, now {identity.get(k)}" for k in changed)
                raise UnclipError(f"{str(folder)!r} holds pictures drawn with {told}; use another --out")
        else:
            write_json(folder / IDENTITY, identity)

    def find(self, name: str, caption: str, seed: int) -> Image.Image | None:
        """The picture kept as `name`, if it is sound and was drawn for this caption from this seed."""
        if self.folder is None:
            return None
        try:
            with Image.open(self.folder / f"{name}.png") as kept:
                picture = kept.convert("RGB")
                return picture if kept.info.get("drawn for") == label(caption, seed) else None
        except (OSError, SyntaxError):  # not there, or damaged: Pillow raises either
            return None

    def keep(self, name: str, caption: str, seed: int, picture: Image.Image) -> None:
        if self.folder is not None:
            path, info = self.folder / f"{name}.png", PngInfo()
            info.add_itxt("drawn for", label(caption, seed))
            with writing(path):
                path.parent.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                picture.save(temporary, "PNG", pnginfo=info)


def label(caption: str, seed: int) -> str:
    return f"{caption} [{seed}]"
