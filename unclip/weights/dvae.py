"""DALL·E 1's dVAE: `encoder.pkl` and `decoder.pkl`, modules stored whole, read as words (Ramesh et al. 2021)."""

from unclip.models.dvae import DVAEDecoder, DVAEDecoderConfig, DVAEEncoder, DVAEEncoderConfig
from unclip.weights.family import Family, From, Names, Schema

PARTS = {"weight": "w", "bias": "b"}


def names(_: object) -> Names:
    found: dict[str, str | From] = {}
    for ours, theirs in PARTS.items():
        found[f"first.{ours}"], found[f"last.{ours}"] = f"blocks.input.{theirs}", f"blocks.output.conv.{theirs}"
        for level in range(4):
            for block in range(8):  # they count from 1
                block_path = f"blocks.group_{level + 1}.block_{block + 1}"
                ours_path = f"levels.{level}.blocks.{block}"
                found[f"{ours_path}.skip.{ours}"] = f"{block_path}.id_path.{theirs}"
                for conv in range(4):
                    found[f"{ours_path}.convs.{conv}.{ours}"] = f"{block_path}.res_path.conv_{conv + 1}.{theirs}"
    return found


def depth(found: Schema) -> int:
    return found.count("blocks.group_1.block_{i}.{rest}")


def encoder(found: Schema) -> DVAEEncoderConfig:
    return DVAEEncoderConfig(found.size("blocks.input.w"), found.size("blocks.output.conv.w"), depth(found))


def decoder(found: Schema) -> DVAEDecoderConfig:
    width, first = found.size("blocks.output.conv.w", 1), found.size("blocks.input.w")
    return DVAEDecoderConfig(width, first, found.size("blocks.input.w", 1), depth(found))


SIGNS = ("blocks.input.w", "blocks.output.conv.w", "blocks.group_4.block_1.id_path.w")
DVAE_ENCODER = Family(
    "DALL·E 1 dVAE encoder", "autoencoder", SIGNS, encoder, DVAEEncoder, names,
    published={"": DVAEEncoderConfig()}, licence="modified MIT",
)  # fmt: skip
DVAE_DECODER = Family(
    "DALL·E 1 dVAE decoder", "autoencoder", (*SIGNS, "blocks.group_1.block_1.id_path.w"), decoder, DVAEDecoder, names,
    published={"": DVAEDecoderConfig()}, licence="modified MIT",
)  # fmt: skip
