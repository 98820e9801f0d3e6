"""The gallery of docs/gallery.md, page and pictures, made by the shipped weights: `python docs/make_gallery.py`.

A hundred prompts that were fixed before any picture was looked at: the forty of benchmarks/everyday.txt, and the sixty
of docs/gallery.txt. Picture i is drawn from seed i with the default settings; nothing is picked. A few minutes.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from make_edits import make
from PIL import Image

from unclip import UnCLIP
from unclip.evaluate.judge import Judge
from unclip.files import atomic, write_bytes
from unclip.pictures import sheet
from unclip.weights import hub

ROOT = Path(__file__).parents[1]
Draw = Callable[..., list[Image.Image]]
SIDE, COLUMNS = 132, 8
CALLS = (1, 2, 4, 8)
FEW = ["a slice of pizza", "a red apple", "a hamburger", "a penguin", "a rocket", "a guitar", "a house", "an elephant"]
LARGE = [("a slice of pizza, glossy 3d emoji", 0), ("a penguin, flat vector emoji", 1)]
WORST = 16

PAGE = """\
# Gallery

All pictures here were drawn by the shipped weights (`{name}`, {digest}) in one run of

    python docs/make_gallery.py

First a hundred prompts, fixed before any picture was looked at: picture *i* has seed *i*, the default settings, and was
not picked. Then what else the system does, and last what it does worst.

{sections}
{edits}
## In few calls of the network

Each row draws the same prompts from the same seeds and z_i. {few}

![Rows of more and more calls](images/gallery/few.webp)

{few_captions}

## Priors

The same prompts and seeds, z_i drawn by {priors}.

![A row for each prior](images/gallery/priors.webp)

{few_captions}

## From 64 to 256 to 1024 pixels

One picture at each of its sizes, and a part of it, enlarged or shrunk to fit. {large}.

![64, 256 and 1024 pixels](images/gallery/cascade.webp)

## What fails

Of the hundred, the {worst} that the judge likes least: to this second CLIP, which draws nothing, another prompt of the
same section is nearer than the right one, by most. It puts the right one first for {named} of 100. The judge errs as
well, both ways: the list is by rule, not by eye.

![What the judge likes least](images/gallery/failures.webp)

| drawn for | taken for |
| --- | --- |
{failures}
"""

EDITS = """\
## Manipulations

From pictures that the weights were never shown; [editing](editing.md) has the commands.

Variations, with less and with more chance:

![A bird and a bus, and variations of each](images/edits/variations.webp)

Interpolations:

![From a beetle to a bird, and from a cactus to a bus](images/edits/interpolate.webp)

Text diffs, a blue bird to red, an orange bus to green:

