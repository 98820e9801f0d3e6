"""Whether the parts of a system belong together."""

from unclip.errors import UnclipError
from unclip.models.clip import CLIP
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.prior_ar import PriorAR
from unclip.models.tokenizer import Tokenizer
from unclip.models.upsampler import Upsampler


def check_fit(tokenizer: Tokenizer, clip: CLIP, prior: Prior, decoder: Decoder, upsampler: Upsampler | None,
              upsampler_1024: Upsampler | None, prior_ar: PriorAR | None) -> None:  # fmt: skip
    """Parts that were not trained together would draw noise without a word."""
    c, d = clip.config, decoder.config
    priors = {"prior": prior.config} | ({"prior_ar": prior_ar.config} if prior_ar else {})
    agree = {
        "embedding spaces": {"clip": c.embed, "decoder": d.embed} | {name: p.embed for name, p in priors.items()},
        "widths of encoded text": {"clip": c.text.width} | {name: p.text for name, p in priors.items()},
        "caption lengths": {"clip": c.context} | {name: p.context for name, p in priors.items()},
        "vocabularies": {"clip": c.vocab, "decoder": d.vocab},
        "end tokens": {"tokenizer": tokenizer.end, "clip": c.end},
        "small pictures": {"decoder": d.size} | ({"upsampler": upsampler.config.low} if upsampler else {}),
        "pictures between the upsamplers": {
            "upsampler": upsampler.config.size, "upsampler_1024": upsampler_1024.config.low
        } if upsampler and upsampler_1024 else {},
    }
    for what, values in agree.items():
        if len(set(values.values())) > 1:
            raise UnclipError(f"these parts have different {what}: {values}; use parts trained on one CLIP")
    if tokenizer.vocab_size > c.vocab:
        raise UnclipError(f"the tokenizer has {tokenizer.vocab_size} entries, but CLIP knows {c.vocab}; use CLIP's own")
