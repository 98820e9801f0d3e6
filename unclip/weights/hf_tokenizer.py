"""CLIP's tokenizer in a folder of Hugging Face's."""

from pathlib import Path
from typing import Any

from unclip.errors import UnclipError
from unclip.models.tokenizer import CLIP_END, Tokenizer
from unclip.weights.config import read_json


def clip_tokenizer(folder: Path) -> Tokenizer:
    """OpenAI's, or another with its way with words; `pad` is what the folder says, as some networks see padding.

    Raises UnclipError for a vocabulary that is neither.
    """
    if not folder.is_dir():
        raise UnclipError(f"{str(folder.parent)!r} lacks {folder.name}; put it there, or fetch the whole again")
    ours = Tokenizer.clip()
    try:
        vocabulary, merges, said = entries(folder)
        if vocabulary and vocabulary.get(CLIP_END) != ours.end:
            ours = Tokenizer.like_clip(vocabulary, merges, spelt(said.get("unk_token", CLIP_END)))
        pad = ours.bpe.token_to_id(spelt(said.get("pad_token", CLIP_END)))
    except UnclipError:
        raise
    except Exception as e:  # the Rust side raises bare Exception for anything that it cannot use
        raise UnclipError(f"{str(folder)!r} holds no tokenizer of CLIP's kind: {str(e) or type(e).__name__}") from e
    ours.pad = ours.pad if pad is None else pad
    return ours


def entries(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, Any]]:
    """Vocabulary and merges, both empty where the folder leaves them out, and tokenizer_config.json."""
    settings = folder / "tokenizer_config.json"
    said = read_json(settings) if settings.is_file() else {}
    if (folder / "tokenizer.json").is_file():
        whole = read_json(folder / "tokenizer.json")
        vocabulary, merges = whole["model"]["vocab"], whole["model"]["merges"]
        vocabulary = vocabulary | {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    else:
        vocabulary = read_json(folder / "vocab.json") if (folder / "vocab.json").is_file() else {}
        lines = folder / "merges.txt"
        merges = lines.read_text(encoding="utf-8").splitlines()[1:] if lines.is_file() else []
    pairs = [tuple(merge.split() if isinstance(merge, str) else merge) for merge in merges]
    return vocabulary, [(left, right) for left, right in (pair for pair in pairs if pair)], said


def spelt(token: Any) -> str:
    """A token as tokenizer_config.json has it: a string, or one with its properties."""
    return token["content"] if isinstance(token, dict) else token