![A blue bird becomes red, an orange bus green](images/edits/diff.webp)
"""


def prompts() -> dict[str, list[str]]:
    """Section → its prompts."""
    found = {"Everyday things": (ROOT / "benchmarks/everyday.txt").read_text(encoding="utf-8").splitlines()}
    for part in (ROOT / "docs/gallery.txt").read_text(encoding="utf-8").split("# ")[1:]:
        title, *lines = part.strip().splitlines()
        found[title] = lines
    return found


def save(name: str, images: Sequence[Image.Image], columns: int = COLUMNS, side: int = SIDE, quality: int = 82) -> None:
    """images/gallery/NAME.webp, or images/everyday.webp, which the README shows as well."""
    path = ROOT / "docs/images" / ("everyday.webp" if name == "everyday" else f"gallery/{name}.webp")
    path.parent.mkdir(exist_ok=True)
    paper = sheet([image.resize((side, side), Image.Resampling.LANCZOS) for image in images], columns)
    with atomic(path) as temporary:
        paper.save(temporary, "WEBP", quality=quality, method=6)
    print(path.name, flush=True)


def captions(lines: Sequence[str]) -> str:
    return "\n".join(f"1. {' · '.join(lines[i : i + COLUMNS])}" for i in range(0, len(lines), COLUMNS))


def hundred(draw: Draw, judge: Judge) -> tuple[str, list[tuple[float, str, str, Image.Image]]]:
    """The page's sections; and the judge's lead for each prompt, this, the likeliest other one, and the picture."""
    text, judged, seed = [], [], 0
    for title, lines in prompts().items():
        images = draw(lines, seed=seed)
        seed += len(lines)
        file = title.split()[0].lower()
        save(file, images)
        place = "everyday.webp" if file == "everyday" else f"gallery/{file}.webp"
        text.append(f"## {title}\n\n![{title}](images/{place})\n\n{captions(lines)}\n")
        small = [image.resize((judge.size, judge.size), Image.Resampling.BOX) for image in images]
        scores = judge.look(small)[1] @ judge.read(lines).T
        own = scores.diagonal().clone()
        best, other = scores.fill_diagonal_(-torch.inf).max(1)
        judged += zip((own - best).tolist(), lines, [lines[i] for i in other], images, strict=True)
    return "\n".join(text), judged


def few(system: UnCLIP, draw: Draw) -> str:
    """few.webp, and what its rows are."""
    rows = [draw(FEW, steps=n, size=64) for n in (*CALLS, 25)]
    told = f"Rows: the decoder in {', '.join(map(str, CALLS))} and 25 guided steps."
    if "decoder_fast" in system.students:
        rows += [draw(FEW, fast=n, size=64) for n in CALLS]
        told = f"{told[:-1]}; then its few-step student in {', '.join(map(str, CALLS))}, without guidance."
    save("few", [image for row in rows for image in row])
    return told


def priors(system: UnCLIP, draw: Draw) -> str:
    """priors.webp, and what its rows are."""
    names = {"diffusion": "the diffusion prior", "ar": "the autoregressive prior", "none": "none (z_t for z_i)"}
    names = {name: told for name, told in names.items() if name != "ar" or system.prior_ar}
    save("priors", [image for name in names for image in draw(FEW, prior=name, size=64)])
    return "; ".join(names.values())


def cascade(system: UnCLIP, draw: Draw) -> str:
    """cascade.webp: a row of whole pictures, and one of a quarter of each side."""
    tiles = []
    for prompt, seed in LARGE:
        row = [draw([prompt], seed=seed, size=size)[0] for size in system.sizes]
        parts = [image.crop([k * image.width // 8 for k in (3, 1, 5, 3)]) for image in row]
        tiles += [image.resize((256, 256), Image.Resampling.NEAREST if image.width < 256 else Image.Resampling.BOX)
                  for image in row + parts]  # fmt: skip
    save("cascade", tiles, len(system.sizes), 256)
    return "; ".join(f"`{prompt}`, seed {seed}" for prompt, seed in LARGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", metavar="DIR", help="the corpus: remakes the picture of the probe as well")
    args = parser.parse_args()
    system = UnCLIP.from_pretrained(args.weights)
    judge = Judge.load(None, hub.locate(args.weights), system.device)

    def draw(lines: Sequence[str], **settings) -> list[Image.Image]:
        return system.generate(lines, **settings).images

    sections, judged = hundred(draw, judge)
    worst = [row for row in sorted(judged, key=lambda row: row[0]) if row[0] < 0][:WORST]
    save("failures", [image for *_, image in worst])
    page = PAGE.format(
        name=system.name, digest=system.digest, sections=sections, edits=EDITS, few=few(system, draw),
        priors=priors(system, draw), large=cascade(system, draw), few_captions=captions(FEW), worst=len(worst),
        named=sum(lead > 0 for lead, *_ in judged),
        failures="\n".join(f"| {line} | {other} |" for _, line, other, _ in worst),
    )  # fmt: skip
    make(system, args.data)
    write_bytes(ROOT / "docs/gallery.md", page.encode())


if __name__ == "__main__":
    main()
