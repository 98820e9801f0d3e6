"""Few calls of the network: each teacher, and its few-step student if the weights hold one, on held-out pictures.

    python benchmarks/fewsteps.py --weights mini --data corpus
    python benchmarks/fewsteps.py --weights mini --data corpus --limit 256 --split val

Of the decoder: recall@1 among 32 captions by the judge, and its ratio to that of the teacher in 25 steps. Of the first
upsampler, given the real pictures at 64 px: the squared error at 256 px of numbers from -1 to 1, and how strong edges
are beside the real ones, since a blur errs little. Seconds are of one picture.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import arguments, report, table
from torch import Tensor

from unclip.diffusion.draw import Draw
from unclip.evaluate.alignment import MANY, Split
from unclip.evaluate.judge import Judge, tensor
from unclip.evaluate.run import alignment
from unclip.pipeline import UnCLIP
from unclip.settings import Settings
from unclip.weights import hub

FULL = 25


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--split", default="compose")
    parser.add_argument("--limit", type=int, default=96, metavar="N", help="pictures a row (default 96)")
    parser.add_argument("--calls", default="1,2,4,8", metavar="A,B")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system = UnCLIP.from_pretrained(args.weights)
    judge = Judge.load(None, hub.locate(args.weights), system.device)
    calls = [int(n) for n in args.calls.split(",")]
    parts = [f"{system.name} {system.digest}, {args.limit} captions of {args.split}."]
    rows = judged(system, judge, args.data, args.split, args.limit, calls)
    head = ["64 px by", "calls", "recall@1", "ratio to teacher's 25", "kernel distance", "seconds"]
    parts.append(table(head, rows))
    if system.upsampler:
        head = ["256 px by", "calls", "squared error", "edges, real ones 1", "seconds"]
        parts.append(table(head, enlarged(system, args.data, args.split, calls)))
    report(args.results, "few steps", *parts)


def variants(system: UnCLIP, student: str, calls: Sequence[int]) -> list[tuple[str, int]]:
    """The teacher in 25 steps and in few, then the student in few."""
    return [("teacher", n) for n in (FULL, *calls)] + [("student", n) for n in calls if student in system.students]


def judged(system: UnCLIP, judge: Judge, data: str, split: str, limit: int, calls: list[int]) -> list[list[object]]:
    """Rows of the decoder's table."""
    rows, full = [], 0.0
    for who, n in variants(system, "decoder_fast", calls):
        settings = Settings(steps=n) if who == "teacher" else Settings(fast=n)
        results = alignment(system, judge, data, settings, splits=[split], limit=limit)["splits"][split]
        recall = results["recall"]["caption"]["generated"]["value"]
        full = full or recall
        distance = results["distance"]["kernel"]["halves"]
        rows.append([who, n, recall, recall / full if full else "–", distance, decoding(system, settings)])
    return rows


@torch.inference_mode()
def decoding(system: UnCLIP, settings: Settings) -> float:
    """Seconds of the decoder for one picture."""
    settings = system.hurried(replace(settings, size=system.sizes[0]))
    z_i = F.normalize(torch.ones(1, system.decoder.config.embed, device=system.device), dim=1)
    return second(lambda: system.decode(z_i, "a red fox", "", Draw([0], "decoder"), settings, quiet))


@torch.inference_mode()
def enlarged(system: UnCLIP, data: str, split: str, calls: Sequence[int], batch: int = 8) -> list[list[object]]:
    """Rows of the upsampler's table: a group of pictures."""
    assert system.upsampler is not None
    held = Split.load(Path(data), system.upsampler.config.size, split, limit=MANY)
    real, seeds = tensor(held.pictures).to(system.device), held.seeds(0)
    low = F.avg_pool2d(real, system.upsampler.factor)
    rows: list[list[object]] = []

    def row(who: str, n: int | str, made: Tensor, time: float) -> None:
        rows.append([who, n, (made - real).square().mean().item(), edges(made) / edges(real), time])

    row("bicubic", "–", system.upsampler.condition(low), 0.0)
    for who, n in variants(system, "upsampler_256_fast", calls):
        net = system.upsampler if who == "teacher" else system.student("upsampler_256_fast")

        def draw(k: slice, net=net, s=Settings(upsampler_steps=n)) -> Tensor:  # noqa: B008
            return system.upsample(low[k], Draw(seeds[k], "upsampler"), s, quiet, net)

        made = torch.cat([draw(slice(i, i + batch)) for i in range(0, len(seeds), batch)])
        row(who, n, made, second(lambda draw=draw: draw(slice(1))))
    return rows


def edges(x: Tensor) -> float:
    """Mean difference of neighbouring pixels."""
    return sum(x.diff(dim=dim).abs().mean().item() for dim in (2, 3))


def second(work: Callable[[], object]) -> float:
    """Seconds of the second of two calls."""
    for _ in range(2):
        began = time.perf_counter()
        work()
    return time.perf_counter() - began


def quiet(*step: object) -> None:
    pass


if __name__ == "__main__":
    main()
