"""From a recognised file to a network that computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unclip.weights.checkpoint import aligned
from unclip.weights.match import Match


def fill(m: Match, read: Callable[[str], Tensor], dtype: torch.dtype = torch.float32) -> nn.Module:
    """The matched network with its tensors, floating ones as `dtype`; `read` gives a tensor of theirs by its key.

    One tensor is worked on at a time: memory beyond the network's own is that of the largest.
    """
    expected = m.net.state_dict()
    state: dict[str, Tensor] = {}
    for ours, way in m.sources.items():
        shape, kind = expected[ours].shape, dtype if expected[ours].is_floating_point() else expected[ours].dtype
        theirs = [read(key) for key in way.theirs]
        tensor = way.there(*theirs) if theirs else torch.zeros(shape)
        state[ours] = aligned(tensor.to(kind).reshape(shape).contiguous())
    m.net.load_state_dict(state, assign=True)
    return m.net.requires_grad_(False).eval()
