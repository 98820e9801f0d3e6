"""Every family that can be read. Where two look alike, the first is meant unless another is named."""

from unclip.weights.openai_clip import OPEN_CLIP, OPENAI_CLIP

FAMILIES = (OPENAI_CLIP, OPEN_CLIP)
