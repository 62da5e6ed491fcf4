"""Mixed adapters in a pipeline shaped like SDXL's: the pictures of both adapters at once."""

import numpy as np
import pytest
import torch
from peft import PeftModel

from moslora.checkpoint import export_adapter, mix_adapters
from tests.adapter.architectures import sdxl_unet
from tests.checkpoint.adapters import adapt
from tests.helpers import run_stock_peft

WEIGHTS = (0.7, 0.5)
SETTINGS = {
    "a": {"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_k", "conv1", "proj_in"]},
    "b": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["to_q", "to_v", "conv1", "time_emb_proj"],
        "rank_pattern": {"to_q": 6},
        "mixer_pattern": {"to_q": "butterfly", "time_emb_proj": "identity"},
    },
}

PICTURES = """
import numpy as np, torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline

def pipeline_of(unet):
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    nothing = dict(text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None)
    pipeline = StableDiffusionXLPipeline(vae=vae, unet=unet, scheduler=EulerDiscreteScheduler(), **nothing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

def pictures(pipeline):
    draw = torch.Generator().manual_seed(0)
    words = {name: torch.randn(2, 5, 16, generator=draw) for name in ("prompt_embeds", "negative_prompt_embeds")}
    pooled = {name.replace("prompt", "pooled_prompt"): torch.randn(2, 32, generator=draw) for name in words}
    return pipeline(**words, **pooled, num_inference_steps=4, output_type="np", generator=draw).images
"""

STOCK_DIFFUSERS = (
    PICTURES
    + """
import pathlib
from diffusers import UNet2DConditionModel
root = pathlib.Path(args[0])
def unet():
    return UNet2DConditionModel.from_pretrained(root / "base")
both = pipeline_of(unet())
for name in ("a", "b"):
    both.load_lora_weights(root / f"{name}-lora", adapter_name=name)
both.set_adapters(["a", "b"], [0.7, 0.5])
np.save(root / "both.npy", pictures(both))
for name in ("mixed-lora", "mixed.safetensors"):
    one = pipeline_of(unet())
    one.load_lora_weights(root / name)
    np.save(root / f"{name}.npy", pictures(one))
"""
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    sdxl_unet().save_pretrained(root / "base")
    for seed, (name, config) in enumerate(SETTINGS.items()):
        adapt(sdxl_unet(), root / name, seed=seed, std=0.15, **config)
        export_adapter(root / name, root / f"{name}-lora", format="diffusers")
    report = mix_adapters([root / "a", root / "b"], root / "mixed", weights=WEIGHTS)
    export_adapter(root / "mixed", root / "mixed-lora", format="diffusers")
    export_adapter(root / "mixed", root / "mixed.safetensors", format="kohya")
    run_stock_peft(STOCK_DIFFUSERS, root)
    return root, report


def picture(unet):
    names: dict = {}
    exec(PICTURES, names)
    return names["pictures"](names["pipeline_of"](unet))


@pytest.mark.parametrize("name", ["mixed-lora", "mixed.safetensors"])
def test_stock_diffusers_draws_with_the_mix_what_it_draws_with_both_adapters(mixed, name):
    root, _ = mixed
    both, one, plain = (np.load(root / f"{each}.npy") for each in ("both", name, "both"))
    plain = picture(sdxl_unet())
    assert np.abs(both - plain).max() > 0.02, "the adapters do nothing, so nothing was tested"
    assert np.abs(one - both).max() < 1e-4


def test_the_mixed_adapter_itself_draws_the_same(mixed):
    root, report = mixed
    model = PeftModel.from_pretrained(sdxl_unet(), root / "mixed").eval()
    assert np.abs(picture(model.get_base_model()) - np.load(root / "both.npy")).max() < 1e-4
    assert report.largest[1] < 1e-6
    shared = [name for name, ranks in report.ranks.items() if all(ranks)]
    assert shared
    assert all(name.endswith(("to_q", "conv1")) for name in shared)


def test_without_the_second_block_the_picture_is_another(mixed):
    root, _ = mixed
    model = PeftModel.from_pretrained(sdxl_unet(), root / "mixed").eval()
    with torch.no_grad():
        for layer in model.modules():
            M = getattr(layer, "mixer", None)
            if isinstance(M, torch.Tensor) and len(M) == 4 + 6:
                M[4:, 4:] = 0
    assert np.abs(picture(model.get_base_model()) - np.load(root / "both.npy")).max() > 1e-3
