"""The loop that trains every stage: `train(recipe, data, out)`; the same call again resumes."""

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unclip.data.images import generator
from unclip.errors import UnclipError
from unclip.files import atomic, writing
from unclip.machine import best_device, keep_buffers, native_bfloat16
from unclip.train.distributed import Team
from unclip.train.log import Log, progress, say
from unclip.train.optim import EMA, rate
from unclip.train.recipe import Recipe, Stage
from unclip.train.state import State, checkpoints, newest_good
from unclip.weights import hub
from unclip.weights.config import to_dict


class Stop:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the step under way; a second Ctrl-C stops at once."""

    def __enter__(self) -> "Stop":
        self.asked = False
        self.before = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def train(recipe: Recipe, data: Path, out: Path, device: torch.device | None = None, minutes: float = math.inf,
          start: Path | None = None, clock: Callable[[], float] = time.monotonic) -> bool:  # fmt: skip
    """Train one stage on the shards in `data`, in OUT/NAME; its averaged weights go to OUT/model. True when done.

    start: a folder of weights. Parts that OUT/model lacks are copied there, and the stage begins with its own.
    Under torchrun the processes share each batch. Stops early, with everything saved, after `minutes` by `clock`; on
    SIGTERM and Ctrl-C it does too, and raises KeyboardInterrupt. Raises UnclipError on bad settings or data, and when
    the loss is no longer finite.
    """
    device = device or best_device()
    keep_buffers()
    config, folder, began = recipe.train, out / recipe.name, clock()
    team = Team.assemble(device)
    share = team.share(config.batch)
    with writing(folder):
        (folder / "samples").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    if not team.leads:
        team.wait()  # the first process makes what a stage may make, such as the tokenizer
    if start and team.leads:
        hub.adopt(start, out / "model")
    stage = recipe.stage(data, out / "model", device)
    begun = start is not None and (start / recipe.name).is_dir()
    if start and begun:
        stage.begin(start)
    stage.adapt(begun)
    if team.leads:
        team.wait()
    ema = EMA(stage.net, config.ema)
    state = State(stage.net, ema, stage.optimiser())
    identity = fingerprint(recipe) | {"from": start and hub.digest(start)}
    checkpoint = newest_good(folder, identity, say)
    if checkpoint:
        state.restore(checkpoint, device)
        if team.leads:
            say(f"{recipe.name}: resuming at step {state.step} of {config.steps}")
    objective = team.objective(stage)
    log, losses, seen = Log(folder / "log.jsonl", state.step, team.leads), [], time.monotonic()
    saved = state.step if checkpoint else None
    bfloat = config.precision == "bf16" or (config.precision == "auto" and native_bfloat16(device))

    def save() -> None:
        nonlocal saved
        settle(losses, stage, config, folder)
        if team.leads:
            notes = {"step": str(state.step), "recipe": json.dumps(identity)}
            stage.export(ema.net, out / "model", notes)
            stage.export_adapter(ema.net, out, notes)
            state.save(folder, identity)
        saved = state.step
        team.wait()

    def over() -> bool:
        return team.any(stop.asked or clock() - began >= 60 * minutes, device)

    with Stop() as stop, progress(recipe.name, state.step, config.steps, team.leads) as bar:
        while state.step < config.steps and not over():
            step = state.step
            torch.manual_seed(generator(config.seed, team.stream(f"step {step}")).initial_seed())  # dropout
            height = rate(step, config.steps, config.warmup, config.decay)
            for group in state.optimiser.param_groups:
                group["lr"] = config.lr * height
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat):
                loss = objective(stage.batch(step, share), generator(config.seed, team.stream(f"noise {step}")))
            loss.backward()
            nn.utils.clip_grad_norm_(stage.net.parameters(), config.clip)
            losses.append((step, loss.detach()))
            if device.type == "cpu" or len(losses) >= config.log_every:
                check(losses, stage, config, folder)  # before the weights take the step, where waiting is free
            state.optimiser.step()
            state.optimiser.zero_grad(set_to_none=True)
            ema.update(stage.net, step)
            state.step += 1
            bar.update()
            if state.step % config.log_every == 0:
                mean, speed = settle(losses, stage, config, folder), config.log_every * config.batch
                speed, seen = speed / (time.monotonic() - seen), time.monotonic()
                log(state.step, loss=mean, lr=config.lr * height, images_per_second=speed)
                bar.set_postfix_str(f"loss {mean:.4f}, {speed:.1f} images/s")
            if team.leads and (state.step % config.sample_every == 0 or state.step == config.steps):
                picture, measures = stage.preview(ema.net)
                log(state.step, **measures)
                say(f"{recipe.name} {state.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in measures.items()))
                if picture:
                    with atomic(folder / "samples" / f"{state.step:08d}.png") as path:
                        picture.save(path, "PNG")
            if state.step % config.save_every == 0 and state.step < config.steps:
                save()
    if saved != state.step:
        save()
    if team.any(stop.asked, device):
        if team.leads:
            say(f"{recipe.name}: stopped at step {state.step} of {config.steps}; repeat the command to go on")
        raise KeyboardInterrupt
    return state.step >= config.steps


def fingerprint(recipe: Recipe) -> dict:
    """The settings that make a run what it is; its length, and how often it saves and speaks, may change."""
    settings = json.loads(json.dumps(to_dict(recipe)))
    for name in ("steps", "save_every", "sample_every", "log_every"):
        del settings["train"][name]
    return settings


def check(losses: list[tuple[int, Tensor]], stage: Stage, config, folder: Path) -> list[float]:
    """The pending losses as numbers; the first that is not finite ends the run, and no checkpoint is written."""
    values = torch.stack([loss for _, loss in losses]).tolist() if losses else []
    for (step, _), value in zip(losses, values, strict=True):
        if not math.isfinite(value):
            keys = ", ".join(stage.corpus.keys(stage.corpus.rows(step, config.batch, config.seed).tolist()))
            good = next(iter(checkpoints(folder)), "none yet")
            raise UnclipError(f"the loss is {value} at step {step}; batch: {keys}; last good: {good}", code=1)
    return values


def settle(losses: list[tuple[int, Tensor]], stage: Stage, config, folder: Path) -> float:
    """The mean of the pending losses, which are then forgotten."""
    values = check(losses, stage, config, folder)
    losses.clear()
    return sum(values) / len(values) if values else math.nan
