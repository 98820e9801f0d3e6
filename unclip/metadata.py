"""What a picture file says of how it was made: written into PNG, WEBP, JPEG, GIF and MP4, read back without trust.

Three records, each for another reader: `parameters`, the lines that other tools of the field parse; a JSON object with
all that is needed to draw the picture again; and IPTC's mark of a picture made by a trained model.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from unclip import film as films
from unclip.errors import UnclipError
from unclip.files import opened

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
LABELS = {"ddim": "DDIM", "dpmpp_2m": "DPM++ 2M", "unipc": "UniPC", "ddpm": "DDPM",
          "dpmpp_sde": "DPM++ 2M SDE", "plms": "PLMS", "renoise": "LCM"}  # fmt: skip
QUALITY: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True},
                                      "JPEG": {"quality": 95, "subsampling": 0}, "GIF": {}}  # fmt: skip
LINE = 4096  # the longest line of pairs that is looked into
MARK = b"unclip\0"  # opens the JSON object in EXIF's MakerNote
UTF16 = b"UNICODE\0"  # opens EXIF's UserComment
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="r"?>'
)
PAIR = re.compile(r'\s*([^:,]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


@dataclass(frozen=True)
class Picture:
    """A picture file as read: `parameters` and `record` are None where it has none."""

    image: Image.Image
    format: str
    parameters: str | None
    record: dict[str, Any] | None

    @property
    def pixels(self) -> str:
        return pixels(self.image)


def picture_format(path: str | Path, film: bool = False) -> str:
    """PNG, WEBP or JPEG, by the suffix; for a film also GIF, and MP4 where PyAV is installed."""
    suffix = Path(path).suffix.lower()
    if film and suffix == ".gif":
        return "GIF"
    if film and suffix == ".mp4":
        films.library()
        return "MP4"
    if suffix not in FORMATS:
        known = [*FORMATS, ".gif", ".mp4"] if film else FORMATS
        raise UnclipError(f"{str(path)!r} has no suffix of a picture; use {', '.join(known)}")
    return FORMATS[suffix]


def pixels(image: Image.Image) -> str:
    """sha256 of the size and the RGB values, whatever the file around them."""
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.convert("RGB").tobytes()).hexdigest()


def parameters(record: dict[str, Any]) -> str:
    """The lines that other tools parse: prompt, negative prompt, then `Key: value` pairs."""
    settings, model = record["settings"], record["model"]
    pairs = {
        "Steps": settings["steps"],
        "Sampler": LABELS[settings["sampler"]],
        "CFG scale": f"{settings['guidance']:g}",
        "Seed": record["seed"],
        "Size": f"{settings['size']}x{settings['size']}",
        "Model hash": model["digest"],
        "Model": model["name"],
        "Version": f"unclip {record['version']}",
    }
    if lora := [f"{told['file']}:{told['scale']:g}" for told in model.get("lora", [])]:
        pairs["LoRA"] = ", ".join(lora)
    quoted = {k: json.dumps(v, ensure_ascii=False) if re.search(r'[,:"\n]', str(v)) else v for k, v in pairs.items()}
    negative = [f"Negative prompt: {record['negative_prompt']}"] if record["negative_prompt"] else []
    return "\n".join([record["prompt"], *negative, ", ".join(f"{k}: {v}" for k, v in quoted.items())])


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """The lines of `parameters`, ours or another tool's → prompt, negative prompt, pairs."""
    *lines, last = text.strip().split("\n")
    pairs = {k.strip(): unquote(v.strip()) for k, v in PAIR.findall(last)} if len(last) <= LINE else {}
    if len(pairs) < 3:
        lines, pairs = [*lines, last], {}
    first = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[first:]).removeprefix("Negative prompt:")
    return "\n".join(lines[:first]).strip(), negative.strip(), pairs


def unquote(value: str) -> str:
    try:
        return json.loads(value) if value.startswith('"') else value
    except ValueError:
        return value


def encode(image: Image.Image, form: str, record: dict[str, Any] | None, frames: Sequence[Image.Image] = ()) -> bytes:
    """The bytes of a picture file; `record` as `UnCLIP.record` makes it, with the `version` that drew it.

    frames: those after `image`, in WEBP and GIF, which show each for a fifth of a second, for ever, or in MP4.
    """
    comment = "" if record is None else f"{parameters(record)}\n{json.dumps(record)}"
    if form == "MP4":
        return films.encode([image, *frames], comment)
    out = io.BytesIO()
    about: dict[str, Any] = {}
    film = {"save_all": True, "append_images": list(frames), "duration": 200, "loop": 0} if frames else {}
    if record is not None:
        about = {"pnginfo": chunks(record)} if form == "PNG" else {"exif": exif(record), "xmp": XMP.encode()}
    if record is not None and form == "GIF":
        about = {"comment": comment.encode()}
    try:
        image.save(out, form, **QUALITY[form], **about, **film)
    except ValueError as e:  # EXIF holds 64 KB
        raise UnclipError(f"the prompts are too long to be noted in {form}: {e}; use PNG or no metadata", code=1) from e
    return out.getvalue()


def chunks(record: dict[str, Any]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters(record))
    info.add_text("unclip", json.dumps(record))
    info.add_itxt("XML:com.adobe.xmp", XMP)
    return info


def exif(record: dict[str, Any]) -> Image.Exif:
    data = Image.Exif()
    data.endian = ">"
    data[ExifTags.Base.Software] = f"unclip {record['version']}"
    inner = data.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.UserComment] = UTF16 + parameters(record).encode("utf-16-be")
    inner[ExifTags.Base.MakerNote] = MARK + json.dumps(record, ensure_ascii=False).encode()
    return data


def read(path: str | Path) -> Picture:
    """Open a picture and what it says of itself. Raises UnclipError for anything that is not a whole, sound picture."""
    if films.is_film(path):
        image, comment = films.read(path)
        return Picture(image, "MP4", *commented(comment))
    with opened(path, list(QUALITY)) as image:
        form, info = image.format or "", dict(image.info)
        inner = {} if form == "PNG" else image.getexif().get_ifd(ExifTags.IFD.Exif)
        image.load()
    if form == "GIF":
        return Picture(image, form, *commented(bytes(info.get("comment", b"")).decode("utf-8", "replace")))
    if form == "PNG":
        return Picture(image, form, text(info.get("parameters")), loads(info.get("unclip")))
    return Picture(image, form, text(inner.get(ExifTags.Base.UserComment)), loads(inner.get(ExifTags.Base.MakerNote)))


def commented(comment: str) -> tuple[str | None, dict[str, Any] | None]:
    """`parameters` and the JSON object, as a film's comment holds them."""
    lines, _, last = comment.rpartition("\n")
    return lines or None, loads(last)


def text(value: object) -> str | None:
    """The text of a PNG chunk or an EXIF comment."""
    if isinstance(value, bytes):
        coding = "utf-16-be" if value.startswith(UTF16) else "utf-8"
        return value[len(UTF16) :].decode(coding, "replace")
    return str(value) if isinstance(value, str) else None


def loads(value: object) -> dict[str, Any] | None:
    """The JSON object that a PNG chunk or an EXIF note holds, or None."""
    try:
        data = json.loads(value.removeprefix(MARK) if isinstance(value, bytes) else str(value))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
