"""Measured numbers as a table, and the drawn pictures under the real ones."""

from typing import Any

import torch
from PIL import Image

from unclip.evaluate.alignment import Split
from unclip.evaluate.judge import tensor
from unclip.pictures import grid

NOTES = """\
recall: how often the right caption is the judge's nearest; ± one standard error; ratio: generated over real.
distance: generated pictures from the real ones of the same captions. Without shared captions, every second picture
against the others: generated from real (halves) and real from real (floor). Fréchet distances of so few pictures are
too high, the more the fewer: compare a column with itself, or halves with floor. Neither is an FID or KID: those are
taken in the space of Inception, these in that of the judge."""


def table(results: dict[str, Any]) -> str:
    """What `unclip evaluate alignment` prints."""
    judge, weights = results["judge"], results["weights"]
    lines = [f"weights  {weights['name']}, {weights['digest']}"]
    lines += [f"judge    {judge['name']}, sha256 {judge['sha256'][:12]}"]
    lines += ["drawn    " + ", ".join(f"{k} {v}" for k, v in results["settings"].items()) + f", seed {results['seed']}"]
    lines += ["", f"{'recall@1':24}{'pictures':>8}{'generated':>16}{'real':>16}{'ratio':>16}{'chance':>10}"]
    for name, split in results["splits"].items():
        for asked, r in split["recall"].items():
            numbers = "".join(f"{percent(r[k]):>16}" for k in ("generated", "real"))
            quotient = "–" if r["ratio"] is None else f"{r['ratio']['value']:.3f} ± {r['ratio']['error']:.3f}"
            lines.append(f"{f'{name}, {asked}':24}{split['pictures']:8}{numbers}{quotient:>16}{r['chance']:10.1%}")
    lines += ["", f"{'distance':24}{'pictures':>8}{'generated':>18}{'halves':>18}{'floor':>18}"]
    for name, split in results["splits"].items():
        d = split["distance"]
        for kind in ("frechet", "kernel"):
            errors = d.get(f"{kind}_error", {})
            numbers = "".join(f"{distance(v, errors.get(k)):>18}" for k, v in d[kind].items())
            lines.append(f"{f'{name}, {kind}':24}{split['pictures']:8}{numbers}")
    return "\n".join([*lines, f"space    {judge['space']}", "", NOTES])


def percent(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} ± {share['error']:.1%}"


def distance(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.4f} ± {error:.4f}"


def sheet(split: Split, drawn: list[Image.Image], columns: int = 8, most: int = 64) -> tuple[Image.Image, str]:
    """Rows of real pictures, each with the row of drawn ones under it, and their captions, a line for each row."""
    n = min(most, len(drawn)) // columns * columns
    real, made, names = tensor(split.pictures[:n]), tensor(drawn[:n]), split.captions[:n]
    rows = [row for pair in zip(real.split(columns), made.split(columns), strict=True) for row in pair]
    listed = [" | ".join(names[i : i + columns]) + "\n" for i in range(0, n, columns)]
    return grid(torch.cat(rows), columns), "".join(listed)
