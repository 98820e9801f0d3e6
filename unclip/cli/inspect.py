"""`unclip inspect`: how a picture was made, drawn again if wished; what a folder or a file of weights holds."""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.cli.console import clean, note, warn
from unclip.cli.generate import add_machine_options, check_writable, load
from unclip.errors import UnclipError
from unclip.settings import Request, Settings
from unclip.weights.config import from_dict

if TYPE_CHECKING:
    from unclip.pipeline import UnCLIP

PICTURES = (b"\x89PNG", b"RIFF", b"\xff\xd8", b"GIF8")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "inspect",
        description="Print what a picture's file says of how it was made, or the parts, sizes and settings of weights. "
        "Nothing in a file is executed.",
    )
    parser.add_argument("path", metavar="PATH", help="a picture, or weights: a file or folder, of any known format")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--replay", action="store_true", help="draw the picture again and say whether it is the same")
    parser.add_argument("--source", action="append", default=[], metavar="PICTURE",
                        help="with --replay: what a manipulated picture was made from; repeat")  # fmt: skip
    parser.add_argument("-o", "--out", metavar="FILE", help="with --replay: where to write the picture drawn again")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_machine_options(parser, weights=None)


def run(args: argparse.Namespace) -> int:
    from unclip.film import is_film

    path = Path(args.path)
    if args.replay:
        return replay(path, args)
    if args.out:
        raise UnclipError("-o is for --replay; to print the facts as a file, use --json and >")
    if path.is_dir():
        facts, lines = folder_facts(path)
    elif beginning(path).startswith(PICTURES) or is_film(path):
        facts, lines = picture_facts(path)
    else:
        facts = tensor_facts(path)
        lines = tensor_lines(path.name, facts)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else "\n".join(lines))
    return 0


