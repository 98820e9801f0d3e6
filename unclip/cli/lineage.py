"""`unclip lineage`: DALL·E 2's ancestors, trained to a budget, asked for pictures, and laid side by side."""

import argparse
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from unclip.cli.console import note
from unclip.errors import UnclipError

OWN = {  # settings of some systems → what is said of them
    "clip_guidance": "glide: how far its noised CLIP guides (default: 0, not at all)",
    "guidance": "glide: how far the caption counts (default: 3)",
    "scale": "adm: how far its classifier guides (default: 3)",
    "candidates": "dalle1: pictures drawn for each that is kept, the one that CLIP likes best (default: 4)",
    "temperature": "those that draw codes or colours: below 1 the likelier come more often (default: 1; dalle1: 0.9)",
    "top_k": "the same: how many to choose from, the likeliest (default: 0, all; dalle1: 128)",
}
UNITS = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("lineage", description="DALL·E 2's ancestors on the same pictures, side by side.")
    does = parser.add_subparsers(dest="does", metavar="ACTION", required=True)
    train = does.add_parser("train", help="train systems, each to the same budget of time",
                            description="Train the named systems, or all, each for the same time. The same command "
                            "again goes on where it stopped, and leaves out what is done.")  # fmt: skip
    train.add_argument("names", nargs="*", metavar="NAME", help="ae, vae, vqvae, dalle1, gan … (default: all)")
    train.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    train.add_argument("--budget", type=minutes, default=10.0, metavar="TIME",
                       help="processor time for each, as 10m, 90s, 1h (10m)")  # fmt: skip
    sample = does.add_parser("sample", help="draw with one of them")
    sample.add_argument("name", metavar="NAME", help="the system")
    sample.add_argument("prompts", nargs="*", default=[""], metavar="PROMPT", help="for those that read captions")
    sample.add_argument("-n", type=int, default=8, metavar="N", help="pictures of each prompt (default: 8)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first (default: 0)")
    for name, words in OWN.items():
        kind = int if name in ("candidates", "top_k") else float
        sample.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=words)
    redraw = does.add_parser("redraw", help="what one of them makes of pictures",
                             description="Autoencoders, VQ-VAE and DALL·E 1 tell pictures again by way of their code; "
                             "Image-GPT and PixelCNN keep the upper half and draw the lower; GLIDE fills what is "
                             "transparent. A row for each picture: as it was, then as it was drawn.")  # fmt: skip
    redraw.add_argument("name", metavar="NAME", help="the system")
    redraw.add_argument("pictures", nargs="+", metavar="PICTURE", help="files")
    redraw.add_argument("--prompt", default="", metavar="PROMPT", help="glide alone: what to fill in")
    redraw.add_argument("--between", action="store_true",
                        help="vae alone: from each picture to the next, -n steps along the line of their codes")
    redraw.add_argument("-n", type=int, default=1, metavar="N", help="times (default: 1)")
    redraw.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first (default: 0)")
    for each in (sample, redraw):
        each.add_argument("-o", "--output", default="lineage.png", metavar="FILE", help="the sheet (lineage.png)")
    report = does.add_parser("report", help="one page: a row and a line of pictures for each system of the run")
    report.add_argument("--data", metavar="DIR", required=True, help="the corpus: unclip data illustrations DIR")
    report.add_argument("--pictures", type=int, default=64, metavar="N", help="drawn by each (default: 64)")
    report.add_argument("-o", "--output", metavar="DIR", help="where the page goes (default: OUT/report)")
    for each in (train, sample, redraw, report):
        each.add_argument("--out", default="runs/lineage", metavar="DIR", help="the run (default: runs/lineage)")
        each.add_argument("--device", metavar="NAME", help="cpu, cuda … (default: the best there is)")
        each.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")


