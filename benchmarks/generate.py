"""Seconds a picture, the cold start, and memory; with --peer diffusers, the same work by diffusers.

    python benchmarks/generate.py --weights mini
    python benchmarks/generate.py --weights mini --peer diffusers
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

import torch
from measure import MEMORY, arguments, in_turn, report, table

from unclip.pipeline import UnCLIP

PROMPT = "a red fox, flat vector emoji"
COLD = f"""
{MEMORY}
import json, sys, time
from unclip import UnCLIP
system = UnCLIP.from_pretrained(sys.argv[1])
ready = time.time()
system.generate({PROMPT!r}, size=int(sys.argv[2]), progress=False)
print(json.dumps([ready, time.time(), mib("VmHWM")]))
"""


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--peer", choices=["diffusers"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    system = UnCLIP.from_pretrained(args.weights)
    if args.peer:
        from peer import compare

        report(args.results, "beside diffusers", compare(system, args.rounds))
    else:
        cold = [[size, *cold_start(args.weights, size, args.rounds)] for size in system.sizes]
        head = ["size", "start to ready, s", "start to first picture, s", "peak memory, MiB"]
        drawn = table(["size", "seconds a picture", "of them"], warm(system, args.rounds))
        report(args.results, "generate", drawn, table(head, cold))


def warm(system: UnCLIP, rounds: int) -> list[list[object]]:
    """Rows (size, seconds a picture, seconds of each stage), with the default settings."""
    stages: dict[int, dict[str, float]] = {size: defaultdict(float) for size in system.sizes}

    def draw(size: int) -> None:
        last = time.perf_counter()

        def tell(p) -> None:
            nonlocal last
            now = time.perf_counter()
            stages[size][p.stage] += now - last
            last = now

        system.generate(PROMPT, size=size, callback=tell, progress=False)

    times = in_turn({str(size): lambda s=size: draw(s) for size in system.sizes}, rounds)
    rows = []
    for size in system.sizes:
        total = sum(stages[size].values())
        shares = ", ".join(f"{stage} {t / total:.0%}" for stage, t in stages[size].items())
        rows.append([size, median(times[str(size)]), shares])
    return rows


def cold_start(weights: str, size: int, rounds: int) -> list[float]:
    """Medians, in fresh processes: seconds to ready, seconds to the first picture, peak resident MiB."""
    found = []
    for _ in range(rounds):
        began = time.time()
        done = subprocess.run([sys.executable, "-c", COLD, weights, str(size)], check=True, capture_output=True)
        ready, drawn, peak = json.loads(done.stdout)
        found.append([ready - began, drawn - began, peak])
    return [median(column) for column in zip(*found, strict=True)]


if __name__ == "__main__":
    main()
