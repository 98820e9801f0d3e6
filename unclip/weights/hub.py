"""Where weights are: shipped with the package, in a folder, or in a repository of the Hugging Face hub."""

import difflib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unclip.errors import UnclipError
from unclip.files import atomic, sha256, write_json, writing
from unclip.weights.config import read_json

SHIPPED = Path(__file__).parent.parent / "assets" / "weights"
INDEX = "model_index.json"
PATTERNS = ["*.json", "*.safetensors", "*.md"]  # of a repository whose files cannot be listed; code is never fetched


def shipped() -> list[str]:
    """Names of the weights that come with the package; NAME_more is a part of NAME."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{INDEX}") if not p.parent.name.endswith("_more"))


def write_index(folder: Path, name: str, parts: Iterable[str] | None = None, **more: Any) -> None:
    """model_index.json: what the folder holds and the sha256 of every file, so that a reader need not guess.

    parts: the networks, by default those that lie there. more: what else there is to say, if anything.
    """
    parts = sorted(parts if parts is not None else (p.parent.name for p in folder.glob("*/config.json")))
    sums = {p.relative_to(folder).as_posix(): sha256(p) for p in files(folder, [*parts, "tokenizer"])}
    more = {key: value for key, value in more.items() if value}
    write_json(folder / INDEX, {"name": name, "library": "unclip", **more, "parts": parts, "sha256": sums})


def system(folder: Path) -> str | None:
    """Which public system a folder of ours holds; "" if one of our own, None if the folder is not ours."""
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    return str(index.get("system", "")) if index.get("library") == "unclip" else None


def files(folder: Path, parts: Iterable[str]) -> list[Path]:
    """The files that make up `parts`, in one order everywhere."""
    found = (path for part in sorted(parts) for path in sorted((folder / part).glob("*")))
    return [path for path in found if path.suffix in (".json", ".safetensors")]


def check_index(index: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The index of a folder of ours, with the fields that a reader relies on; older ones note no sha256."""
    index = {"name": folder.name, "sha256": {}, "schedulers": {}, **index}
    kinds = {"name": str, "parts": list, "sha256": dict, "schedulers": dict}
    if index.get("library") != "unclip" or not all(isinstance(index.get(k), kind) for k, kind in kinds.items()):
        raise UnclipError(f"{str(folder / INDEX)!r} is no index of unclip's; name a folder that unclip saved")
    return index


def verify(folder: Path, index: dict[str, Any], parts: Iterable[str]) -> str:
    """Compare the files of `parts` with the sha256 that the index notes; 10 hex digits that stand for them all."""
    total, parts = hashlib.sha256(), list(parts)
    for name in index["sha256"]:
        if name.split("/")[0] in parts and not (folder / name).is_file():
            raise UnclipError(f"{str(folder)!r} lacks {name}, which was written with it; copy all of it, or fetch or "
                              "train it again")  # fmt: skip
    for path in files(folder, parts):
        name, found = path.relative_to(folder).as_posix(), sha256(path)
        if index["sha256"].get(name, found) != found:
            raise UnclipError(f"{str(path)!r} is damaged: it is not what was written; fetch or train it again")
        total.update(f"{found}  {name}\n".encode())
    return total.hexdigest()[:10]


def digest(folder: Path) -> str:
    """10 hex digits that stand for all the parts of a folder of ours, whose files are checked."""
    index = check_index(read_json(folder / INDEX), folder)
    return verify(folder, index, [*index["parts"], "tokenizer"])