def minutes(text: str) -> float:
    """ "90s", "10m", "1h" or "10" → minutes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 10m or 1h")
    return float(match[1]) * UNITS[match[2] or "m"]


def run(args: argparse.Namespace) -> int:
    from unclip.cli.generate import set_threads
    from unclip.machine import pick_device

    set_threads(args.threads)
    action = {"train": train, "sample": sample, "redraw": redraw, "report": report}[args.does]
    return action(args, Path(args.out), pick_device(args.device))


def chosen(names: list[str]) -> dict[str, Any]:
    from unclip.recipes.lineage import SYSTEMS
    from unclip.weights.config import unknown

    for name in names:
        if name not in SYSTEMS:
            raise unknown(name, list(SYSTEMS), "system")
    return {name: SYSTEMS[name] for name in names or SYSTEMS}


def train(args: argparse.Namespace, out: Path, device: Any) -> int:
    from unclip.train import budget

    systems, failed = chosen(args.names), False
    for name, (_, stages) in systems.items():
        if name in budget.times(out):
            note(f"{name}: done before")
            continue
        try:
            budget.system(name, stages, Path(args.data), out, device, args.budget)
        except UnclipError as e:
            if e.code != 1 or len(systems) == 1:
                raise
            note(f"error: {e}")  # one that diverges does not stop the others
            failed = True
    print(out / "model")
    return int(failed)


def load(args: argparse.Namespace, out: Path, device: Any) -> Any:
    """The system that is named."""
    if args.n < 1 or args.seed < 0:
        raise UnclipError(f"-n is {args.n} and --seed {args.seed}; they must be at least 1 and 0")
    ((kind, _),) = chosen([args.name]).values()
    return kind.load(out / "model", device)


def keep(pictures: Any, columns: int, output: str) -> int:
    from unclip.files import atomic
    from unclip.pictures import grid

    with atomic(Path(output)) as path:
        grid(pictures, columns).save(path, "PNG")
    print(output)
    return 0


def sample(args: argparse.Namespace, out: Path, device: Any) -> int:
    import torch

    system, prompts = load(args, out, device), [p for p in args.prompts for _ in range(args.n)]
    if any(args.prompts) and not system.text:
        note(f"{system.title} {system.heeds}")
    for name in OWN:
        value = getattr(args, name)
        if value is None:
            continue
        if not hasattr(system, name):
            owners = ", ".join(other for other, (kind, _) in chosen([]).items() if hasattr(kind, name))
            raise UnclipError(f"--{name.replace('_', '-')} is for {owners}; {args.name} has no such setting")
        if value < (name == "candidates"):
            raise UnclipError(f"--{name.replace('_', '-')} is {value}; it must be {int(name == 'candidates')} or more")
        setattr(system, name, value)
    with torch.no_grad():
        drawn = system.sample(prompts, range(args.seed, args.seed + len(prompts)))
    return keep(drawn, args.n, args.output)


def redraw(args: argparse.Namespace, out: Path, device: Any) -> int:
    import torch

    from unclip.pictures import flat, read, square, to_tensor

    system = load(args, out, device)
    if args.prompt and args.name != "glide":
        note(f"{system.title} fills nothing in: the prompt counts for nothing")
    images = [square(read(name).convert("RGBA"), system.size) for name in args.pictures]
    x = torch.cat([to_tensor(flat(image)) for image in images]).to(device)
    with torch.no_grad():
        if args.between:
            if not hasattr(system, "interpolate") or len(x) < 2:
                raise UnclipError(f"--between is for vae and two pictures or more, not {args.name} and {len(x)}")
            ways = [torch.cat([a[None], system.interpolate(a, b, max(2, args.n)), b[None]])
                    for a, b in pairwise(x)]  # fmt: skip
            return keep(torch.cat(ways), len(ways[0]), args.output)
        where = torch.cat([to_tensor(image.getchannel("A").convert("RGB"))[:, :1] for image in images]).to(x) > 0
        rows = [system.redraw(x, where.to(x), [args.prompt] * len(x), range(first, first + len(x)))
                for first in range(args.seed, args.seed + args.n * len(x), len(x))]  # fmt: skip
    return keep(torch.stack([x, *rows], dim=1).flatten(0, 1), 1 + args.n, args.output)


def report(args: argparse.Namespace, out: Path, device: Any) -> int:
    from unclip.evaluate import page
    from unclip.evaluate.judge import Judge
    from unclip.evaluate.lineage import Held, guided, measure, real
    from unclip.evaluate.shipped import DALLE2System
    from unclip.train import budget
    from unclip.weights import hub

    noted = budget.times(out)
    if not noted:
        raise UnclipError(f"{str(out)!r} holds no trained system; train some: unclip lineage train --out {out}")
    held = Held.load(Path(args.data), Judge.load(None, hub.SHIPPED / "mini", device), args.pictures)
    about: dict[str, Any] = {"space": held.judge.space, "pictures": args.pictures}
    measured = [real(held)]
    for name, (kind, _) in chosen([]).items():
        if name not in noted:
            continue
        note(f"measuring {name}")
        system = kind.load(out / "model", device)
        measured.append(measure(system, held, noted[name]["seconds"]))
        if name == "adm":
            about["guidance"] = guided(system, held)
    note("measuring DALL·E 2")
    measured.append(measure(DALLE2System(device), held, None))
    rows, sheets = zip(*measured, strict=True)
    folder = Path(args.output or out / "report")
    if not page.write(rows, sheets, about, folder):
        note("no plots: they need matplotlib, of the extra `report`: pip install '.[report]'")
    print(folder / "index.html")
    return 0
