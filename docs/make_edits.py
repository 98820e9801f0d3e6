"""The pictures of docs/editing.md, made by the shipped weights: `python docs/make_edits.py [NAME …] [--data corpus]`.

Without names all are made, in a few minutes; `probe` needs the corpus. Each shows what was given, then what came of it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from unclip import UnCLIP
from unclip.data.images import Corpus, compose
from unclip.files import atomic
from unclip.pictures import sheet, square, to_pil

ROOT = Path(__file__).parents[1]
SIDE = 128
FIXTURE = {"bird": ("compose", "bird", "noto emoji"), "bus": ("compose", "bus", "glossy 3d emoji"),
           "cactus": ("compose", "cactus", "flat vector emoji"), "sun": ("compose", "sun with face", "firefox emoji"),
           "beetle": ("val", "lady beetle", "flat vector emoji"),
           "island": ("compose", "desert island", "flat vector emoji")}  # fmt: skip


def held_out() -> dict[str, Image.Image]:
    """64 px pictures that the weights were never shown."""
    splits = {split: Corpus.load(ROOT / "tests/fixtures/illustrations", 64, split) for split in ("val", "compose")}
    found = {}
    for name, (split, label, style) in FIXTURE.items():
        corpus = splits[split]
        i = next(i for i, m in enumerate(corpus.meta) if (m["label"], m["style"]) == (label, style))
        found[name] = to_pil(compose(corpus.images[i : i + 1]))[0]
    return found


def hidden(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    image = image.copy()
    image.paste((128, 128, 128), box)
    return image


def rows(system: UnCLIP, data: str | None) -> dict[str, Callable[[], list[list[Image.Image]]]]:
    """The rows of each picture: what was given first."""
    p = held_out()

    def variations() -> list[list[Image.Image]]:
        return [[p[k], *system.variations(p[k], 3, eta=0.3).images, *system.variations(p[k], 3, eta=1.0).images]
                for k in ("bird", "bus")]  # fmt: skip

    def interpolate() -> list[list[Image.Image]]:
        return [system.interpolate([p["beetle"], p["bird"]], frames=7).images,
                system.interpolate([p["cactus"], p["bus"]], frames=7).images]  # fmt: skip

    def diff() -> list[list[Image.Image]]:
        return [system.text_diff(p["bird"], "a red bird", "a blue bird", theta=0.5).images,
                system.text_diff(p["bus"], "a green bus", "an orange bus", theta=0.5).images]  # fmt: skip

    def img2img() -> list[list[Image.Image]]:
        return [[p["cactus"], *(system.img2img(p["cactus"], "a Christmas tree", strength=s).images[0]
                                for s in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9))]]  # fmt: skip

    def inpaint() -> list[list[Image.Image]]:
        bus, sun = (40, 0, 64, 64), (14, 18, 50, 36)
        return [[hidden(p["bus"], bus), *system.inpaint(p["bus"], bus, n=6, rounds=6, size=64).images],
                [hidden(p["sun"], sun), *system.inpaint(p["sun"], sun, n=6, rounds=6, size=64).images]]  # fmt: skip

    def outpaint() -> list[list[Image.Image]]:
        half = p["beetle"].crop((0, 24, 64, 64))
        return [[half, *system.outpaint(half, top=24, n=6, rounds=6, size=64).images]]

    def probe() -> list[list[Image.Image]]:
        if data is None:
            raise SystemExit("probe needs --data corpus")
        corpus = Corpus.load(data, 64, "train", core=True, limit=4000)
        with torch.inference_mode():
            z = torch.cat([system.embed(compose(images).to(system.device)) for images in corpus.images.split(64)])
        return [[*system.pca_probe(p[k], z, [5, 10, 20, 40, 80, 160]).images, p[k]] for k in ("bird", "bus")]

    return {"variations": variations, "interpolate": interpolate, "diff": diff, "img2img": img2img,
            "inpaint": inpaint, "outpaint": outpaint, "probe": probe}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", metavar="DIR")
    args = parser.parse_args()
    make(UnCLIP.from_pretrained(args.weights), args.data, args.names)


def make(system: UnCLIP, data: str | None, names: Sequence[str] = ()) -> None:
    """Write images/edits/NAME.webp for each of the names, by default all that can be made."""
    makers = rows(system, data)
    for name in names or [n for n in makers if n != "probe" or data]:
        lines = makers[name]()
        paper = sheet([square(image, SIDE) for line in lines for image in line], len(lines[0]))
        with atomic(ROOT / "docs/images/edits" / f"{name}.webp") as path:
            paper.save(path, "WEBP", quality=85, method=6)
        print(f"{name}.webp", flush=True)


if __name__ == "__main__":
    main()
