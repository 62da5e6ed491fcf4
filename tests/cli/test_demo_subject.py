"""The demo of subject-driven generation from end to end."""

import re

import numpy as np
import pytest
from PIL import Image

from moslora.cli import main
from moslora.cli.demo_subject import PROMPT, RECIPE
from moslora.embedded import diffusion_model_folder
from moslora.embedded.characters import PROMPTS
from moslora.embedded.scenes import COLOURS
from moslora.recipes import configure, load_recipe
from moslora.tasks.subject.config import SubjectTrainConfig, check


def _share(path, colour: str) -> float:
    """Share of pixels of a picture that are near a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.abs(pixels - COLOURS[colour]).max(axis=-1) < 70).mean())


def test_the_recipe_is_usable_and_every_layer_it_names_is_in_the_unet():
    from diffusers import UNet2DConditionModel

    given = {"images": "photos", "prompt": PROMPT}
    config = configure(SubjectTrainConfig, load_recipe(RECIPE), given)
    check(config)
    unet = UNet2DConditionModel.from_pretrained(diffusion_model_folder(), subfolder="unet")
    names = [name for name, _ in unet.named_modules()]
    for target in config.target_modules:
        assert any(name.endswith(f".{target}") for name in names), target
    assert config.resolution == 64


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_teaches_the_character_and_repeats_no_finished_step(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "subject", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    assert len(re.findall(r"^\$ moslora (train|generate) subject", printed, re.MULTILINE)) == 5
    for name in ("diffusers", "kohya"):
        difference = float(re.search(rf"{name} file: largest difference of a pixel (\S+)", printed)[1])
        assert difference < 1e-4
    assert Image.open(out / "sheet.png").height > 128 * len(PROMPTS)

    for run in ("lora", "moslora"):
        drawn = sorted((out / run / "images").glob("0*.png"))
        assert len(drawn) == 2 * len(PROMPTS)
        # Base and run share noise and prompts, so what differs is what was taught: much purple.
        taught = [_share(path, "purple") for path in drawn]
        base = [_share(out / "lora" / "images-base" / path.name, "purple") for path in drawn]
        assert np.mean(taught) > 2 * np.mean(base)

    before = (out / "moslora" / "run.json").read_bytes()
    assert main(["demo", "subject", "--out", str(out)]) == 0
    assert (out / "moslora" / "run.json").read_bytes() == before
