"""Where weights are: shipped with the package, in a folder, or in a repository of the Hugging Face hub."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from unclip.errors import UnclipError
from unclip.files import write_json

SHIPPED = Path(__file__).parent.parent / "assets" / "weights"
INDEX = "model_index.json"
PATTERNS = ["*.json", "*.safetensors", "*.md"]  # no code is ever fetched


def shipped() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{INDEX}"))


def write_index(folder: Path, name: str) -> None:
    """model_index.json: what the folder holds, so that a reader need not guess."""
    parts = sorted(p.parent.name for p in folder.glob("*/config.json"))
    write_json(folder / INDEX, {"name": name, "library": "unclip", "parts": parts})


def locate(source: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of `source`: a shipped name, a folder, or "org/repository" (the only case that uses a network).

    HF_HUB_OFFLINE=1, or `local_files_only`, restricts the last to what was fetched before.
    """
    name, folder = str(source), Path(source)
    if name in shipped():
        return SHIPPED / name
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise UnclipError(f"{name!r} holds no {INDEX}; name a folder that unclip saved")
        return folder
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        kind = "is a file, not a folder of weights" if folder.is_file() else "is neither shipped nor a folder"
        raise UnclipError(f"weights {name!r}: {kind}; shipped: {', '.join(shipped()) or 'none'}")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=PATTERNS, local_files_only=local_files_only
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as e:
        reason = str(e).splitlines()[0]
        raise UnclipError(f"weights {name!r} could not be had from the hub: {reason}", code=1) from e
    return locate(found)


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
