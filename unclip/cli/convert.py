"""`unclip convert`: a public checkpoint to a folder of ours; or whether a list of keys is one that would fit."""

import argparse
from typing import Any

from unclip.cli.console import clean, note
from unclip.errors import UnclipError

DTYPES = ("float32", "float16", "bfloat16", "same")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "convert",
        description="Read a checkpoint of another project (which one, its keys and shapes tell), and write it as a "
        "folder of unclip's: config.json and model.safetensors. Nothing in a file is executed.",
    )
    parser.add_argument("source", nargs="?", metavar="SRC", help="a file of weights, or the folder of one network")
    parser.add_argument("folder", nargs="?", metavar="DST", help="where to write")
    parser.add_argument("--schema", metavar="FILE", help="instead: JSON of {key: [shape, dtype]}; succeeds only if "
                        "its family's network uses every key and misses none")  # fmt: skip
    parser.add_argument("--as", dest="family", metavar="FAMILY", help="what it is, where two families look alike: "
                        "'OpenAI CLIP' or 'open_clip'")  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, default="same", help="of the weights written (default: the file's)")


def run(args: argparse.Namespace) -> int:
    if args.schema is not None:
        if args.source is not None:
            raise UnclipError(f"unexpected argument {args.source!r}: --schema checks keys alone and writes nothing")
        return check(args.schema, args.family)
    if args.source is None or args.folder is None:
        raise UnclipError("name what to read and where to write: unclip convert SRC DST; or --schema FILE")
    import torch

    from unclip.weights.checkpoint import save_module
    from unclip.weights.load import fill, fit
    from unclip.weights.match import used, usual

    m, file = fit(args.source, args.family)
    mixed = any(spec.dtype == "float32" for spec in file.schema.values())
    same = "float32" if mixed else usual(file.schema)
    dtype = getattr(torch, same if args.dtype == "same" else args.dtype)
    net = fill(m, file.read, dtype, file.forget)
    save_module(args.folder, m.config, net.state_dict(), dtype, {"family": m.family.name, "member": m.member})
    note(f"{clean(args.source)}: {m.title}, used {used(file.schema, m)} of {len(file.schema)} keys")
    print(args.folder)
    return 0


def check(path: str, family: str | None) -> int:
    from unclip.weights.container import read_schema
    from unclip.weights.families import FAMILIES
    from unclip.weights.match import recognise, used

    found = read_schema(path)
    m = recognise(found, FAMILIES, path, family)
    print(f"{m.title}: used {used(found, m)} of {len(found)} keys")
    return 0
