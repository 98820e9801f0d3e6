"""Priors side by side: how near the z_i that each draws is to the true one, beside z_t taken for it; and how well the
judge names the pictures that are decoded from them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.evaluate.alignment import Split, measure, share
from unclip.evaluate.judge import Judge, tensor
from unclip.evaluate.report import percent
from unclip.pictures import to_pil
from unclip.pipeline import UnCLIP
from unclip.settings import CHOICES, Settings
from unclip.weights import hub
from unclip.weights.checkpoint import WEIGHTS, read_tensors, save_module

BATCH = 32
LEVELS = 12  # of the stored variance
NOTES = """\
cos z_i: cosine of the drawn z_i to that of the real picture, mean ± deviation over pictures, and its tenth, half and
nine tenths; cos z_t: to the caption's. recall: how often the real picture's z_i is, of 32, the nearest to the drawn
one; ± one standard error. steps, seconds: network calls, and seconds of a caption on this machine, in batches. true:
that of the real picture itself. none: the caption's z_t taken for z_i."""
JUDGED = "judge: how often it finds the caption, of 32, of the picture decoded from z_i."


@torch.inference_mode()
def prior(
    system: UnCLIP,
    data: str | Path,
    settings: Settings,
    *,
    splits: Sequence[str] = ("val", "compose"),
    limit: int | None = None,
    seed: int = 0,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Measure every prior that the weights hold on the held-out captions of a corpus: what `table` prints.

    judge: names pictures too, decoded from each z_i and from the true one with the same noise.
    """
    names = [name for name in CHOICES["prior"] if name != "ar" or system.prior_ar]
    results: dict[str, Any] = {"weights": {"name": system.name, "digest": system.digest}, "seed": seed, "splits": {}}
    results["settings"] = {name: getattr(settings, name) for name in ("prior_guidance", "prior_sampler", "best_of",
                                                                      "temperature", "top_p")}  # fmt: skip
    for split in (Split.load(Path(data), system.decoder.config.size, name, limit=limit) for name in splits):
        z_i, z_t = true(system, split)
        rows = {"true": compare(z_i, z_i, z_t, split.many) | {"steps": 0, "seconds": 0.0}}
        drawn = {"true": z_i}
        for name in names:
            s = replace(settings, prior=name)
            began = time.perf_counter()
            drawn[name] = z = draw(system, split, s, seed, name)
            seconds = (time.perf_counter() - began) / len(z)
            rows[name] = compare(z, z_i, z_t, split.many) | {"steps": system.prior_calls(s), "seconds": seconds}
        for name, z in drawn.items() if judge else ():
            assert judge is not None
            rows[name]["judge"] = named(system, split, z, settings, seed, judge, name)
        results["splits"][split.name] = {"pictures": len(split.captions), "priors": rows}
    return results


def true(system: UnCLIP, split: Split) -> tuple[Tensor, Tensor]:
    """z_i of the real pictures and z_t of their captions, each [N, D]."""
    z_i = [system.embed(part.to(system.device)) for part in tensor(split.pictures).split(BATCH)]
    z_t = [system.read(split.captions[i : i + BATCH])[2] for i in range(0, len(split.captions), BATCH)]
    return torch.cat(z_i), torch.cat(z_t)


def draw(system: UnCLIP, split: Split, s: Settings, seed: int, name: str) -> Tensor:
    """A unit z_i for each caption, [N, D]."""
    seeds, drawn = split.seeds(seed), []
    for i in tqdm(range(0, len(seeds), BATCH), desc=f"{name} for {split.name}", leave=False):
        noise = Draw(seeds[i : i + BATCH], "prior")
        drawn.append(system.sample_prior(split.captions[i : i + BATCH], "", noise, s, lambda *step: None))
    return torch.cat(drawn)


def named(system: UnCLIP, split: Split, z: Tensor, s: Settings, seed: int, judge: Judge, name: str) -> dict[str, float]:
    """How often the judge finds the caption of what the decoder makes of z [N, D]."""
    seeds, made = split.seeds(seed), []
    for i in tqdm(range(0, len(seeds), BATCH), desc=f"pictures of {name} for {split.name}", leave=False):
        noise, lines = Draw(seeds[i : i + BATCH], "decoder"), split.captions[i : i + BATCH]
        made += to_pil(system.decode(z[i : i + BATCH], lines, "", noise, s, lambda *step: None))
    return measure(split, made, judge)["recall"]["caption"]["generated"]


def compare(z: Tensor, z_i: Tensor, z_t: Tensor, many: int) -> dict[str, Any]:
    """Unit vectors [N, D] each: the numbers of one prior. Recall is within groups of `many`."""
    own = (z * z_i).sum(1).double()
    tenths = own.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=own.dtype, device=own.device)).tolist()
    right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
             for a, b in zip(z.split(many), z_i.split(many), strict=True)]  # fmt: skip
    return {
        "cos_z_i": {"mean": own.mean().item(), "deviation": own.std().item(), "tenths": tenths},
        "cos_z_t": (z * z_t).sum(1).mean().item(),
        "recall": share(torch.cat(right)),
    }


def table(results: dict[str, Any]) -> str:
    """What `unclip evaluate prior` prints: one table in Markdown."""
    weights, rows = results["weights"], []
    for name, split in results["splits"].items():
        for which, r in split["priors"].items():
            cos, judged = r["cos_z_i"], [percent(r["judge"])] if "judge" in r else []
            rows.append([
                f"{name}, {which}", str(split["pictures"]), f"{cos['mean']:.3f} ± {cos['deviation']:.3f}",
                " ".join(f"{v:.2f}" for v in cos["tenths"]), f"{r['cos_z_t']:.3f}", percent(r["recall"]), *judged,
                str(r["steps"]), f"{r['seconds']:.3f}",
            ])  # fmt: skip
    head = ["prior", "pictures", "cos z_i", "10% 50% 90%", "cos z_t", "recall", "judge", "steps", "seconds"]
    head = head if len(rows[0]) == len(head) else [h for h in head if h != "judge"]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    cells = [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in (head, *rows)]
    cells.insert(1, ["-" * w for w in widths])
    about = [f"weights  {weights['name']}, {weights['digest']}",
             "drawn    " + ", ".join(f"{k} {v}" for k, v in results["settings"].items())]  # fmt: skip
    notes = [NOTES, JUDGED] if "judge" in head else [NOTES]
    return "\n".join([*about, "", *(f"| {' | '.join(row)} |" for row in cells), "", *notes])


@torch.inference_mode()
def store_variance(system: UnCLIP, folder: Path, data: str | Path, limit: int = 256) -> None:
    """Measure what the sampler `analytic` needs, on held-out captions, and write it beside the prior's weights."""
    if folder.parent == hub.SHIPPED:
        raise UnclipError(f"{folder.name!r} is part of the package; copy the folder and name the copy")
    config, parts = system.prior.config, []
    for name in ("val", "compose"):
        split = Split.load(Path(data), system.decoder.config.size, name, limit=limit)
        seen, text, z_t = system.read(split.captions)
        drop = torch.zeros(len(seen), dtype=torch.bool, device=system.device)
        given = system.prior.condition(text, z_t, seen, drop)
        parts.append(system.prior.measure(true(system, split)[0], given, LEVELS))
    tensors, notes = read_tensors(folder / "prior" / WEIGHTS)
    tensors["error"] = torch.stack(parts).mean(0).to(tensors["position"])
    notes = {k: v for k, v in notes.items() if k not in ("format", "config")}
    save_module(folder / "prior", replace(config, measured=LEVELS), tensors, tensors["position"].dtype, notes)
    hub.write_index(folder, system.name)
