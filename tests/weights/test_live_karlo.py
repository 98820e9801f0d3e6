"""Karlo beside diffusers: a tiny pipeline of random weights that diffusers saved, drawn by both from the same noise."""

import json
from typing import Any

import pytest
import torch

from unclip.pipeline import UnCLIP
from unclip.published.karlo import Karlo
from unclip.settings import Settings

pytestmark = pytest.mark.slow
RES = {"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2}


@pytest.fixture
def pipe(tmp_path, clip_tokenizer) -> Any:
    d, t = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    torch.manual_seed(0)
    text = t.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, projection_dim=32,
        vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=1, hidden_act="quick_gelu",
    )  # fmt: skip
    prior = d.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1)
    prior.clip_mean.data, prior.clip_std.data = torch.randn(1, 32) * 0.1, torch.rand(1, 32) + 0.5
    project = UnCLIPTextProjModel(clip_embeddings_dim=32, time_embed_dim=128, cross_attention_dim=40)
    project.learned_classifier_free_guidance_embeddings.data.normal_()
    decoder = d.UNet2DConditionModel(
        sample_size=32, in_channels=3, out_channels=6, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=40,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )  # fmt: skip
    large = {"sample_size": 128, "layers_per_block": 1, "block_out_channels": (32, 64), "in_channels": 6,
             "out_channels": 3, "add_attention": False, **RES}  # fmt: skip
    pipe = d.UnCLIPPipeline(
        prior, decoder, t.CLIPTextModelWithProjection(text), clip_tokenizer, project,
        d.UNet2DModel(**large), d.UNet2DModel(**large),
        d.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        d.UnCLIPScheduler(variance_type="learned_range"), d.UnCLIPScheduler(),
    )  # fmt: skip
    pipe.save_pretrained(tmp_path / "karlo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def test_the_whole_pipeline_draws_the_same(pipe, replay, tmp_path):
    theirs = pipe("a red fox", generator=torch.Generator().manual_seed(3), output_type="np").images
    ours, noise = UnCLIP.from_pretrained(tmp_path / "karlo"), replay(3)
    assert isinstance(ours, Karlo)
    s, rest = Settings(**ours.defaults), ("a red fox", "", noise)
    z_i = ours.sample_prior(*rest, s, lambda *_: None)
    x = ours.upsample(ours.decode(z_i, *rest, s, lambda *_: None), noise, s, lambda *_: None)
    assert abs((x / 2 + 0.5).permute(0, 2, 3, 1).numpy() - theirs).max() < 1e-4


def test_it_draws_by_its_own_defaults(pipe, tmp_path):
    drawn = UnCLIP.from_pretrained(tmp_path / "karlo").generate("a red fox", steps=3, prior_steps=3, progress=False)
    assert drawn.images[0].size == (128, 128)
    assert drawn.params["guidance"] == 8.0 and drawn.params["sampler"] == "ddpm" and drawn.params["steps"] == 3


def test_diffusers_loads_what_is_written_for_it(pipe, tmp_path, cli):
    assert cli("convert", tmp_path / "karlo", tmp_path / "ours").code == 0
    assert cli("convert", tmp_path / "ours", tmp_path / "back", "--to", "diffusers").code == 0
    back = type(pipe).from_pretrained(tmp_path / "back")
    back.set_progress_bar_config(disable=True)
    for name in ("prior", "decoder", "text_proj", "text_encoder", "super_res_first", "super_res_last"):
        net, true = getattr(back, name), getattr(pipe, name).state_dict()
        assert net.state_dict().keys() == true.keys()
        # to where torch would put them: products round by that, and tiny random networks make much of it
        net.load_state_dict({key: w.clone() for key, w in net.state_dict().items()}, assign=True)
        assert all(torch.equal(w, true[key]) for key, w in net.state_dict().items())
    few = {"prior_num_inference_steps": 3, "decoder_num_inference_steps": 3, "super_res_num_inference_steps": 2}
    first, second = (
        p("a red fox", generator=torch.Generator().manual_seed(3), output_type="np", **few).images
        for p in (pipe, back)
    )
    assert (first == second).all()
    once, again = (UnCLIP.from_pretrained(tmp_path / name) for name in ("karlo", "back"))
    settings: dict[str, Any] = {"steps": 2, "prior_steps": 2, "upsampler_steps": 2, "progress": False}
    pictures = [system.generate("a red fox", **settings).images[0].tobytes() for system in (once, again)]
    assert pictures[0] == pictures[1]
    index = json.loads((tmp_path / "back" / "model_index.json").read_text())
    true = json.loads((tmp_path / "karlo" / "model_index.json").read_text())
    # diffusers 0.42 writes a place for it that it does not find there itself
    assert {k: v for k, v in true.items() if k != "_diffusers_version"} == index | {"text_proj": true["text_proj"]}
