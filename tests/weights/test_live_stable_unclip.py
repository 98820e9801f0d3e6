"""Stable unCLIP beside diffusers: tiny pipelines of random weights that diffusers saved, drawn by both from the same
noise, and each of their networks."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unclip
from unclip.errors import UnclipError
from unclip.pipeline import UnCLIP
from unclip.published.stable_unclip import StableUnCLIP
from unclip.settings import Settings
from unclip.weights.families import FAMILIES
from unclip.weights.family import Schema, Spec
from unclip.weights.match import recognise

pytestmark = pytest.mark.slow
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction",
          "steps_offset": 1}  # fmt: skip
SCHEDULERS = {
    "PNDM, as published": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "DDIM, clipped": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "DDPM": ("DDPMScheduler", {"clip_sample": True}),
}
UNET = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "block_out_channels": (32, 64), "attention_head_dim": (2, 4),
    "class_embed_type": "projection", "projection_class_embeddings_input_dim": 64, "cross_attention_dim": 32,
    "layers_per_block": 1, "use_linear_projection": True,
}  # fmt: skip


@pytest.fixture
def parts(clip_tokenizer) -> dict[str, Any]:
    d, t = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    torch.manual_seed(0)
    clip_tokenizer.pad_token = "!"  # as published, for the decoder sees padding
    text = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2,
            "projection_dim": 32, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}  # fmt: skip
    noise = {"beta_schedule": "squaredcos_cap_v2"}
    normaliser = StableUnCLIPImageNormalizer(32)
    normaliser.mean.data.normal_()
    normaliser.std.data.uniform_(0.5, 1.5)
    prior = d.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1)
    prior.clip_mean.data, prior.clip_std.data = torch.randn(1, 32) * 0.1, torch.rand(1, 32) + 0.5
    vae = {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2,
           "up_block_types": ("UpDecoderBlock2D",) * 2}  # fmt: skip
    return {
        "tokenizer": clip_tokenizer, "unet": d.UNet2DConditionModel(**UNET),
        "text_encoder": t.CLIPTextModel(t.CLIPTextConfig(**text, hidden_act="gelu")), "vae": d.AutoencoderKL(**vae),
        "image_normalizer": normaliser, "image_noising_scheduler": d.DDPMScheduler(**noise), "prior": prior,
        "prior_text_encoder": t.CLIPTextModelWithProjection(t.CLIPTextConfig(**text)),
        "prior_scheduler": d.DDPMScheduler(**noise, prediction_type="sample", clip_sample_range=5.0),
        "image_encoder": t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(
            hidden_size=32, projection_dim=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
            image_size=32, patch_size=8)),
        "feature_extractor": t.CLIPImageProcessor(crop_size=32, size=32),
    }  # fmt: skip


def save(parts: dict[str, Any], kind: str, folder: Path, which: str = "PNDM, as published") -> Any:
    d = pytest.importorskip("diffusers")
    name, settings = SCHEDULERS[which]
    common = ("tokenizer", "unet", "text_encoder", "vae", "image_normalizer", "image_noising_scheduler")
    own = {"StableUnCLIPPipeline": ("prior", "prior_text_encoder", "prior_scheduler"),
           "StableUnCLIPImg2ImgPipeline": ("image_encoder", "feature_extractor")}[kind]  # fmt: skip
    given = {key: parts[key] for key in (*common, *own)} | {"scheduler": getattr(d, name)(**LATENT, **settings)}
    if "prior" in given:
        given["prior_tokenizer"] = given["tokenizer"]
    pipe = getattr(d, kind)(**given)
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def near(x: Tensor, theirs: Any) -> None:
    assert theirs.std() > 0.05
    assert abs((x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() - theirs).max() < 1e-4


def with_prior(folder: Path) -> UnCLIP:
    """The folder that varies pictures, with the prior of the other in a folder of its own, as Karlo's is."""
    for name in ("prior", "prior_scheduler", "prior_text_encoder", "prior_tokenizer"):
        place = folder / "karlo" / (name if name in ("prior", "prior_scheduler") else name.removeprefix("prior_"))
        shutil.copytree(folder / "text" / name, place)
    (folder / "karlo" / "model_index.json").write_text("{}")
    return UnCLIP.from_pretrained(folder / "image", prior=folder / "karlo")


