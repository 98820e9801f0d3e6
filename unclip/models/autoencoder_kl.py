"""The autoencoder of latent diffusion (Rombach et al. 2021, 2112.10752): VQGAN's, with Gaussians in place of codes."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from unclip.models.vqgan import Decoder, Encoder, VQGANConfig
from unclip.nn.resnet import Pointwise


@dataclass(frozen=True)
class AutoencoderKLConfig(VQGANConfig):
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    attention: tuple[int, ...] = ()
    latent: int = 4
    embed: int = 4
    codes: int = 0  # there are none
    scale: float = 0.18215  # brings the latents to unit variance


class AutoencoderKL(nn.Module):
    """pictures [B, 3, H, W] in [−1, 1] ↔ z [B, embed, H / f, W / f] of unit variance, f = 2^(levels − 1)."""

    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        self.config = c = config
        self.encoder, self.decoder = Encoder(replace(c, latent=2 * c.latent)), Decoder(c)
        self.before, self.after = Pointwise(2 * c.latent, 2 * c.embed, 1), Pointwise(c.embed, c.latent, 1)

    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | picture), each [B, embed, H / f, W / f], before they are scaled."""
        mean, log_var = self.before(self.encoder(pictures)).chunk(2, dim=1)
        return mean, log_var

    def encode(self, pictures: Tensor) -> Tensor:
        """The likeliest z."""
        return self.config.scale * self.moments(pictures)[0]

    def decode(self, z: Tensor) -> Tensor:
        z = z / self.config.scale
        return self.decoder(self.after(z), z)
