"""Training to a budget of time: as many steps as fit, with the rate falling to zero over the last of them.

On a CPU it is the processor's time, that of all threads together: what else the machine does takes nothing from a
system, so that systems trained one after the other had the same. An accelerator's time is that of the clock.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from unclip.errors import UnclipError
from unclip.files import write_json
from unclip.train.loop import train
from unclip.train.recipe import Recipe
from unclip.train.stages.lineage import corpus, unseen
from unclip.train.state import checkpoints

TIMES = "times.json"  # of a run: what each system took
PLAN = "plan.json"  # of a stage: how many steps fit
PROBE = 0.2  # share of the time that shows how many steps fit
LEAST = 20  # steps; fewer draw nothing but noise


def clock(device: torch.device) -> Callable[[], float]:
    """What tells the seconds that a budget is spent in."""
    return time.process_time if device.type == "cpu" else time.monotonic


def within(recipe: Recipe, data: Path, out: Path, device: torch.device, minutes: float) -> int:
    """Train one stage for about `minutes`; the number of steps that made. Raises UnclipError when they are too few."""
    endless = replace(recipe, train=replace(recipe.train, steps=10**9))
    plan = out / recipe.name / PLAN
    if not plan.exists():
        before = reached(plan.parent)  # above 0 when this was interrupted before
        train(endless, data, out, device, PROBE * minutes, clock=clock(device))
        fit = round((reached(plan.parent) - before) / PROBE)
        if fit < LEAST:
            raise UnclipError(
                f"{recipe.name}: {minutes:.3g} minutes give {fit} steps on this machine, too few for a first sample; "
                f"use a longer --budget", code=1,
            )  # fmt: skip
        write_json(plan, {"steps": before + fit})
    steps = json.loads(plan.read_text())["steps"]
    train(replace(recipe, train=replace(recipe.train, steps=steps)), data, out, device, minutes, clock=clock(device))
    return reached(out / recipe.name)


def reached(folder: Path) -> int:
    """Steps of the newest checkpoint."""
    return next((int(path.name.removeprefix("step-")) for path in checkpoints(folder)), 0)


def system(
    name: str, stages: dict[Callable[[], Recipe], float], data: Path, out: Path, device: torch.device, minutes: float
) -> None:
    """Train the stages of a system, each in its share of the time; what they took is kept in OUT/times.json."""
    settings = next(iter(stages))().data
    for read in (corpus, unseen):  # which is no part of the budget
        read(data, settings)
    now = clock(device)
    taken, began = {}, now()
    for make, share in stages.items():
        recipe = make()
        taken[recipe.name] = within(recipe, data, out, device, share * minutes)
    noted = {"seconds": now() - began, "budget": 60 * minutes, "steps": taken}
    write_json(out / TIMES, {**times(out), name: noted})


def times(out: Path) -> dict:
    path = out / TIMES
    return json.loads(path.read_text()) if path.exists() else {}
