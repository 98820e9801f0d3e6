"""Beside the packages that others use, each with random weights at a tiny size: the same outputs, key for key.

They are no dependency of ours: a test whose package is absent is skipped. torchvision, which some import but do not
need for this, is stood in for.
"""

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import unclip
from unclip.weights.load import fit

pytestmark = pytest.mark.slow


def near(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
def shaken(net: nn.Module) -> nn.Module:
    """Random weights that are nowhere zero or one, and running statistics to match."""
    g = torch.Generator().manual_seed(0)
    for name, p in [*net.named_parameters(), *net.named_buffers()]:
        if p.is_floating_point() and not name.endswith("attn_mask"):
            noise = torch.randn(p.shape, generator=g).to(p) * 0.1
            p.copy_(noise.abs() + 0.5 if name.endswith("running_var") else p + noise)
    return net.eval().requires_grad_(False)


def alone(package: str, module: str) -> ModuleType:
    """One module of a package, without the package's own imports."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs {package}")
    path = Path(next(iter(found.submodule_search_locations))) / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"{package}_{module}", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def pictures(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def captions(vocab: int, length: int) -> Tensor:
    return torch.tensor([[1, 5, 9, vocab - 1] + [0] * (length - 4), [1, 5, 3, 2, 7, vocab - 1] + [0] * (length - 6)])


def test_openai_clip(tmp_path):
    """The published class, a ViT and a ResNet, saved as a state dict and as a TorchScript archive in half precision."""
    model = alone("clip", "model")
    towers = {"vit": (32, 2, 64, 8), "resnet": (64, (1, 2, 1, 1), 64, None)}
    for name, (size, layers, width, patch) in towers.items():
        theirs = shaken(model.CLIP(24, size, layers, width, patch, 8, 50, 64, 1, 2))
        torch.save(theirs.state_dict(), tmp_path / name)
        ours = unclip.load(tmp_path / name)
        x, tokens = pictures(size), captions(50, 8)
        near(ours.image(x), theirs.encode_image(x))
        near(ours.text(tokens)[1], theirs.encode_text(tokens))
        for key in ("input_resolution", "context_length", "vocab_size"):
            theirs.__dict__.pop(key, None)
            theirs.register_buffer(key, torch.tensor(size))
        model.convert_weights(theirs)
        torch.jit.trace(theirs.float(), (x, tokens))  # what is traced can be scripted and stored
        archive = torch.jit.trace(theirs, (x, tokens))
        torch.jit.save(archive, tmp_path / f"{name}.jit")
        m, file = fit(tmp_path / f"{name}.jit")
        assert file.schema.about == {"torchscript": True}
        assert m.config == ours.config
        near(unclip.load(tmp_path / f"{name}.jit").image(x), theirs.encode_image(x))


def test_open_clip(torchvision, tmp_path):
    """bigG's form: heads that are not 64 wide, a hidden layer that is not four times as wide."""
    pytest.importorskip("open_clip")
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    from unclip.weights.openai_clip import HEADS

    width = 1664 // 16
    vision = CLIPVisionCfg(layers=2, width=1664, head_width=width, mlp_ratio=4.9231, patch_size=14, image_size=28)
    theirs = shaken(CLIP(24, vision, CLIPTextCfg(context_length=8, vocab_size=50, width=64, heads=1, layers=2)))
    torch.save(theirs.state_dict(), tmp_path / "x")
    ours = unclip.load(tmp_path / "x", family="open_clip")
    assert ours.config.image.heads == HEADS[1664] == 16
    x, tokens = pictures(28), captions(50, 8)
    near(ours.image(x), theirs.encode_image(x))
    near(ours.text(tokens)[1], theirs.encode_text(tokens))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_hugging_face_clip(tmp_path, activation):
    transformers = pytest.importorskip("transformers")
    text = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "eos_token_id": 49,
            "num_attention_heads": 4, "max_position_embeddings": 8, "hidden_act": activation}  # fmt: skip
    vision = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3,
              "image_size": 32, "patch_size": 8, "hidden_act": activation}  # fmt: skip
    x, tokens = pictures(32), captions(50, 8)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    whole = shaken(transformers.CLIPModel(config))
    whole.save_pretrained(tmp_path / "whole")
    ours = unclip.load(tmp_path / "whole")
    both = whole(input_ids=tokens, pixel_values=x)
    z_i, z_t = (nn.functional.normalize(z, dim=-1) for z in (ours.image(x), ours.text(tokens)[1]))
    near(z_i, both.image_embeds)
    near(z_t, both.text_embeds)
    near(ours.log_scale.exp() * z_i @ z_t.T, both.logits_per_image)

    caption = shaken(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**text, projection_dim=24)))
    caption.save_pretrained(tmp_path / "text")
    sequence, z_t = unclip.load(tmp_path / "text")(tokens)
    near(sequence, caption(tokens).last_hidden_state)
    near(z_t, caption(tokens).text_embeds)

    picture = transformers.CLIPVisionConfig(**vision, projection_dim=24)
    picture = shaken(transformers.CLIPVisionModelWithProjection(picture))
    picture.save_pretrained(tmp_path / "image")
    near(unclip.load(tmp_path / "image")(x), picture(x).image_embeds)


