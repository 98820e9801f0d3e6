"""`unclip doctor`: what this machine offers, what will be used, and what is missing."""

import argparse
import importlib.util
import json
import os
import platform
import shutil
from typing import Any

from unclip.cli.console import clean

EXTRAS = {  # an extra of the package → the modules that it brings
    "data": ("pyarrow", "resvg_py"),
    "film": ("av",),
    "report": ("matplotlib",),
}
CLIENTS = {"npm": "fetches emoji and icons for training", "apt": "fetches clip art for training"}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        description="Say what this machine offers, what will be used, and whether the shipped weights are whole.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """0 if pictures can be drawn, else 1."""
    facts = {"unclip": software(), "machine": machine(), "used": used(), "weights": weights(), "extras": extras(),
             "clients": {name: shutil.which(name) or f"missing: {use}" for name, use in CLIENTS.items()}}  # fmt: skip
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        for title, rows in facts.items():
            print(f"{title}\n" + "\n".join(f"  {name:14} {clean(value)}" for name, value in rows.items()))
    return 0 if all(state == "whole" for state in facts["weights"].values()) else 1


def software() -> dict[str, str]:
    import torch

    import unclip

    return {"version": unclip.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}


def machine() -> dict[str, str]:
    import torch

    from unclip.machine import native_bfloat16

    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "memory": memory(),
        "cpu bfloat16": "in hardware" if native_bfloat16(torch.device("cpu")) else "emulated, slow: float32 is used",
        "gpu": "none that torch can use",
    }
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        bfloat = "bfloat16 in hardware" if native_bfloat16(torch.device("cuda", i)) else "no bfloat16"
        facts["gpu" if i == 0 else f"gpu {i}"] = f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {bfloat}"
    return facts


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def memory() -> str:
    try:
        page, names = os.sysconf("SC_PAGE_SIZE"), ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
        total, free = (page * os.sysconf(name) / 2**30 for name in names)
        return f"{total:.1f} GiB, {free:.1f} GiB free"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def used() -> dict[str, str]:
    """What generate and train take when nothing else is asked."""
    import torch

    from unclip.machine import best_device, native_bfloat16

    device = best_device()
    training = "bfloat16" if native_bfloat16(device) else "float32"
    dtypes = f"float32 to draw, {training} to train"
    return {"device": str(device), "dtype": dtypes, "threads": str(torch.get_num_threads())}


def weights() -> dict[str, str]:
    """Each shipped set of weights: "whole", or what is wrong with it."""
    from unclip.errors import UnclipError
    from unclip.pipeline import UnCLIP
    from unclip.weights import hub
    from unclip.weights.config import read_json

    states = {}
    for name in hub.shipped():
        try:
            UnCLIP.from_pretrained(name, device="cpu")
            noted = hub.check_index(read_json(hub.SHIPPED / name / hub.INDEX), hub.SHIPPED / name)["sha256"]
            states[name] = "whole" if noted else "no sha256 was noted when they were written"
        except UnclipError as e:
            states[name] = str(e)
    return states or {"none": "train some (unclip train mini), or give a folder to --weights"}


def extras() -> dict[str, str]:
    states = {}
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        states[extra] = f"missing: pip install 'unclip[{extra}]'" if missing else "present"
    return states


def extra_of(module: str) -> str | None:
    """The extra of the package that brings a module."""
    name = module.partition(".")[0]
    return next((f"unclip[{extra}]" for extra, modules in EXTRAS.items() if name in modules), None)
