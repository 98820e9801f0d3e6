"""Kandinsky 2.1 and 2.2 beside diffusers: tiny pipelines of random weights that diffusers saved, drawn by both from the
same noise."""

import json
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unclip.edit.fill import kept
from unclip.edit.session import Session
from unclip.errors import UnclipError
from unclip.pipeline import UnCLIP
from unclip.published.kandinsky import NATIVE, standing
from unclip.settings import Settings
from unclip.weights import kandinsky, karlo, openai_clip, vqgan
from unclip.weights.match import prepare

pytestmark = pytest.mark.slow
DDIM = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False,
        "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon", "thresholding": False}  # fmt: skip
DDPM = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "variance_type": "learned_range",
        "clip_sample": True, "clip_sample_range": 2.0}  # fmt: skip


def shaken(net: Any) -> Any:
    """Away from the zeros that networks begin with."""
    g = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=g)
    return net.eval()


@pytest.fixture
def d() -> Any:
    return pytest.importorskip("diffusers")


@pytest.fixture
def t() -> Any:
    return pytest.importorskip("transformers")


def prior(d: Any, t: Any, tokenizer: Any, kind: str, embed: int = 32) -> Any:
    torch.manual_seed(0)
    text = t.CLIPTextConfig(
        hidden_size=embed, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, projection_dim=embed,
        vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
    )  # fmt: skip
    image = t.CLIPVisionConfig(hidden_size=32, image_size=28, projection_dim=embed, intermediate_size=37, patch_size=14,
                               num_attention_heads=4, num_hidden_layers=2)  # fmt: skip
    net = d.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=embed, num_layers=1)
    net.clip_mean.data, net.clip_std.data = torch.randn(1, embed) * 0.1, torch.rand(1, embed) + 0.5
    scheduler = d.UnCLIPScheduler(prediction_type="sample", clip_sample_range=10.0)
    pipe = getattr(d, kind)(
        prior=shaken(net), image_encoder=shaken(t.CLIPVisionModelWithProjection(image)),
        text_encoder=shaken(t.CLIPTextModelWithProjection(text)), tokenizer=tokenizer, scheduler=scheduler,
        image_processor=t.CLIPImageProcessor(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet(d: Any, joined: int = 0, **more: Any) -> Any:
    torch.manual_seed(1)
    return shaken(d.UNet2DConditionModel(
        sample_size=8, in_channels=4 + joined, out_channels=8, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=32,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
        class_embed_type=None, **more,
    ))  # fmt: skip


def movq(d: Any, gain: float) -> Any:
    torch.manual_seed(2)
    net = shaken(d.VQModel(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=[32, 32, 64, 64], act_fn="silu",
        down_block_types=["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"], layers_per_block=1,
        up_block_types=["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3, num_vq_embeddings=12, vq_embed_dim=4,
        norm_num_groups=8, norm_type="spatial",
    ))  # fmt: skip
    for p in net.decoder.conv_out.parameters():
        p.data *= gain
    return net


IMAGE = {"encoder_hid_dim": 32, "encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}


@pytest.fixture
def kandinsky_22(d, t, clip_tokenizer, tmp_path) -> Any:
    """A function of the scheduler; the pipelines are saved as 'decoder' and 'prior'."""

    def make(scheduler: Any) -> Any:
        # Latents of a random network are large unless they are bounded; the picture is to lie within its range.
        gain = 0.3 if scheduler.config.clip_sample or scheduler.config.thresholding else 0.01
        first = prior(d, t, clip_tokenizer, "KandinskyV22PriorPipeline")
        second = d.KandinskyV22Pipeline(unet=unet(d, **IMAGE), scheduler=scheduler, movq=movq(d, gain))
        second.set_progress_bar_config(disable=True)
        first.save_pretrained(tmp_path / "prior")
        second.save_pretrained(tmp_path / "decoder")
        return SimpleNamespace(prior=first, decoder=second)

    return make


@pytest.fixture
def kandinsky_21(d, t, clip_tokenizer, tmp_path) -> Any:
    """Saved as 'decoder' and 'prior'."""
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

    torch.manual_seed(3)
    pieces = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces += [(f"▁{word}", -3.0) for word in ("a", "red", "fox", "hat")] + [(c, -9.0) for c in "▁abcdefghijklmno"]
    config = MCLIPConfig(24, 32, hidden_size=24, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3,
                         vocab_size=40, max_position_embeddings=90)  # fmt: skip
    first = prior(d, t, clip_tokenizer, "KandinskyPriorPipeline")
    net = unet(d, encoder_hid_dim=24, encoder_hid_dim_type="text_image_proj", addition_embed_type="text_image")
    second = d.KandinskyPipeline(
        text_encoder=shaken(MultilingualCLIP(config)), unet=net, scheduler=d.DDIMScheduler(**DDIM), movq=movq(d, 0.01),
        tokenizer=t.XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)]),
    )  # fmt: skip
    second.set_progress_bar_config(disable=True)
    first.save_pretrained(tmp_path / "prior")
    second.save_pretrained(tmp_path / "decoder")
    return SimpleNamespace(prior=first, decoder=second)


def ours_drawn(system: UnCLIP, noise: Any, negative: str = "", **settings: Any) -> tuple[Tensor, Any]:
    s, rest = Settings(**system.defaults | {"size": 64} | settings), ("a red fox", negative, noise)
    z_i = system.sample_prior(*rest, s, lambda *_: None)
    return z_i, (system.decode(z_i, *rest, s, lambda *_: None) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
@torch.inference_mode()
def test_kandinsky_2_2_draws_the_same(kandinsky_22, d, replay, tmp_path, scheduler):
    pipe = kandinsky_22(d.DDIMScheduler(**DDIM) if scheduler == "ddim" else d.DDPMScheduler(**DDPM))
    g = torch.Generator().manual_seed(3)
    z_i, null = pipe.prior("a red fox", generator=g).to_tuple()
    theirs = pipe.decoder(z_i, null, height=64, width=64, generator=g, output_type="np").images
    system = UnCLIP.from_pretrained(tmp_path / "decoder", prior=tmp_path / "prior")
    own, drawn = ours_drawn(system, replay(3))
    assert (own - z_i).abs().max() < 1e-4
    assert abs(drawn - theirs).max() < 1e-4
    assert theirs.std() > 0.05 and ((theirs > 0) & (theirs < 1)).mean() > 0.5


@torch.inference_mode()
def test_kandinsky_2_1_draws_the_same(kandinsky_21, replay, tmp_path):
    pipe, g = kandinsky_21, torch.Generator().manual_seed(3)
    z_i, null = pipe.prior("a red fox", generator=g).to_tuple()
    theirs = pipe.decoder("a red fox", z_i, null, height=64, width=64, generator=g, output_type="np").images
    system: Any = UnCLIP.from_pretrained(tmp_path)
    texts = ["a red fox in a hat", "", "cab", "  hat\t\nq "]
    read = system.words.read(texts, system.device)
    for own, other in zip(read, reversed(pipe.decoder._encode_prompt(texts, "cpu", 1, False)[:2]), strict=True):
        assert (own - other).abs().max() < 1e-5
    own, drawn = ours_drawn(system, replay(3))
    assert (own - z_i).abs().max() < 1e-4
    assert abs(drawn - theirs).max() < 1e-4
    assert theirs.std() > 0.05 and ((theirs > 0) & (theirs < 1)).mean() > 0.5
    assert system.cut("a red fox " * 40).startswith("a red fox a") and not system.cut("a red fox")


@torch.inference_mode()
def test_the_decoder_led_by_depth_draws_the_same(d, t, clip_tokenizer, replay, tmp_path):
    first = prior(d, t, clip_tokenizer, "KandinskyV22PriorPipeline")
    net = unet(d, 4, **IMAGE | {"addition_embed_type": "image_hint"})
    for p in net.add_embedding.input_hint_block.parameters():
        p.data *= 2  # or a picture fades away on its way through eight random layers
    pipe = d.KandinskyV22ControlnetPipeline(unet=net, scheduler=d.DDPMScheduler(**DDPM), movq=movq(d, 0.3))
    pipe.set_progress_bar_config(disable=True)
    first.save_pretrained(tmp_path / "prior")
    pipe.save_pretrained(tmp_path / "decoder")
    g, system = torch.Generator().manual_seed(3), UnCLIP.from_pretrained(tmp_path)
    depth = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    depth.save(tmp_path / "depth.png")
    depth.transpose(Image.Transpose.ROTATE_90).crop((0, 0, 64, 40)).resize((64, 64)).save(tmp_path / "other.png")
    z_i, null = first("a red fox", generator=g).to_tuple()
    hint = torch.from_numpy(np.array(depth)).permute(2, 0, 1)[None] / 255
    theirs = pipe(z_i, null, hint, height=64, width=64, num_inference_steps=10, generator=g, output_type="np").images
    own, drawn = ours_drawn(system, replay(3), hint=str(tmp_path / "depth.png"), steps=10)
    assert (own - z_i).abs().max() < 1e-4
    assert abs(drawn - theirs).max() < 1e-4
    assert abs(ours_drawn(system, replay(3), hint=str(tmp_path / "other.png"), steps=10)[1] - drawn).max() > 1e-3


@torch.inference_mode()
def test_the_inpainting_decoder_fills_in_the_same(d, t, clip_tokenizer, replay, tmp_path):
    """As published: the known part joined by channel and put back after each step."""
    first = prior(d, t, clip_tokenizer, "KandinskyV22PriorPipeline")
    pipe = d.KandinskyV22InpaintPipeline(unet=unet(d, 5, **IMAGE), scheduler=d.DDPMScheduler(**DDPM), movq=movq(d, 0.3))
    pipe.set_progress_bar_config(disable=True)
    first.save_pretrained(tmp_path / "prior")
    pipe.save_pretrained(tmp_path / "decoder")
    system: Any = UnCLIP.from_pretrained(tmp_path)
    picture, new = Image.new("RGB", (64, 64), (200, 40, 90)), Image.new("L", (64, 64), 0)
    new.paste(255, (10, 20, 45, 52))
    g, (x0, known) = torch.Generator().manual_seed(5), kept(picture, new, 64)
    x0 = torch.where(known, x0, torch.tensor(-1.0))  # both see nothing of what is drawn anew
    z_i, null = torch.randn(1, 32, generator=g), system.absent("")
    g.manual_seed(6)
    theirs = pipe(z_i, x0.clone(), (~known[:, :1]).float(), null, height=64, width=64, num_inference_steps=10,
                  generator=g, output_type="pt").images  # fmt: skip
    session = Session(system, [""], steps=10, guidance=4.0, size=64)
    latent, rest = system.enter(x0), standing(known[:, :1], 8)
    assert 0 < rest.mean() < 1
    *_, (x, _) = system.filling(z_i, "", latent, rest, replay(6), session)
    assert (system.leave(x) - theirs).abs().max() < 1e-4
    drawn = system.inpaint(picture, new, "a fox", steps=2, prior_steps=2, progress=False).images[0]
    assert drawn.size == (64, 64) and drawn.getpixel((0, 0)) == (200, 40, 90) != drawn.getpixel((30, 40))
    assert system.generate("a fox", steps=2, prior_steps=2, progress=False).images[0].size == (64, 64)


def test_pictures_are_manipulated(pair, tmp_path):
    """What our own system does, through latents."""
    system, few = UnCLIP.from_pretrained(tmp_path), {"steps": 4, "prior_steps": 2, "progress": False}
    picture = Image.new("RGB", (80, 64), (200, 40, 90))
    at = system.invert(picture, **few)
    assert at.z_i.shape == (1, 32) and at.x_T.shape == (1, 4, 8, 8)
    assert len(system.variations(picture, n=2, **few).images) == 2
    assert len(system.interpolate([picture], ["a fox"], frames=3, **few).images) == 3
    assert len(system.text_diff(picture, "a fox", frames=2, **few).images) == 2
    assert system.img2img(picture, "a fox", size=128, **few).images[0].size == (128, 128)
    box = system.inpaint(picture, (10, 10, 40, 50), rounds=1, negative_prompt="grey", **few).images[0]
    assert box.size == (80, 64) and box.getpixel((0, 0)) == (200, 40, 90)


def test_kandinsky_2_1s_own_files(kandinsky_21, tmp_path):
    """The networks of a folder of diffusers under the names that they were first published with: the same weights. How
    many heads there are such files do not say, and these are not 64 wide: in attention another order comes of it."""
    system: Any = UnCLIP.from_pretrained(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    parts = [("prior", system.prior, karlo.KARLO_PRIOR), ("decoder", system.decoder, kandinsky.KANDINSKY_21),
             ("movq", system.movq, vqgan.MOVQ_21), ("clip", system.clip, openai_clip.OPENAI_CLIP)]  # fmt: skip
    for name, net, family in parts:
        ours, m = net.state_dict(), prepare(family, net.config)
        theirs = {key: tensor.clone() for name, way in m.sources.items()
                  for key, tensor in zip(way.theirs, way.back(ours[name]), strict=True)}  # fmt: skip
        torch.save(theirs, own / NATIVE[name])
    torch.save([system.prior.space.mean, system.prior.space.deviation], own / NATIVE["space"])
    shutil.copytree(tmp_path / "decoder" / "text_encoder", own / "text_encoder")
    shutil.copytree(tmp_path / "decoder" / "tokenizer", own / "text_encoder", dirs_exist_ok=True)
    again = UnCLIP.from_pretrained(own)
    for name, net in system.parts.items():
        found = again.parts[name].state_dict()
        for key, tensor in net.state_dict().items():
            assert "attention" in key or torch.equal(found[key], tensor), (name, key)
    assert again.generate("a fox", steps=2, prior_steps=2, size=64, progress=False).images[0].size == (64, 64)
    (own / NATIVE["space"]).unlink()
    with pytest.raises(UnclipError, match="lacks ViT-L-14_stats.th; put it there"):
        UnCLIP.from_pretrained(own)


@pytest.fixture
def pair(kandinsky_22, d, tmp_path) -> tuple[Any, Any]:
    kandinsky_22(d.DDPMScheduler(**DDPM))
    return tmp_path / "decoder", tmp_path / "prior"


def test_it_draws_by_its_own_defaults(pair, tmp_path):
    """From the folder that holds both; also from one with all parts in it, as a combined pipeline is saved."""
    system = UnCLIP.from_pretrained(tmp_path)
    drawn = system.generate("a red fox", steps=3, prior_steps=3, progress=False)
    assert drawn.images[0].size == (64, 64)
    assert drawn.params["guidance"] == 4.0 and drawn.params["sampler"] == "ddpm" and drawn.params["steps"] == 3
    one = tmp_path / "combined"
    shutil.copytree(pair[0], one)
    for part in pair[1].iterdir():
        if part.is_dir():
            shutil.copytree(part, one / f"prior_{part.name}")
    index = json.loads((one / "model_index.json").read_text()) | {"_class_name": "KandinskyV22CombinedPipeline"}
    (one / "model_index.json").write_text(json.dumps(index))
    again = UnCLIP.from_pretrained(one).generate("a red fox", steps=3, prior_steps=3, size=128, progress=False)
    assert again.images[0].size == (128, 128) and torch.equal(again.embeddings, drawn.embeddings)
    with pytest.raises(UnclipError, match="size is 100; these weights draw multiples of 16"):
        system.generate("a red fox", size=100)


def test_what_does_not_fit_is_told_in_a_line(pair, d, t, clip_tokenizer, tmp_path, monkeypatch):
    decoder, beside = pair
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnclipError, match=r"decoder' needs a prior beside it; name it \(prior=FOLDER\): .*2-2-prior"):
        UnCLIP.from_pretrained(decoder)
    with pytest.raises(UnclipError, match="prior' is a prior alone; name it beside its decoder"):
        UnCLIP.from_pretrained(beside)
    (beside / "scheduler" / "scheduler_config.json").rename(tmp_path / "kept")
    with pytest.raises(UnclipError, match="scheduler_config.json"):
        UnCLIP.from_pretrained(decoder, prior=beside)
    (tmp_path / "kept").rename(beside / "scheduler" / "scheduler_config.json")
    other = prior(d, t, clip_tokenizer, "KandinskyV22PriorPipeline", embed=48)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UnclipError, match="different spaces: '.*other' 48 and '.*decoder' 32 numbers"):
        UnCLIP.from_pretrained(decoder, prior=tmp_path / "other")
    shutil.rmtree(decoder / "movq")
    with pytest.raises(UnclipError, match="lacks movq; put it there"):
        UnCLIP.from_pretrained(decoder, prior=beside)


@pytest.mark.parametrize("kind", ["2.1", "2.2", "2.2 to inpaint"])
@torch.inference_mode()
def test_diffusers_loads_what_is_written_for_it(request, d, t, clip_tokenizer, same_tensors, tmp_path, cli, kind):
    """To a folder of ours, and back: each tensor, each setting, and the picture."""
    if kind == "2.2 to inpaint":
        first = prior(d, t, clip_tokenizer, "KandinskyV22PriorPipeline")
        second = d.KandinskyV22InpaintPipeline(unet=unet(d, 5, **IMAGE), scheduler=d.DDPMScheduler(**DDPM),
                                               movq=movq(d, 0.3))  # fmt: skip
        first.save_pretrained(tmp_path / "prior")
        second.save_pretrained(tmp_path / "decoder")
    elif kind == "2.2":
        pipe = request.getfixturevalue("kandinsky_22")(d.DDPMScheduler(**DDPM))
        first, second = pipe.prior, pipe.decoder
    else:
        pipe = request.getfixturevalue("kandinsky_21")
        first, second = pipe.prior, pipe.decoder
    assert cli("convert", tmp_path / "decoder", tmp_path / "ours", "--prior", tmp_path / "prior").code == 0
    assert cli("convert", tmp_path / "ours", tmp_path / "back", "--to", "diffusers").code == 0
    places = {tmp_path / "decoder" / name: name for name in ("unet", "movq", "text_encoder")}
    places |= {tmp_path / "prior" / name: f"prior_{name}" for name in ("prior", "text_encoder", "image_encoder")}
    same_tensors({theirs: tmp_path / "back" / name for theirs, name in places.items() if theirs.exists()})
    for theirs, name in places.items():
        if theirs.exists():
            true, said = (json.loads((at / "config.json").read_text()) for at in (theirs, tmp_path / "back" / name))
            assert {k for k in said if said[k] != true[k]} <= {"pad_token_id"}  # which no CLIP looks at
    back = d.DiffusionPipeline.from_pretrained(tmp_path / "back")
    assert type(back).__name__.endswith("CombinedPipeline")
    back.set_progress_bar_config(disable=True)
    few, size = {"num_inference_steps": 4, "output_type": "np"}, {"height": 64, "width": 64}
    g = torch.Generator().manual_seed(3)
    z_i, null = first("a red fox", generator=g).to_tuple()
    told = [*(["a red fox"] if kind == "2.1" else []), z_i, null]
    given = {"prompt": "a red fox", "prior_num_inference_steps": 25}
    if kind == "2.2 to inpaint":
        picture, mask = Image.new("RGB", (64, 64), (200, 40, 90)), Image.new("L", (64, 64), 255)
        told, given = [z_i, picture, mask, null], given | {"image": picture, "mask_image": mask}
    theirs = second(*told, generator=g, **few, **size).images
    again = back(generator=torch.Generator().manual_seed(3), **given, **few, **size).images
    assert abs(theirs - again).max() < 1e-4
    few = {"steps": 2, "prior_steps": 2, "progress": False}
    systems = [UnCLIP.from_pretrained(tmp_path / "decoder", prior=tmp_path / "prior"),
               UnCLIP.from_pretrained(tmp_path / "ours"), UnCLIP.from_pretrained(tmp_path / "back")]  # fmt: skip
    assert len({system.generate("a fox!", **few).images[0].tobytes() for system in systems}) == 1
