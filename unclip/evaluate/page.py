"""The lineage's numbers and pictures as one page, in Markdown and HTML."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.evaluate.lineage import CAPTIONS
from unclip.files import atomic, write_bytes, write_json
from unclip.pictures import grid

COLUMNS = {
    "system": ("system", "{}"), "models": ("what it models", "{}"), "size": ("px", "{}"),
    "parameters": ("parameters", "{:,}"), "training": ("training, s", "{:.0f}"), "sampling": ("sampling, s", "{:.2f}"),
    "calls": ("network calls", "{}"), "frechet": ("Fréchet", "{:.2f}"), "kernel": ("kernel", "{:.3f}"),
    "precision": ("precision", "{:.2f}"), "recall": ("recall", "{:.2f}"), "alignment": ("recall@1", "{:.1%}"),
    "spread": ("spread", "{:.2f}"),
    "bits": ("bits/dim", "{:.2f}"), "error": ("error", "{:.4f}"), "probe_group": ("probe: group", "{:.1%}"),
    "probe_style": ("probe: style", "{:.1%}"), "kl": ("KL, nats", "{:.1f}"), "perplexity": ("perplexity", "{:.0f}"),
    "perplexity_top": ("of the top", "{:.0f}"),
}  # fmt: skip
NOTES = """\
Fréchet and kernel distances are taken in the space of {space}; they are no FID and KID, and of so few pictures
too high: compare a column with itself. precision and recall: k-nearest neighbours in the same space, fidelity and
diversity. recall@1: how often the judge finds the caption among 32. spread: how far apart two pictures of one caption
are, to those of two captions: 0 if a caption has but one picture, 1 if it does not count. bits/dim: of Image-GPT and
PixelCNN for pictures of their palette, of diffusion a bound, of VQ-VAE a bound with a normal density. error: mean
squared error of what is reconstructed, [−1, 1]. probe: how often a linear map of the features names the emoji group of
a picture, or its style; of real pictures it is given the pixels. KL: of the code from its prior. perplexity: how many
codes of the book are in use, to its number of codes. sampling: for one picture. {pictures} held-out pictures."""

CURVE = "ADM's classifier: what its scale gives in fidelity and takes in diversity."


def write(rows: Sequence[dict[str, Any]], sheets: Sequence[Tensor], about: dict[str, Any], out: Path) -> list[str]:
    """OUT/lineage.png, report.md, index.html, results.json, and plots where matplotlib is there to draw them: their
    names."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "lineage.png") as path:
        grid(torch.cat(list(sheets)), columns=len(CAPTIONS)).save(path, "PNG")
    plots = plot(rows, about.get("guidance", []), out)
    captions = " · ".join(CAPTIONS)
    order = ", ".join(row["system"] for row in rows)
    notes = NOTES.format(space=about["space"], pictures=about["pictures"])
    tables = [([title for title, _ in COLUMNS.values()], [cells(row) for row in rows])]
    if guidance := about.get("guidance"):
        tables.append((list(guidance[0]), [[f"{value:.3g}" for value in row.values()] for row in guidance]))
    parts = ["# The lineage of DALL·E 2, measured", bars(*tables[0]), notes, f"Rows: {order}. Columns: {captions}.",
             "![each system's eight pictures](lineage.png)", *(f"![{name}]({name})" for name in plots),
             *(part for table in tables[1:] for part in (CURVE, bars(*table)))]  # fmt: skip
    write_bytes(out / "report.md", ("\n\n".join(parts) + "\n").encode())
    write_bytes(out / "index.html", page(tables, notes, order, captions, plots).encode())
    write_json(out / "results.json", {"rows": list(rows), **about})
    return plots


def cells(row: dict[str, Any]) -> list[str]:
    return ["–" if row.get(name) is None else form.format(row[name]) for name, (_, form) in COLUMNS.items()]


def bars(head: list[str], body: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = (head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in line] for line in body))
    return "\n".join("|" + "|".join(line) + "|" for line in lines)  # p(x | z) has a bar of its own


def boxes(head: list[str], body: list[list[str]]) -> str:
    """A table in HTML."""
    lines = [("th", head), *(("td", line) for line in body)]
    rows = ("".join(f"<{tag}>{html.escape(v)}</{tag}>" for v in values) for tag, values in lines)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def page(tables: Sequence[tuple[list[str], list[list[str]]]], notes: str, order: str, captions: str,
         plots: Sequence[str]) -> str:  # fmt: skip
    pictures = "".join(f'<p><img src="{name}" alt="{name}"></p>' for name in ["lineage.png", *plots])
    more = "".join(f"<p>{html.escape(CURVE)}</p>{boxes(*table)}" for table in tables[1:])
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>The lineage of DALL·E 2</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em}}
table{{border-collapse:collapse}}td,th{{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}}
img{{max-width:100%}}</style>
<h1>The lineage of DALL·E 2, measured</h1>
{boxes(*tables[0])}
<p>{html.escape(notes)}</p><p>Rows: {html.escape(order)}. Columns: {html.escape(captions)}.</p>{pictures}{more}</html>
"""


def plot(rows: Sequence[dict[str, Any]], guidance: Sequence[dict[str, float]], out: Path) -> list[str]:
    """Fidelity against diversity of every system, and of ADM as its classifier's scale grows; their file names."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:  # the `report` extra; the page does without
        return []
    kinds = {"systems.png": [(r["recall"], r["precision"], r["system"]) for r in rows if "recall" in r],
             "guidance.png": [(r["recall"], r["precision"], f"{r['scale']:g}") for r in guidance]}  # fmt: skip
    made = []
    for name, points in kinds.items():
        if not points:
            continue
        figure = Figure(figsize=(6, 4.5), layout="tight")
        axes = figure.subplots()
        x, y, labels = zip(*points, strict=True)
        axes.plot(x, y, "o-" if name == "guidance.png" else "o")
        for point in zip(labels, zip(x, y, strict=True), strict=True):
            axes.annotate(*point, xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel("recall (diversity)")
        axes.set_ylabel("precision (fidelity)")
        with atomic(out / name) as path:
            figure.savefig(path, dpi=110, format="png")
        made.append(name)
    return made
