"""The loop that trains every stage: `train(recipe, data, out)`; the same call again resumes."""

import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from unclip.train.recipe import Recipe, Stage, TrainConfig
from unclip.train.state import State, checkpoints, newest_good
from unclip.weights import hub
from unclip.weights.config import to_dict

FAR = 100  # times the loss that a run began with: whoever is there has diverged


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
    the loss is no longer finite, or beyond all measure.
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
    log, losses = Log(folder / "log.jsonl", state.step, team.leads), Losses(stage, config, folder)
    seen = time.monotonic()
    saved = state.step if checkpoint else None
    bfloat = config.precision == "bf16" or (config.precision == "auto" and native_bfloat16(device))

    def save() -> None:
        nonlocal saved
        losses.settle()
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
            losses.pending.append((step, loss.detach()))
            if device.type == "cpu" or len(losses.pending) >= config.log_every:
                losses.check()  # before the weights take the step, where waiting is free
            state.optimiser.step()
            state.optimiser.zero_grad(set_to_none=True)
            ema.update(stage.net, step)
            state.step += 1
            bar.update()
            if state.step % config.log_every == 0:
                mean, speed = losses.settle(), config.log_every * config.batch
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


@dataclass
class Losses:
    """The losses since the last line of the log, and the end of a run that diverges."""

    stage: Stage
    config: TrainConfig
    folder: Path
    pending: list[tuple[int, Tensor]] = field(default_factory=list)
    first: float | None = None  # the mean of the first line
    wild: int = 0  # lines far above it, one after the other

    def check(self) -> list[float]:
        """As numbers; the first that is not finite ends the run, and no checkpoint is written."""
        values = torch.stack([loss for _, loss in self.pending]).tolist() if self.pending else []
        for (step, _), value in zip(self.pending, values, strict=True):
            if not math.isfinite(value):
                raise self.diverged(value, step)
        return values

    def settle(self) -> float:
        """The mean of the pending losses, which are then forgotten. A spike may pass; two lines far above the first
        end the run: where that is reached nothing comes back."""
        values, step = self.check(), self.pending[-1][0] if self.pending else 0
        self.pending.clear()
        if not values:
            return math.nan
        mean = sum(values) / len(values)
        self.first = mean if self.first is None else self.first
        self.wild = self.wild + 1 if mean > FAR * max(1.0, abs(self.first)) else 0
        if self.wild == 2:
            raise self.diverged(mean, step)
        return mean

    def diverged(self, value: float, step: int) -> UnclipError:
        rows = self.stage.corpus.rows(step, self.config.batch, self.config.seed).tolist()
        good = next(iter(checkpoints(self.folder)), "none yet")
        return UnclipError(
            f"the loss is {value:.4g} at step {step}; batch: {', '.join(self.stage.corpus.keys(rows))}; last good: "
            f"{good}; a rate below {self.config.lr:g} may hold (train.lr)", code=1,
        )  # fmt: skip
