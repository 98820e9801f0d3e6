"""`unclip train`: a recipe's stages in their order, or one of them; the same command again goes on."""

import argparse
import math
import pkgutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.cli.console import note
from unclip.errors import UnclipError
from unclip.weights.config import override, to_dict, unknown

if TYPE_CHECKING:
    from unclip.train.recipe import Recipe

EXAMPLE = "for example train.batch=64, or decoder.train.batch=64 for one stage of several"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        description="Train the stages of a recipe, or one: NAME is a recipe such as mini, or one of its stages such as "
        "mini.clip. Ctrl-C saves and stops; the same command again goes on where it stopped.",
    )
    parser.add_argument("name", metavar="NAME", help="recipe or recipe.stage: mini, mini.decoder, small …")
    parser.add_argument("--data", metavar="DIR", help="the corpus: unclip data illustrations DIR")
    parser.add_argument("--out", metavar="DIR", help="the run; its weights come to DIR/model (default: runs/RECIPE)")
    parser.add_argument("--from", dest="start", metavar="WEIGHTS", help="begin with these weights: a name or a folder")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"change a setting, {EXAMPLE}")
    parser.add_argument("--config", metavar="FILE", help="settings as YAML or JSON, as --print_config prints them")
    parser.add_argument("--print_config", "--print-config", action="store_true", help="print all settings as YAML")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="N", help="save and stop after so long")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: the best there is)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")


def run(args: argparse.Namespace) -> int:
    if not args.minutes > 0:
        raise UnclipError(f"--minutes is {args.minutes}; it must be above 0")
    recipes = find(args.name)
    for name, text in [*settings_of(args.config), *map(assignment, args.set)]:
        recipes = changed(recipes, name, text)
    if args.print_config:
        print(dump(recipes, single="." in args.name), end="")
        return 0
    if args.data is None:
        raise UnclipError("training needs pictures: --data DIR; get them with: unclip data illustrations DIR")

    from unclip.cli.generate import set_threads
    from unclip.machine import pick_device
    from unclip.train.loop import train
    from unclip.weights.hub import locate

    set_threads(args.threads)
    device, began = pick_device(args.device), time.monotonic()
    out = Path(args.out or Path("runs") / args.name.partition(".")[0])
    start = locate(args.start) if args.start else None
    for recipe in recipes.values():
        left = args.minutes - (time.monotonic() - began) / 60
        if left <= 0 or not train(recipe, Path(args.data), out, device, left, start):
            note(f"{recipe.name}: the {args.minutes:g} minutes are over, all is saved; repeat the command to go on")
            return 0
    print(out / "model")
    return 0


def find(name: str) -> "dict[str, Recipe]":
    """The recipes that a name stands for, by stage: `mini` all of its stages, `mini.clip` one."""
    from importlib import import_module

    import unclip.recipes

    family, _, stage = name.partition(".")
    families = [m.name for m in pkgutil.iter_modules(unclip.recipes.__path__)]
    if family not in families:
        raise unknown(family, families, "recipe")
    module = import_module(f"unclip.recipes.{family}")
    if not stage:
        return {make.__name__: make() for make in module.stages}
    makers: dict[str, Callable[[], Recipe]] = {
        name: make for name, make in vars(module).items() if getattr(make, "__module__", "") == module.__name__
    }
    if stage not in makers:
        raise unknown(stage, list(makers), f"stage of {family}")
    return {stage: makers[stage]()}


def assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UnclipError(f"--set {text!r} has no '='; write NAME=VALUE, {EXAMPLE}")
    return name.strip(), value.strip()


def changed(recipes: "dict[str, Recipe]", name: str, text: str) -> "dict[str, Recipe]":
    """The recipes with a setting changed: of the stage that the name begins with, else of all."""
    stage, _, rest = name.partition(".")
    if stage in recipes and rest:
        return recipes | {stage: override(recipes[stage], rest, text)}
    return {stage: override(recipe, name, text) for stage, recipe in recipes.items()}


def settings_of(path: str | None) -> list[tuple[str, str]]:
    """A YAML or JSON file of nested settings as dotted names and texts."""
    if path is None:
        return []
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UnclipError(f"cannot read {path!r}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UnclipError(f"{path!r} is neither YAML nor JSON: {e}") from e
    if not isinstance(data, dict):
        raise UnclipError(f"{path!r} holds no settings; see --print_config")
    return list(flat(data))


def flat(data: dict[Any, Any], path: str = "") -> Iterator[tuple[str, str]]:
    import json

    for key, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def dump(recipes: "dict[str, Recipe]", single: bool) -> str:
    import yaml

    plain = {stage: to_dict(recipe) for stage, recipe in recipes.items()}
    return yaml.safe_dump(next(iter(plain.values())) if single else plain, sort_keys=False, allow_unicode=True)
