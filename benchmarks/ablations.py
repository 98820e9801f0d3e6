"""What limits a stage of `mini`: one change at a time, each trained from nothing for as many views as the others.

    python benchmarks/ablations.py decoder --data corpus
    python benchmarks/ablations.py prior --data corpus --only "the recipe;AdamW"
    python benchmarks/ablations.py weights --data corpus

A row is a run of the loop behind `unclip train mini.STAGE` with the settings of COMMON, which make the stage small, and
those of one change; what comes before the stage is read from trained weights. Each is measured alike on held-out
pictures. `weights` trains nothing: it measures the decoder of the weights when part of what it is told is wrong or
missing, which tells the stages' errors apart, and at what scale it errs.

Rows go to RESULTS/ablations.json as they are done, and are not trained again when the command is repeated.
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
import torch.nn.functional as F
from measure import arguments, hardware, read, table
from torch import Tensor

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

SPLITS, TIMES = ("compose", "val"), (1000, 750, 500, 250, 100)
FITTED = 2048  # pictures that the regression of `of_clip` is fitted to
QUIET = "train.save_every=100000 train.sample_every=100000"
COMMON = {
    "decoder": "model.unet.channels=[48,64,96] model.unet.context=96 model.text.width=96 model.text.heads=3 "
    "model.text.depth=2 train.steps=400 train.batch=32 train.warmup=30 train.ema=0.98",
    "prior": "model.transformer.depth=3 train.steps=120 train.warmup=20 train.ema=0.98",
    "clip": "train.steps=80 train.warmup=20 train.ema=0.97",
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
        "batch 64, half the steps": "train.batch=64 train.steps=200 train.warmup=15",
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
        "batch 64": "train.batch=64 train.steps=160 train.warmup=40",
        "batch 256": "train.batch=256 train.steps=40 train.warmup=10",
        "all patches seen": "keep=1",
    },
}


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("stage", choices=[*CHANGES, "weights"])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a corpus")
    parser.add_argument("--weights", default="mini", help="what comes before the stage is read from these")
    parser.add_argument("--only", metavar="A;B", help="these changes alone")
    parser.add_argument("--pictures", type=int, default=128, metavar="N", help="of each held-out split")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path, start, changes = args.results / "ablations.json", hub.locate(args.weights), CHANGES.get(args.stage, {})
    about = {"hardware": hardware(), "weights": f"{args.weights} {hub.digest(start)}", "pictures": args.pictures,
             "common": COMMON.get(args.stage, "")}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)  # before anything is trained, not after
    results = json.loads(read(str(path)) or "{}")
    before = results.get(args.stage, {})
    rows = before["rows"] if about.items() <= before.items() else {}  # what was measured otherwise is not comparable
    results[args.stage] = {**about, "rows": rows}
    names = ("train", *SPLITS) if args.stage == "weights" else SPLITS
    splits = [Split.load(args.data, 64, name, limit=args.pictures) for name in names]
    if args.stage == "weights":
        system = UnCLIP.from_pretrained(start)
        rows |= separated(system, splits)
        results["scales"] = {**about, "rows": scales(system, splits)}
        write_json(path, results)
        print(listed(results["scales"]["rows"]))
    for name in args.only.split(";") if args.only else changes:
        if name not in rows:
            settings = shlex.split(f"{COMMON[args.stage]} {QUIET} {changes[name]}")
            rows[name] = {"set": changes[name]} | ablate(args.stage, settings, args.data, start, splits)
            write_json(path, results)
            print(name, rows[name], flush=True)
    print(listed(rows))


def listed(rows: dict[str, dict[str, float]]) -> str:
    heads = list(next(iter(rows.values())))
    return table(["", *heads], [[name, *(row[head] for head in heads)] for name, row in rows.items()])


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
    measures = {}
    for split in splits:
        z_i = system.embed(tensor(split.pictures))
        measures |= errors(system, split, z_i, split.captions, torch.zeros(len(z_i), dtype=torch.bool))
    split, noise = splits[0], Draw(splits[0].seeds(0), "decoder")
    made = system.decode(system.embed(tensor(split.pictures)), split.captions, "", noise, Settings(steps=12), quiet)
    judged = measure(split, to_pil(made), Judge.load(None, start))
    return measures | {"recall": judged["recall"]["caption"]["generated"]["value"],
                       "kernel distance": judged["distance"]["kernel"]["generated"]}  # fmt: skip


def errors(system: UnCLIP, split: Split, z_i: Tensor, lines: list[str], no_z_i: Tensor) -> dict[str, float]:
    """The squared error of x0 at each of TIMES when the decoder is told these z_i and captions, in one noise."""
    process, x0 = system.decoder.config.diffusion, tensor(split.pictures)
    denoise, levels, noise = process.denoiser(system.decoder), process.levels(), Draw(split.seeds(0), "ablation")(x0)
    given, found = system.condition(system.decoder, z_i, lines, no_z_i), {}
    for t in TIMES:
        x = mix((levels[t].alpha, x0), (levels[t].sigma, noise))
        estimate = denoise(x, levels[t], given=given).x0.clamp(-1, 1)
        found[f"{split.name} {t}"] = round((estimate - x0).square().mean().item(), 5)
    return found


@torch.inference_mode()
def separated(system: UnCLIP, splits: list[Split]) -> dict[str, dict[str, float]]:
    """The decoder's errors by what it is told: all that is true, part of it, or the prior's z_i for the true one."""
    rows: dict[str, dict[str, float]] = {}
    for split in splits:
        z_i, drawn = priors.true(system, split)[0], priors.draw(system, split, Settings(), 0, "diffusion")
        none, silent = torch.zeros(len(z_i), dtype=torch.bool), [""] * len(z_i)
        for name, told in {
            "true z_i and caption": (z_i, split.captions, none), "true z_i": (z_i, silent, none),
            "caption": (z_i, split.captions, ~none), "nothing": (z_i, silent, ~none),
            "the prior's z_i and caption": (drawn, split.captions, none),
        }.items():  # fmt: skip
            rows[name] = rows.get(name, {}) | errors(system, split, *told)
    return rows


@torch.inference_mode()
def scales(system: UnCLIP, splits: list[Split]) -> dict[str, dict[str, float]]:
    """By the size of what is seen: the variance of pictures about their mean, and the squared error of x0 from pure
    noise, the true z_i and the caption."""
    rows: dict[str, dict[str, float]] = {}
    for split in splits:
        x0, noise = tensor(split.pictures), Draw(split.seeds(0), "ablation")(system.shape(Settings()))
        z_i, none = system.embed(x0), torch.zeros(len(x0), dtype=torch.bool)
        given = system.condition(system.decoder, z_i, split.captions, none)
        process = system.decoder.config.diffusion
        told = process.denoiser(system.decoder)(noise, process.levels()[process.T], given=given).x0.clamp(-1, 1)
        for what, apart in (("variance", x0 - x0.mean(0)), ("error", told - x0)):
            for size, value in bands(apart).items():
                rows.setdefault(size, {})[f"{split.name} {what}"] = round(value, 5)
    return rows


def bands(x: Tensor) -> dict[str, float]:
    """The mean square of x [B, C, S, S], S divisible by 8, as a sum: of means over blocks of 8 × 8 pixels, and of what
    each smaller block adds."""
    coarser, squares = torch.zeros_like(x), {}
    for side in (8, 4, 2, 1):
        means = F.avg_pool2d(x, side).repeat_interleave(side, 2).repeat_interleave(side, 3)
        squares[f"{side} × {side}"] = (means - coarser).square().mean().item()
        coarser = means
    return squares


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
    corpus = Corpus.load(data, system.clip.config.image_size, "train", core=True, limit=FITTED)
    x0 = compose(corpus.images)
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