def picture() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 71, 3), dtype=np.uint8)).resize((142, 80))


@torch.inference_mode()
@pytest.mark.parametrize("which", SCHEDULERS)
def test_a_caption_becomes_the_same_picture(parts, replay, tmp_path, which):
    pipe = save(parts, "StableUnCLIPPipeline", tmp_path, which)
    theirs = pipe("a red fox", generator=replay(3).generators[0], noise_level=40, negative_prompt="a dog",
                  output_type="np").images  # fmt: skip
    ours, draw = UnCLIP.from_pretrained(tmp_path), replay(3)
    assert isinstance(ours, StableUnCLIP)
    s = Settings(**ours.defaults, noise_level=40)
    z_i = ours.sample_prior("a red fox", "", draw, s, lambda *_: None)
    near(ours.decode(z_i, "a red fox", "a dog", draw, s, lambda *_: None), theirs)


@torch.inference_mode()
@pytest.mark.parametrize("level", [0, 500])
def test_a_picture_varies_in_the_same_way(parts, replay, tmp_path, level):
    pipe = save(parts, "StableUnCLIPImg2ImgPipeline", tmp_path)
    theirs = pipe(picture(), "a red fox", generator=replay(3).generators[0], noise_level=level, output_type="np").images
    ours = UnCLIP.from_pretrained(tmp_path)
    assert isinstance(ours, StableUnCLIP)
    s = Settings(**ours.defaults, noise_level=level)
    near(ours.decode(ours.look(picture()), "a red fox", "", replay(3), s, lambda *_: None), theirs)


def test_as_a_user_would(parts, tmp_path):
    save(parts, "StableUnCLIPImg2ImgPipeline", tmp_path / "image")
    save(parts, "StableUnCLIPPipeline", tmp_path / "text")
    image, text = (UnCLIP.from_pretrained(tmp_path / name) for name in ("image", "text"))
    assert isinstance(image, StableUnCLIP)
    drawn = image.variations(picture(), n=2, prompt="a fox", noise_level=20, steps=2, progress=False)
    assert [p.size for p in drawn.images] == [(32, 32)] * 2
    assert drawn.params["guidance"] == 10 and drawn.params["sampler"] == "plms" and drawn.params["noise_level"] == 20
    led = with_prior(tmp_path)
    assert led.generate("a red fox", steps=2, prior_steps=2, progress=False).images[0].size == (32, 32)
    assert len(led.text_diff(picture(), "a dog", frames=2, steps=3, prior_steps=2, progress=False).images) == 2
    for bad in (lambda: image.generate("a red fox", progress=False), lambda: text.variations(picture(), progress=False),
                lambda: led.generate("a fox", noise_level=1000, progress=False)):  # fmt: skip
        with pytest.raises(UnclipError) as e:
            bad()
        assert "\n" not in str(e.value)


@torch.no_grad()
def test_each_network(parts, tmp_path):
    for name in ("unet", "vae", "text_encoder"):
        parts[name].save_pretrained(tmp_path / name)
    x, text, t = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 32), torch.tensor([7, 500])
    z_i, small = torch.randn(2, 64), torch.randn(2, 3, 32, 32)

    def same(ours: Tensor, theirs: Tensor) -> None:
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()

    net = unclip.load(tmp_path / "unet")
    same(net(x, t, net.condition(z_i, text)), parts["unet"](x, t, text, class_labels=z_i).sample)
    net, theirs = unclip.load(tmp_path / "vae"), parts["vae"]
    same(net.decode(x), theirs.decode(x / 0.18215).sample)
    for ours, moment in zip(net.moments(small), theirs.encode(small).latent_dist.parameters.chunk(2, 1), strict=True):
        same(ours, moment)
    tokens = torch.randint(0, 1000, (2, 77))
    same(unclip.load(tmp_path / "text_encoder")(tokens)[0], parts["text_encoder"](tokens).last_hidden_state)