def beginning(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UnclipError(f"{str(path)!r} is neither a file nor a folder; name a picture or weights")
    try:
        with open(path, "rb") as f:
            return f.read(8)
    except OSError as e:
        raise UnclipError(f"cannot read {str(path)!r}: {e.strerror}") from e


# ---- pictures ------------------------------------------------------------------------------------------------


def picture_facts(path: Path) -> tuple[dict[str, Any], list[str]]:
    from unclip import metadata
    from unclip.files import sha256

    picture = metadata.read(path)
    record = picture.record or {}
    prompt, negative, pairs = metadata.parse(picture.parameters or "")
    facts = {
        "path": str(path), "format": picture.format, "size": list(picture.image.size), "sha256": sha256(path),
        "pixels": picture.pixels, "parameters": picture.parameters, "record": picture.record,
    }  # fmt: skip
    rows = {"Picture": f"{path}, {picture.format}, {picture.image.width}×{picture.image.height}", "Prompt": prompt,
            "Negative prompt": negative, **pairs}  # fmt: skip
    settings = record.get("settings")
    if isinstance(settings, dict):
        rows["Settings"] = ", ".join(f"{k} {v}" for k, v in settings.items())
    rows |= {k.capitalize(): record[k] for k in ("device", "dtype", "torch") if k in record}
    if isinstance(record.get("grid"), dict):
        rows["Sheet"] = ", ".join(f"{k} {v}" for k, v in record["grid"].items())
    if "pixels" in record and picture.format in ("PNG", "WEBP"):
        rows["Pixels"] = "as drawn" if record["pixels"] == picture.pixels else "changed since the picture was drawn"
    if not picture.parameters and not record:
        rows["Made by"] = "the file does not say"
    shown = {clean(name): clean(value, 2000) for name, value in rows.items() if value}
    width = max(map(len, shown))
    return facts, [f"{name:{width}}  {value}" for name, value in shown.items()]


def replay(path: Path, args: argparse.Namespace) -> int:
    """Draw the picture again from its record; 0 if every pixel is the same, else 1."""
    import hashlib

    from unclip import metadata
    from unclip.files import sha256, write_bytes
    from unclip.pictures import sheet
    from unclip.weights import hub

    beginning(path)
    picture = metadata.read(path)
    record = picture.record
    if record is None:
        raise UnclipError(f"{str(path)!r} has no record of unclip's; only pictures of unclip generate can be replayed")
    request, columns, name, weights = request_of(record, path)
    if args.out:
        check_writable([Path(args.out)])
    if not args.weights and name not in hub.shipped():  # a picture must not choose what is fetched
        raise UnclipError(f"it was drawn with the weights {name!r} ({weights}); say where they are: --weights FOLDER")
    args.dtype = "bfloat16" if record.get("dtype") == "bfloat16" else args.dtype
    system = load(args, args.weights or name)
    check_adapters(record["model"].get("lora", []), list(system.lora))
    if weights != system.digest:
        warn(f"drawn with other weights: {weights} then, {system.digest} now")

    if "edit" in record:
        image, again = edit_again(system, record, request, args)
    else:
        request = system.fit(request)
        images = [image for image, _ in system.draw(request, progress=not args.quiet)]
        image = sheet(images, columns) if columns else images[0]
        again = record | system.record(request, 0)
    again["pixels"] = metadata.pixels(image)
    form = metadata.picture_format(args.out) if args.out else picture.format
    data = metadata.encode(image, form, again)
    if args.out:
        write_bytes(args.out, data)
    same = again["pixels"] == record.get("pixels")
    digest, before = hashlib.sha256(data).hexdigest(), sha256(path)
    if args.json:
        print(json.dumps({"same": same, "sha256": [before, digest], "pixels": [record.get("pixels"), again["pixels"]]}))
    else:
        which = "the same picture" if same else "another picture"
        files = f"sha256 equal: {digest}" if digest == before else f"sha256 {digest}, that of the file is {before}"
        print(f"{which}; {files}")
    if picture.format in ("PNG", "WEBP") and picture.pixels != record.get("pixels"):
        note(f"{str(path)!r} was changed after it was drawn")
    return 0 if same else 1


def check_adapters(wanted: Any, given: list[dict[str, Any]]) -> None:
    """Which adapters are read is the user's to say, and no picture's."""
    try:
        named = ", ".join(f"{told['file']}:{told['scale']:g} (sha256 {told['sha256'][:10]}…)" for told in wanted)
        same = [(told["sha256"], told["scale"]) for told in wanted] == [(g["sha256"], g["scale"]) for g in given]
    except (KeyError, TypeError, ValueError) as e:
        raise UnclipError(f"the record of the adapters is damaged: {e!r}; it cannot be drawn again") from e
    if not same:
        raise UnclipError(f"it was drawn with the adapters {clean(named)}; name them in this order: --lora FILE:SCALE"
                          if wanted else "it was drawn without an adapter; leave out --lora")  # fmt: skip


def request_of(record: dict[str, Any], path: Path) -> tuple[Request, int, str, str]:
    """What a record asks for, checked like a command line; a sheet's columns or 0; the weights' name and digest."""
    try:
        grid, model = record.get("grid", {}), record["model"]
        settings = asdict(from_dict(Settings, record["settings"]))
        request = Request.of(
            grid.get("prompts", "no caption" if record["prompt"] == "" else record["prompt"]), grid.get("n", 1),
            record["seed"], record["negative_prompt"], keywords=settings,
        )  # fmt: skip
        columns = grid.get("columns", 0)
        if not isinstance(columns, int) or not 0 <= columns <= len(request.seeds):
            raise UnclipError(f"a sheet of {columns!r} columns")
        return request, columns, str(model["name"]), str(model["digest"])
    except (UnclipError, AttributeError, KeyError, TypeError, ValueError) as e:
        raise UnclipError(f"the record in {str(path)!r} is damaged: {e}") from e


def edit_again(
    system: "UnCLIP", record: dict[str, Any], request: Request, args: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    """A manipulated picture made again, and its record. The pictures that it began from are the user's to name."""
    from unclip import edit
    from unclip.cli.edits import read
    from unclip.pictures import sheet

    told = record["edit"]
    try:
        verb, wanted, options, i = told["verb"], told["sources"], dict(told["options"]), told["picture"]
        columns, seed = told.get("columns", 0), told["seed"]
    except (KeyError, TypeError, ValueError) as e:
        raise UnclipError(f"the record does not say of this manipulation: {e}; it cannot be done again") from e
    edit.check_verb(verb)
    sources, digests = zip(*map(read, args.source), strict=True) if args.source else ((), ())
    if list(digests) != wanted:
        raise UnclipError(f"{verb} began from pictures that the record knows as {', '.join(map(str, wanted))}; name "
                          "them in this order: --source PICTURE")  # fmt: skip
    settings = asdict(request.settings) | {"negative_prompt": request.negative, "progress": not args.quiet}
    try:
        drawn = edit.apply(system, verb, sources, **options, seed=seed, **settings)
        image = sheet(drawn.images, columns) if columns else drawn.images[i]
    except (TypeError, IndexError, ValueError) as e:
        raise UnclipError(f"{verb} cannot be done again with what the record says: {e}") from e
    return image, record | edit.record(system, drawn, i, verb, digests, options) | {"edit": told}


# ---- weights -------------------------------------------------------------------------------------------------


def folder_facts(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A pipeline's folder, or that of one network."""
    from unclip.published import reader
    from unclip.weights import hub
    from unclip.weights.config import read_json

    if one_network(folder):
        facts = tensor_facts(folder)
        return facts, tensor_lines(folder.name, facts)
    if not (folder / hub.INDEX).is_file() or read_json(folder / hub.INDEX).get("library") != "unclip":
        return public_facts(folder)
    index = hub.check_index(read_json(folder / hub.INDEX), folder)
    files = {str(name): folder / str(name) / "model.safetensors" for name in index["parts"]}
    parts = {name: tensor_facts(path) for name, path in files.items() if path.is_file()}
    try:
        digest, state = hub.verify(folder, index, [*files, "tokenizer"]), "files whole"
    except UnclipError as e:
        digest, state = "", str(e)
    state = state if index["sha256"] else "no sha256 was noted"
    total = sum(part["parameters"] for part in parts.values())
    lines, found = [f"{clean(index['name'])}: {total:,} parameters, {digest or 'damaged'}, {state}"], reader(folder)
    lines += [whole(found.title, folder)] if found else []
    for name, said in index["schedulers"].items():
        lines.append(f"  how its {clean(name)} is sampled: {clean(pairs(said), 2000)}")
    for name, part in parts.items():
        lines += ["", *tensor_lines(name, part)]
    return {"name": index["name"], "system": found.title if found else None, "digest": digest, "state": state,
            "parameters": total, "schedulers": index["schedulers"], "parts": parts}, lines  # fmt: skip


def whole(kind: str, folder: Path) -> str:
    return f"  a whole {clean(kind)}: UnCLIP.from_pretrained({str(folder)!r}), unclip generate --weights"


def one_network(folder: Path) -> bool:
    from unclip.weights.load import INDEXES, NETWORKS

    return any((folder / name).is_file() for name in (*NETWORKS, *INDEXES))


def public_facts(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Networks of other projects that lie in one folder, as files or folders, and which of them go together."""
    from unclip.published import reader
    from unclip.weights.load import together

    pairs = [pair for pair in PAIRS if all(one_network(folder / name) for name in pair)]
    second = {name for pair in pairs for name in pair[1:]}
    parts: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        pair = next((pair for pair in pairs if pair[0] == path.name), None)
        if pair is not None:
            parts[" + ".join(pair)] = tensor_facts(path, together(folder, *pair).schema)
        elif path.name not in second and (one_network(path) if path.is_dir() else path.suffix not in TEXTS):
            try:
                parts[path.name] = tensor_facts(path)
            except UnclipError as e:
                parts[path.name] = {"path": str(path), "fault": str(e)}
    if not parts:
        raise UnclipError(f"{str(folder)!r} holds no weights; name a file or folder of weights, or a picture")
    system = reader(folder)
    kind = system.title if system else None
    widths: dict[int, list[str]] = {}
    for name, part in parts.items():
        if part.get("embed"):
            widths.setdefault(part["embed"], []).append(name)
    total = sum(part.get("parameters", 0) for part in parts.values())
    lines = [f"{clean(folder.name)}: {total:,} parameters in {len(parts)} networks"]
    lines.append(whole(kind, folder) if kind else
                 "  no system that is known here; unclip.load and unclip convert read each network")  # fmt: skip
    lines += [f"  z_i of {width} numbers, so these may go together: {clean(', '.join(names))}"
              for width, names in widths.items() if len(names) > 1]  # fmt: skip
    for name, part in parts.items():
        known = "parameters" in part
        lines += ["", *(tensor_lines(name, part) if known else [clean(name), f"  {clean(part['fault'], 2000)}"])]
    return {"path": str(folder), "system": kind, "parameters": total, "together": widths, "parts": parts}, lines


# networks that diffusers keeps in two folders; and what beside weights lies in folders
PAIRS = (("decoder", "text_proj"), ("super_res_first", "super_res_last"))
TEXTS = (".json", ".md", ".txt", ".py", ".model", ".yaml", ".png", ".jpg", "")


def tensor_facts(path: Path, schema: Any = None) -> dict[str, Any]:
    """What a file or folder says of its tensors, and which network they are; none is read."""
    from unclip.weights.load import open_source

    schema = open_source(path).schema if schema is None else schema
    notes = {k: v for k, v in schema.about.items() if isinstance(v, str)}
    config = schema.about.get("config")
    try:
        config = json.loads(config) if isinstance(config, str) else config
    except (ValueError, RecursionError):
        warn(f"the configuration noted in {str(path)!r} is no JSON")
        config = None
    notes.pop("config", None)
    shapes = {name: list(spec.shape) for name, spec in schema.items()}
    count, dtypes = sum(map(math.prod, shapes.values())), sorted({spec.dtype for spec in schema.values()})
    size = sum(p.stat().st_size for p in (path.glob("*") if path.is_dir() else [path]) if p.is_file())
    return {"path": str(path), "bytes": size, "parameters": count, "dtypes": dtypes, "config": config,
            "metadata": notes, **({} if ours(config) else family_facts(schema, path)), "tensors": shapes}  # fmt: skip


def ours(config: Any) -> bool:
    return isinstance(config, dict) and isinstance(config.get("kind"), str)


def family_facts(schema: Any, path: Path) -> dict[str, Any]:
    """Which public checkpoint it is, what it does in a system, and which others share its embedding space's width."""
    from unclip.weights.families import FAMILIES
    from unclip.weights.match import fits, recognise

    try:
        m = recognise(schema, FAMILIES, path.name)
    except UnclipError as e:
        return {"family": None, "fault": str(e)}
    return {"family": m.family.name, "member": m.member, "stage": m.family.stage, "licence": m.family.licence,
            "embed": getattr(m.config, "embed", None), "fits": fits(m, FAMILIES)}  # fmt: skip


def tensor_lines(name: str, facts: dict[str, Any]) -> list[str]:
    kind = facts["config"]["kind"] if ours(facts["config"]) else ""
    lines = [f"{clean(name)}  {clean(kind)}".rstrip(),
             f"  {facts['parameters']:,} parameters in {len(facts['tensors'])} tensors, {', '.join(facts['dtypes'])}, "
             f"{facts['bytes'] / 1e6:.1f} MB"]  # fmt: skip
    if facts.get("family"):
        lines.append(f"  {facts['family']} {facts['member'] or '(of unpublished size)'}, stage {facts['stage']}"
                     f"; licence {facts['licence'] or 'unknown'}; unclip convert reads it")  # fmt: skip
        if facts["fits"]:
            lines.append(f"  fits with: {', '.join(facts['fits'])}")
    if facts.get("fault"):
        lines.append(f"  {clean(facts['fault'], 2000)}")
    for title, values in (("config", facts["config"]), ("metadata", facts["metadata"])):
        if values:
            lines.append(f"  {title}: {clean(pairs(values), 2000)}")
    return lines


def pairs(value: Any, path: str = "") -> str:
    """{"a": {"b": 1}} → a.b 1"""
    if isinstance(value, dict):
        return ", ".join(pairs(v, f"{path}.{k}".lstrip(".")) for k, v in value.items())
    return f"{path} {value}"
