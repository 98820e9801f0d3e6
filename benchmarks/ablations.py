"""What limits a stage of `mini`: one change at a time, each trained from nothing for as many views as the others.

    python benchmarks/ablations.py decoder --data corpus
    python benchmarks/ablations.py prior --data corpus --only "the recipe;AdamW"

A row is a run of the loop behind `unclip train mini.STAGE` with the settings of COMMON, which make the stage small, and
those of one change; what comes before the stage is read from trained weights. Each is measured alike on held-out
pictures. Rows go to RESULTS/ablations.json as they are done, and are not trained again when the command is repeated.
"""

import json
import shlex
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from measure import arguments, hardware, read, table

from unclip.cli.train import assignment, changed, find
from unclip.data.images import Corpus, compose
from unclip.diffusion.draw import Draw
from unclip.diffusion.levels import mix
from unclip.evaluate import prior as priors
from unclip.evaluate.alignment import Split, measure
from unclip.evaluate.judge import Judge, tensor
from unclip.files import write_json
from unclip.models.clip import thumbnail
from unclip.pictures import to_pil
from unclip.pipeline import UnCLIP
from unclip.settings import Settings
from unclip.train.loop import train
from unclip.train.recipe import Recipe
from unclip.weights import hub

SPLITS, PICTURES, TIMES = ("compose", "val"), 128, (1000, 750, 500, 250, 100)
FITTED = 2048  # pictures that the regression of `of_clip` is fitted to
QUIET = "train.save_every=100000 train.sample_every=100000"
COMMON = {
    "decoder": "model.unet.channels=[48,64,96] model.unet.context=96 model.text.width=96 model.text.heads=3 "
    "model.text.depth=2 train.steps=320 train.batch=32 train.warmup=50 train.ema=0.99",
    "prior": "model.transformer.depth=3 train.steps=240 train.warmup=40 train.ema=0.99",
    "clip": "train.steps=130 train.warmup=30 train.ema=0.98",
}
CHANGES = {
    "decoder": {
        "the recipe": "",
        "the recipe, seed 1": "train.seed=1",
        "predicts v, uniform weight": "model.diffusion.predicts=v model.diffusion.cap=0",
        "predicts eps, uniform weight": "model.diffusion.predicts=eps model.diffusion.cap=0",
        "weight uniform on x0": "model.diffusion.cap=0",
        "weight capped at 20": "model.diffusion.cap=20",
        "AdamW": "train.optimiser=adamw",
        "no map of z_i": "model.unet.layout=0",
        "levels T·u^0.6, later": "late=0.6",
        "attention at 8 and 4 of 16, 8, 4": "model.unet.attention=[2]",
        "patch 2": "model.unet.patch=2",
        "captions left out 0.1": "drop_text=0.1",
        "weight min-SNR 5": "model.diffusion.cap=0 model.diffusion.snr=5",
        "variance small, not learned": "model.diffusion.variance=small model.unet.out_channels=3",
        "batch 64, half the steps": "train.batch=64 train.steps=160 train.warmup=25",
        "z_i never left out": "drop_z=0",
    },
    "prior": {
        "the recipe": "",
        "the recipe, seed 1": "train.seed=1",
        "not whitened": "model.whiten=0",
        "whitened wholly": "model.whiten=1",
        "AdamW": "train.optimiser=adamw train.lr=8e-4",
        "levels uniform": "late=1",
        "one noised z_i a caption": "repeats=1",
        "predicts v": "model.diffusion.predicts=v",
    },
    "clip": {
        "the recipe": "",
        "no sketch": "model.sketch=0",
        "batch 64": "train.batch=64 train.steps=260 train.warmup=60",
        "batch 256": "train.batch=256 train.steps=65 train.warmup=15",
        "all patches seen": "keep=1",
    },
}


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("stage", choices=list(CHANGES))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a corpus")
    parser.add_argument("--weights", default="mini", help="what comes before the stage is read from these")
    parser.add_argument("--only", metavar="A;B", help="these changes alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path, start, changes = args.results / "ablations.json", hub.locate(args.weights), CHANGES[args.stage]
    results = json.loads(read(str(path)) or "{}")
    rows = results.setdefault(args.stage, {"hardware": hardware(), "common": COMMON[args.stage], "rows": {}})["rows"]
    splits = [Split.load(args.data, 64, name, limit=PICTURES) for name in SPLITS]
    for name in args.only.split(";") if args.only else changes:
        if name not in rows:
            settings = shlex.split(f"{COMMON[args.stage]} {QUIET} {changes[name]}")
            rows[name] = {"set": changes[name]} | ablate(args.stage, settings, args.data, start, splits)
            write_json(path, results)
            print(name, rows[name], flush=True)
    heads = list(next(iter(rows.values())))
    print(table(["change", *heads], [[name, *(row[head] for head in heads)] for name, row in rows.items()]))


def ablate(stage: str, settings: list[str], data: Path, start: Path, splits: list[Split]) -> dict[str, float]:
    """Train a stage of `mini` with these settings, and measure what it is with its averaged weights."""
    recipes = find(f"mini.{stage}")
    for text in settings:
        recipes = changed(recipes, *assignment(text))
    recipe = recipes[stage]
    with tempfile.TemporaryDirectory() as out:
        model = Path(out) / "model"
        hub.adopt(start, model)
        seconds = timed(recipe, data, Path(out))
        system = UnCLIP.from_pretrained(model)
    with torch.inference_mode():
        measures = MEASURES[stage](system, splits, data, start)
    size = sum(p.numel() for p in getattr(system, stage).parameters())
    cost = {"views": recipe.train.steps * recipe.train.batch, "seconds": round(seconds, 1), "parameters": size}
    return cost | {name: round(value, 5) for name, value in measures.items()}


def timed(recipe: Recipe, data: Path, out: Path) -> float:
    """Train; processor seconds of all steps by the median step, so that loading and previews do not count."""
    ticks: list[float] = []

    def clock() -> float:  # which the loop looks at before each step
        ticks.append(time.process_time())
        return 0.0

    train(recipe, data, out, torch.device("cpu"), clock=clock)
    return recipe.train.steps * median(b - a for a, b in pairwise(ticks[1:]))


def of_decoder(system: UnCLIP, splits: list[Split], data: Path, start: Path) -> dict[str, float]:
    """The squared error of x0 at some t, given the true z_i and the caption; and what the judge says of pictures of
    `compose` drawn from these in 12 steps."""
    process, measures = system.decoder.config.diffusion, {}
    denoise, levels = process.denoiser(system.decoder), process.levels()
    for split in splits:
        x0 = tensor(split.pictures)
        z_i, noise = system.embed(x0), Draw(split.seeds(0), "ablation").like(x0)
        given = system.condition(system.decoder, z_i, split.captions, torch.zeros(len(x0), dtype=torch.bool))
        for t in TIMES:
            x = mix((levels[t].alpha, x0), (levels[t].sigma, noise))
            estimate = denoise(x, levels[t], given=given).x0.clamp(-1, 1)
            measures[f"{split.name} {t}"] = (estimate - x0).square().mean().item()
    split, noise = splits[0], Draw(splits[0].seeds(0), "decoder")
    made = system.decode(system.embed(tensor(split.pictures)), split.captions, "", noise, Settings(steps=12), quiet)
    judged = measure(split, to_pil(made), Judge.load(None, start))
    return measures | {"recall": judged["recall"]["caption"]["generated"]["value"],
                       "kernel distance": judged["distance"]["kernel"]["generated"]}  # fmt: skip


def of_prior(system: UnCLIP, splits: list[Split], data: Path, start: Path) -> dict[str, float]:
    """How near the z_i drawn for captions are to those of the pictures: the cosine; the squared error in coordinates
    that are always those of the prior in `start`, variance 1; and the recall of the true z_i of 32."""
    space, measures = UnCLIP.from_pretrained(start).prior.space, {}
    for split in splits:
        z_i, z_t = priors.true(system, split)
        z = priors.draw(system, split, Settings(prior_steps=16, best_of=1), 0, "diffusion")
        told = priors.compare(z, z_i, z_t, split.many)
        measures |= {f"{split.name} cos z_i": told["cos_z_i"]["mean"], f"{split.name} cos z_t": told["cos_z_t"],
                     f"{split.name} error": (space.enter(z) - space.enter(z_i)).square().mean().item(),
                     f"{split.name} recall": told["recall"]["value"]}  # fmt: skip
    return measures


def of_clip(system: UnCLIP, splits: list[Split], data: Path, start: Path) -> dict[str, float]:
    """recall@1 of a picture's caption among 32; and the squared error of a ridge regression from z_i to a thumbnail of
    16 × 16, fitted to pictures of `train`: what z_i says of where things are."""
    train = Corpus.load(data, system.clip.config.image_size, "train", core=True, limit=FITTED)
    x0 = compose(train.images)
    ones = torch.ones(len(x0), 1)
    z_i = torch.cat([torch.cat([system.embed(part) for part in x0.split(256)]), ones], 1)
    line = torch.linalg.solve(z_i.T @ z_i + 0.1 * torch.eye(z_i.shape[1]), z_i.T @ thumbnail(x0, 16))
    measures = {}
    for split in splits:
        z_i, z_t = priors.true(system, split)
        right = [(a @ b.T).argmax(1) == torch.arange(len(a))
                 for a, b in zip(z_i.split(split.many), z_t.split(split.many), strict=True)]  # fmt: skip
        told = torch.cat([z_i, ones[: len(z_i)]], 1) @ line
        error = told - thumbnail(tensor(split.pictures), 16)
        measures |= {f"{split.name} recall": torch.cat(right).float().mean().item(),
                     f"{split.name} thumbnail": error.square().mean().item()}  # fmt: skip
    return measures


def quiet(*step: object) -> None:
    pass


MEASURES: dict[str, Callable[[UnCLIP, list[Split], Path, Path], dict[str, float]]] = {
    "decoder": of_decoder, "prior": of_prior, "clip": of_clip,
}  # fmt: skip

if __name__ == "__main__":
    main()
