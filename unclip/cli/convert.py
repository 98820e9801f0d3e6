"""`unclip convert`: a public checkpoint to a folder of ours, or back; or whether keys would fit."""

import argparse
from pathlib import Path
from typing import Any

from unclip.cli.console import clean, note
from unclip.errors import UnclipError
from unclip.files import whole_folder

DTYPES = ("float32", "float16", "bfloat16", "same")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "convert",
        description="Read a checkpoint of another project (which one, its keys and shapes tell), one network or a "
        "whole system, and write it as a folder of unclip's; or back, as diffusers keeps it. Nothing in a file is "
        "executed.",
    )
    parser.add_argument("source", nargs="?", metavar="SRC", help="a file of weights, the folder of one network or of a "
                        "system, a shipped name, or org/repo of the hub")  # fmt: skip
    parser.add_argument("folder", nargs="?", metavar="DST", help="the folder to write: a new one, whole or not at all")
    parser.add_argument("--prior", metavar="NAME", help="a folder or repository whose prior goes with SRC, if it was "
                        "published apart: of Kandinsky or Stable unCLIP")  # fmt: skip
    parser.add_argument("--schema", metavar="FILE", help="instead: JSON of {key: [shape, dtype]}; succeeds only if "
                        "its family's network uses every key and misses none")  # fmt: skip
    parser.add_argument("--as", dest="family", metavar="FAMILY", help="what it is, where two families look alike: "
                        "'OpenAI CLIP' or 'open_clip'")  # fmt: skip
    parser.add_argument("--to", choices=("unclip", "diffusers"), default="unclip", metavar="FORM", help="unclip "
                        "(default), or diffusers: a whole Karlo, Kandinsky or Stable unCLIP, or one CLIP "
                        "as transformers keeps it")  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, default="same", help="of the weights written (default: the file's; "
                        "of a public system float32)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.schema is not None:
        if args.source is not None:
            raise UnclipError(f"unexpected argument {args.source!r}: --schema checks keys alone and writes nothing")
        return check(args.schema, args.family)
    if args.source is None or args.folder is None:
        raise UnclipError("name what to read and where to write: unclip convert SRC DST; or --schema FILE")
    convert = convert_system if whole(args.source) else convert_network
    with whole_folder(args.folder) as folder:
        told = convert(args, folder)
    note(told)
    print(args.folder)
    return 0


def whole(source: str) -> bool:
    """Whether a source is a system: a folder of one, a shipped name, or a repository of the hub."""
    from unclip.published import reader
    from unclip.weights import hub

    path = Path(source)
    if not path.exists():
        return source in hub.shipped() or (source.count("/") == 1 and not source.startswith((".", "/", "~")))
    return path.is_dir() and ((path / hub.INDEX).is_file() or reader(path) is not None)


def convert_system(args: argparse.Namespace, folder: Path) -> str:
    import torch

    from unclip.pipeline import UnCLIP

    if args.family is not None:
        raise UnclipError(f"{args.source!r} is a whole system, which is known without --as; leave it out")
    system = UnCLIP.from_pretrained(args.source, prior=args.prior, device="cpu")
    dtype = {} if args.dtype == "same" else {"dtype": getattr(torch, args.dtype)}
    save = system.save_diffusers if args.to == "diffusers" else system.save_pretrained
    save(folder, **dtype)
    total = sum(p.numel() for net in system.parts.values() for p in net.parameters())
    return f"{clean(args.source)}: {clean(system.name)}, {len(system.parts)} networks, {total:,} parameters"


def convert_network(args: argparse.Namespace, folder: Path) -> str:
    import torch

    from unclip.models.clip import CLIP
    from unclip.weights import to_diffusers
    from unclip.weights.checkpoint import save_module
    from unclip.weights.load import fill, fit
    from unclip.weights.match import used, usual

    if args.prior is not None:
        raise UnclipError(f"{args.source!r} is one network, and has no use for a prior; leave out --prior")
    m, file = fit(args.source, args.family)
    mixed = any(spec.dtype == "float32" for spec in file.schema.values())
    same = "float32" if mixed else usual(file.schema)
    dtype = getattr(torch, same if args.dtype == "same" else args.dtype)
    if args.to == "diffusers" and m.family.build is not CLIP:
        raise UnclipError(f"{args.source!r} is {m.title}; of single networks only a CLIP can be written for others")
    net = fill(m, file.read, dtype, file.forget)
    if isinstance(net, CLIP) and args.to == "diffusers":
        to_diffusers.clip(folder, net, dtype)
    else:
        save_module(folder, m.config, net.state_dict(), dtype, {"family": m.family.name, "member": m.member})
    return f"{clean(args.source)}: {m.title}, used {used(file.schema, m)} of {len(file.schema)} keys"


def check(path: str, family: str | None) -> int:
    from unclip.weights.container import read_schema
    from unclip.weights.families import FAMILIES
    from unclip.weights.match import recognise, used

    found = read_schema(path)
    m = recognise(found, FAMILIES, path, family)
    print(f"{m.title}: used {used(found, m)} of {len(found)} keys")
    return 0
