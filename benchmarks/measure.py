"""What every benchmark here does: name the hardware, time variants in turn, and keep the table.

Absolute times drift on a shared machine. Ratios do not, or much less: variants run in turn in one process, in another
order each round, and medians are compared.
"""

import argparse
import os
import platform
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

RESULTS = Path(__file__).parent / "results"
MEMORY = r"""
import re
def mib(name):  # VmHWM: the peak; VmRSS: now. getrusage's peak would begin with what the parent held
    return int(re.search(name + r":\s+(\d+)", open("/proc/self/status").read())[1]) / 2**10
"""  # for the fresh process that a benchmark starts; Linux alone tells
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def arguments(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks take."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"of each variant (default {rounds})")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="CPU threads")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where HARDWARE.md is kept")
    return parser


def hardware() -> str:
    """The processor, its cores, and those of its abilities that matter here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = dict(re.findall(r"^(model name|flags)\s*: (.*)$", read("/proc/cpuinfo"), re.MULTILINE))
    flags = [flag for flag in FLAGS if flag in lines.get("flags", "").split()]
    return ", ".join([lines.get("model name", platform.processor()), f"{os.cpu_count()} cores", *flags])


def read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def seconds(work: Callable[[], object]) -> float:
    """One call of `work`, waited for."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, after one call of each to warm up."""
    for work in variants.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in random.Random(turn).sample(list(variants), len(variants)):
            times[name].append(seconds(variants[name]))
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster: the median over rounds of the times of one round."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table that also reads well as it stands."""
    cells = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def report(folder: Path, title: str, *parts: str) -> None:
    """Print the parts, and put them under `title` in FOLDER/HARDWARE.md in place of what stood there."""
    body = "\n\n".join(parts)
    print(body)
    name = hardware()
    path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = dict(re.findall(r"^## ([^\n]+)\n\n(.*?)(?=^## |\Z)", read(str(path)), re.MULTILINE | re.DOTALL))
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    about = f"`{command}`, torch {torch.__version__}, {torch.get_num_threads()} threads"
    sections[title] = f"{about}\n\n{body}"
    parts = [f"# {name}", *(f"## {title}\n\n{sections[title].strip()}" for title in sorted(sections))]
    path.write_text("\n\n".join(parts) + "\n")
    print(f"\nwritten to {path}", file=sys.stderr)