def test_heads_that_are_as_many_at_each_level(parts, tmp_path):
    """As Stable Diffusion 1 has them; and what is not known is refused."""
    d = pytest.importorskip("diffusers")
    theirs = d.UNet2DConditionModel(**UNET | {"attention_head_dim": 8})
    theirs.save_pretrained(tmp_path / "a")
    assert unclip.load(tmp_path / "a").config.unet.heads == 8
    for i, other in enumerate(({"attention_head_dim": (2, 8)}, {"norm_num_groups": 16}, {"freq_shift": 1})):
        d.UNet2DConditionModel(**UNET | other).save_pretrained(tmp_path / str(i))
        with pytest.raises(UnclipError, match="its config.json asks for"):
            unclip.load(tmp_path / str(i))


@pytest.mark.parametrize(("embed", "member"), [(1024, "2.1"), (768, "2.1 small")])
def test_the_published_sizes(embed, member):
    """The whole U-Net, autoencoder (its attention also as it was named in 2023) and text encoder, without memory."""
    d, t = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    full = {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": (5, 10, 20, 20), "sample_size": 96,
            "cross_attention_dim": 1024, "projection_class_embeddings_input_dim": 2 * embed, "layers_per_block": 2,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3}  # fmt: skip
    with torch.device("meta"):
        unet = d.UNet2DConditionModel(**UNET | full)
        vae = d.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                              down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                              )  # fmt: skip
        text = t.CLIPTextModel(t.CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
                                                num_attention_heads=16, hidden_act="gelu"))  # fmt: skip

    def found(net: Any, **renamed: str) -> Schema:
        specs = {key: Spec(tuple(v.shape), "float32") for key, v in net.state_dict().items()}
        for old, new in renamed.items():
            specs = {key.replace(f".{old}.", f".{new}."): spec for key, spec in specs.items()}
        return Schema(specs, {"config": {k: list(v) if isinstance(v, tuple) else v for k, v in net.config.items()}}
                      if hasattr(net.config, "items") else {"config": net.config.to_dict()})  # fmt: skip

    assert recognise(found(unet), FAMILIES, "x").title == f"Stable unCLIP {member}"
    assert recognise(found(vae), FAMILIES, "x").member == "f8"
    old = found(vae, to_q="query", to_k="key", to_v="value")
    old = Schema({key.replace("to_out.0", "proj_attn"): spec for key, spec in old.items()}, old.about)
    assert recognise(old, FAMILIES, "x").member == "f8"
    short = found(text)
    assert "23 layers" in recognise(short, FAMILIES, "x").title
    long = Schema({f"text_model.{key}": spec for key, spec in short.items()}, short.about)
    assert "23 layers" in recognise(long, FAMILIES, "x").title


@torch.inference_mode()
@pytest.mark.parametrize("which", SCHEDULERS)
@pytest.mark.parametrize("kind", ["StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline"])
def test_diffusers_loads_what_is_written_for_it(parts, same_tensors, tmp_path, cli, kind, which):
    """To a folder of ours, and back: each tensor and the picture."""
    pipe = save(parts, kind, tmp_path / "theirs", which)
    assert cli("convert", tmp_path / "theirs", tmp_path / "ours").code == 0
    assert cli("convert", tmp_path / "ours", tmp_path / "back", "--to", "diffusers").code == 0
    names = [path.parent.name for path in (tmp_path / "theirs").glob("*/*.safetensors")]
    same_tensors({tmp_path / "theirs" / name: tmp_path / "back" / name for name in names if name != "text_encoder"})
    back = type(pipe).from_pretrained(tmp_path / "back")
    back.set_progress_bar_config(disable=True)
    true = pipe.text_encoder.state_dict()  # which has other names in files of an older transformers
    assert back.text_encoder.state_dict().keys() == true.keys()
    assert all(torch.equal(w, true[key]) for key, w in back.text_encoder.state_dict().items())
    told = ["a red fox"] if kind == "StableUnCLIPPipeline" else [picture(), "a red fox"]
    drawn = [p(*told, generator=torch.Generator().manual_seed(3), noise_level=40, output_type="np",
               num_inference_steps=5).images for p in (pipe, back)]  # fmt: skip
    assert drawn[0].std() > 0.05 and abs(drawn[0] - drawn[1]).max() < 1e-4
    if kind == "StableUnCLIPPipeline":
        systems = [UnCLIP.from_pretrained(tmp_path / name) for name in ("theirs", "ours", "back")]
        few = {"steps": 3, "prior_steps": 2, "progress": False}
        assert len({system.generate("a fox!", **few).images[0].tobytes() for system in systems}) == 1