def adopt(source: Path, folder: Path) -> None:
    """Copy to `folder` the parts of `source`, and the tokenizer, that it lacks."""
    for path in files(source, [*check_index(read_json(source / INDEX), source)["parts"], "tokenizer"]):
        copy = folder / path.relative_to(source)
        if not copy.exists():
            with writing(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with atomic(copy) as temporary:
                shutil.copyfile(path, temporary)
    write_index(folder, folder.parent.name)


def fingerprint(folder: Path, places: Iterable[str]) -> str:
    """10 hex digits that stand for files of a public system, and for those in folders of it.

    In the hub's cache the sha256 of each is noted when it is first read, beside the snapshots, and compared from then
    on. Raises UnclipError for a file that has changed since.
    """
    inside = (path for place in places for path in ([folder / place] if "." in place else (folder / place).glob("*.*")))
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(inside)}
    if folder.parent.name == "snapshots":
        note = folder.parent.parent / f"unclip-{folder.name}.json"
        known = read_json(note) if note.is_file() else {}
        for name, found in sums.items():
            if known.get(name, found) != found:
                raise UnclipError(f"{str(folder / name)!r} is damaged: it is not what was fetched; fetch it again")
        if not sums.keys() <= known.keys():
            write_json(note, known | sums)
    return hashlib.sha256("".join(f"{v}  {k}\n" for k, v in sums.items()).encode()).hexdigest()[:10]


Choose = Callable[[list[str]], list[str]]


def locate(source: str | Path, revision: str | None = None, local_files_only: bool = False,
           native: Choose = lambda names: []) -> Path:  # fmt: skip
    """The folder of `source`: a shipped name, a folder, or "org/repository" (the only case that uses a network).

    HF_HUB_OFFLINE=1, or `local_files_only`, restricts the last to what was fetched before. native: of a repository's
    files those that make up a public system as it was first published; none if it holds none.
    """
    name, folder = str(source), Path(source)
    if name in shipped():
        return SHIPPED / name
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise one_network(folder) or UnclipError(f"{name!r} holds no {INDEX}; name a folder that unclip saved")
        return folder
    if folder.is_file():
        raise one_network(folder) or UnclipError(f"weights {name!r}: is a file, not a folder of weights")
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        near = difflib.get_close_matches(name, shipped(), 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(shipped()) or 'none'}"
        raise UnclipError(f"weights {name!r}: is neither shipped nor a folder; {hint}")

    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        names = [] if local_files_only or constants.HF_HUB_OFFLINE else listed(name, revision)
        wanted = chosen(names, native) if names else PATTERNS
        found = snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=local_files_only)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as e:
        reason = str(e).splitlines()[0]
        raise UnclipError(f"weights {name!r}: no such folder, and not to be had from the hub: {reason}", code=1) from e
    there = [path.relative_to(found).as_posix() for path in Path(found).rglob("*")]
    return Path(found) if native(there) else locate(found)


def listed(repository: str, revision: str | None) -> list[str]:
    """The files of a repository; none where the hub cannot be reached: what was fetched before may do."""
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(repository, revision=revision)
    except Exception:  # of the client's network library, another in each of its versions; fetching then says what it is
        return []


def chosen(names: list[str], native: Choose) -> list[str]:
    """Which files of a repository to fetch: descriptions, and of each network one file of weights, safetensors before
    pickles; or the own files of a public system. Never code, and no weights that would not be read."""
    from unclip.weights.load import NETWORKS, SHARD

    about = [name for name in names if name.endswith((".json", ".md", "sentencepiece.bpe.model"))]
    if own := native(names):
        return [*about, *own]
    found: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if file in NETWORKS or SHARD.fullmatch(file):
            found.setdefault(folder, []).append(name)
    best = {folder: [n for n in files if n.endswith(".safetensors")] or files for folder, files in found.items()}
    return about + [name for files in best.values() for name in files]


def one_network(source: Path) -> UnclipError | None:
    """What to say of a public checkpoint that is no whole system; None where it is none at all."""
    from unclip.weights.load import fit

    try:
        m, _ = fit(source)
    except UnclipError:
        return None
    what = f"{str(source)!r} is {m.title}, one network ({m.family.stage}) and no whole system"
    return UnclipError(f"{what}; load it with unclip.load({str(source)!r})")


def push(repository: str, save: Callable[[Path], object], private: bool) -> str:
    """Upload what `save` writes into a folder; returns the commit's address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Weights of unclip"))
        except (HfHubHTTPError, OSError, ValueError) as e:
            raise UnclipError(f"could not upload to {repository!r}: {str(e).splitlines()[0]}", code=1) from e
