"""The hidden vocabulary: strings of tokens, no word among them, that mean a concept to the text encoder.

Daras & Dimakis 2022 (2206.00169) found that DALL·E 2 answers to words of no language. Here they are looked for: the
text embedding z_t of a string is brought near the mean z_i of a concept's pictures, one token at a time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.tokenizer import Tokenizer

BATCH = 512


@dataclass(frozen=True)
class Found:
    text: str
    cosine: float  # of its z_t to the concept's mean z_i
    beside: float  # the same of the concept's own name


def pieces(tokenizer: Tokenizer, words: set[str]) -> list[str]:
    """Tokens that can stand in an invented word: letters of the Latin alphabet, two or more, and no word of `words`."""
    texts = {tokenizer.bpe.decode([i]).strip().lower() for i in range(tokenizer.vocab_size)}
    return sorted(t for t in texts if re.fullmatch(r"[a-z]{2,5}", t) and t not in words)


@torch.no_grad()
def embed(clip: CLIP, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    ids = tokenizer.encode(list(texts), clip.config.context)[0]
    longest = int((ids != 0).sum(1).max())
    parts = ids[:, :longest].to(clip.log_scale.device).split(BATCH)
    return torch.cat([clip.encode_text(part)[1] for part in parts])


def search(
    clip: CLIP,
    tokenizer: Tokenizer,
    concept: str,
    pictures: Tensor,
    words: set[str],
    *,
    length: int = 3,
    rounds: int = 2,
    most: int = 800,
    seed: int = 0,
) -> Found:
    """An invented phrase of `length` words, each of two pieces, as near as can be found to z_i of `pictures`
    [N, 3, S, S]. Each round tries up to `most` pieces at every place and keeps the best.

    words: what counts as a word and may not appear. Raises UnclipError without pictures.
    """
    if not len(pictures):
        raise UnclipError(f"no picture of {concept!r} in the corpus; name a concept that its captions name")
    with torch.no_grad():
        target = F.normalize(clip.encode_image(pictures).mean(0), dim=0)
    g = torch.Generator().manual_seed(seed)
    known = [p for p in pieces(tokenizer, words) if concept.lower() not in p and p not in concept.lower()]
    parts = [known[i] for i in torch.randint(len(known), (2 * length,), generator=g).tolist()]
    best = (embed(clip, tokenizer, [phrase(parts)])[0] @ target).item()
    for _ in range(rounds):
        for place in range(len(parts)):
            tried = [known[i] for i in torch.randperm(len(known), generator=g)[:most].tolist()]
            lines = [[*parts[:place], piece, *parts[place + 1 :]] for piece in tried]
            lines = [line for line in lines if not set(phrase(line).split()) & words]
            scores = embed(clip, tokenizer, [phrase(line) for line in lines]) @ target
            if scores.max() > best:
                best, parts = scores.max().item(), lines[int(scores.argmax())]
    return Found(phrase(parts), best, (embed(clip, tokenizer, [concept])[0] @ target).item())


def phrase(parts: Sequence[str]) -> str:
    """Pieces, two a word: "apo" "ploe" → "apoploe"."""
    return " ".join("".join(parts[i : i + 2]) for i in range(0, len(parts), 2))