def test_clip_goes_back_to_hugging_face(tmp_path, cli):
    transformers = pytest.importorskip("transformers")
    clip = alone("clip", "model")
    theirs = shaken(clip.CLIP(24, 32, 1, 64, 8, 77, 50, 64, 1, 1))
    torch.save(theirs.state_dict(), tmp_path / "x.pt")
    assert cli("convert", tmp_path / "x.pt", tmp_path / "hf", "--to", "diffusers").code == 0
    back = transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval()
    tokens, pictures = torch.tensor([[48, 5, 7, 49, *[0] * 73]]), torch.randn(1, 3, 32, 32)
    out = back(input_ids=tokens, pixel_values=pictures)
    text, image = (F.normalize(v, dim=-1) for v in (theirs.encode_text(tokens), theirs.encode_image(pictures)))
    near(out.text_embeds, text)
    near(out.image_embeds, image)


def test_a_sentence_encoder(tmp_path):
    """BERT of transformers, and the mean over tokens that sentence-transformers takes of it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
        max_position_embeddings=16, layer_norm_eps=1e-12,
    )  # fmt: skip
    theirs = shaken(transformers.BertModel(config))
    theirs.save_pretrained(tmp_path / "bert")
    tokens = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    tokens[1, 6:], tokens[2, 2:] = 0, 0
    seen = tokens != 0
    sequence = theirs(input_ids=tokens, attention_mask=seen).last_hidden_state * seen[..., None]
    found, mean = unclip.load(tmp_path / "bert")(tokens)
    near(found * seen[..., None], sequence)
    near(mean, sequence.sum(1) / seen.sum(1, keepdim=True))


def test_dalle_1(tmp_path):
    """Modules pickled whole, as they were published: neither the package nor its classes are touched."""
    sys.modules.setdefault("requests", ModuleType("requests"))
    pytest.importorskip("dall_e")
    from dall_e.decoder import Decoder
    from dall_e.encoder import Encoder

    encoder, decoder = shaken(Encoder(n_hid=64, vocab_size=512)), shaken(Decoder(n_init=16, n_hid=64, vocab_size=512))
    torch.save(encoder, tmp_path / "encoder.pkl")
    torch.save(decoder, tmp_path / "decoder.pkl", _use_new_zipfile_serialization=False)
    hidden = [name for name in sys.modules if name.startswith("dall_e")]
    kept = {name: sys.modules.pop(name) for name in hidden}
    x, codes = pictures(32), torch.rand(1, 512, 4, 4, generator=torch.Generator().manual_seed(2)).softmax(1)
    near(unclip.load(tmp_path / "encoder.pkl")(x), encoder((x + 1) / 2 * 0.8 + 0.1))
    near(unclip.load(tmp_path / "decoder.pkl").statistics(codes), decoder(codes))
    assert not [name for name in sys.modules if name.startswith("dall_e")]
    sys.modules.update(kept)


def test_vqgan(tmp_path):
    """The encoder and decoder of taming-transformers, in a training state with a loss beside them."""
    pytest.importorskip("taming")
    model = alone("taming.modules.diffusionmodules", "model")
    sizes = {"ch": 32, "out_ch": 3, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "attn_resolutions": [8],
             "in_channels": 3, "resolution": 32, "z_channels": 16}  # fmt: skip
    encoder, decoder = shaken(model.Encoder(double_z=False, **sizes)), shaken(model.Decoder(**sizes))
    before, after, codes = shaken(nn.Conv2d(16, 12, 1)), shaken(nn.Conv2d(12, 16, 1)), shaken(nn.Embedding(20, 12))
    parts = {"encoder": encoder, "decoder": decoder, "quant_conv": before, "post_quant_conv": after,
             "quantize.embedding": codes, "loss.discriminator.main.0": nn.Conv2d(3, 4, 1)}  # fmt: skip
    state = {f"{name}.{key}": v for name, part in parts.items() for key, v in part.state_dict().items()}
    training = {"global_step": 3, "optimizer_states": [{"state": {0: torch.ones(3)}}]}
    torch.save({"state_dict": state, **training}, tmp_path / "x")
    ours, x = unclip.load(tmp_path / "x"), pictures(32)
    z = before(encoder(x))
    near(ours.encode(x), z)
    near(ours.decode(z), decoder(after(z)))
    flat = z.permute(0, 2, 3, 1).reshape(-1, 1, 12)
    nearest = (flat - codes.weight).square().sum(-1).argmin(1)
    assert torch.equal(ours.quantise(z).flatten(), nearest)
    near(ours.draw(ours.quantise(z)), decoder(after(codes(nearest).view(2, 8, 8, 12).permute(0, 3, 1, 2))))


def test_movq(tmp_path):
    """Kandinsky 2.2's folder: a VQModel of diffusers with spatially conditioned norms."""
    diffusers = pytest.importorskip("diffusers")
    config = {
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [32, 64, 64], "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"], "layers_per_block": 1,
        "num_vq_embeddings": 20, "vq_embed_dim": 4, "norm_type": "spatial",
    }  # fmt: skip
    theirs = shaken(diffusers.VQModel(**config))
    theirs.save_pretrained(tmp_path / "movq")
    ours, x = unclip.load(tmp_path / "movq"), pictures(32)
    z = theirs.encode(x).latents
    near(ours.encode(x), z)
    near(ours.decode(z), theirs.decode(z, force_not_quantize=True).sample)


def test_folders_in_several_files(tmp_path):
    model = alone("clip", "model")
    state = shaken(model.CLIP(24, 32, 1, 64, 8, 8, 50, 64, 1, 1)).state_dict()
    names = sorted(state)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for name, keys in shards.items():
        save_file({key: state[key].contiguous() for key in keys}, tmp_path / name)
    index = {"weight_map": {key: name for name, keys in shards.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    ours = unclip.load(tmp_path)
    assert torch.equal(ours.text.tokens.weight, state["token_embedding.weight"])
