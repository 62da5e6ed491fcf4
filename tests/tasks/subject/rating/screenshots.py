"""Draw the pictures of docs/rating.md again: `python -m tests.tasks.subject.rating.screenshots`.

The pages show the small creature that the package draws; the results are those of simulated raters.
"""

import dataclasses
import json
import random
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from moslora.embedded.characters import PROMPTS, SUBJECT, Pose, paint, subject_pictures
from moslora.embedded.scenes import Scene, render
from moslora.report.canvas import save
from moslora.report.rating import bars_figure
from moslora.tasks.subject.rating.build import StudyConfig, build_study
from moslora.tasks.subject.rating.score import score_study
from moslora.tasks.subject.rating.store import Store

from .processes import serving
from .simulated import vote_everything
from .studies import make_study
from .test_score import RATERS, SUBJECTS, TRUTH

OUT = Path(__file__).parents[4] / "docs" / "images"
PLACES = ("grass", "water", "night sky", "sand", "brick wall", "red")
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 720}, "device_scale_factor": 1.5, "has_touch": True},
}


def _creatures(folder: Path) -> Path:
    """A study of the embedded character: one method has its traits right, the other not always."""
    (folder / "creature").mkdir()
    for number, picture in enumerate(subject_pictures()):
        picture.resize((256, 256), Image.Resampling.NEAREST).save(folder / "creature" / f"{number}.png")
    for method in "ab":
        draw, rows = random.Random(method), []
        (folder / method).mkdir()
        for index, (prompt, place) in enumerate(zip(PROMPTS, PLACES, strict=False)):
            wrong = dataclasses.replace(SUBJECT, accent="blue", eyes=2) if method == "a" else SUBJECT
            pose = Pose(x=draw.uniform(0.4, 0.6), y=0.55, size=0.72, tilt=draw.uniform(-8, 8))
            paint(render(Scene(items=(), background=place, seed=index), 512), wrong, pose).save(
                folder / method / f"{index}.png"
            )
            rows.append({"file": f"{index}.png", "prompt_index": index, "prompt": prompt, "seed": 0})
        (folder / method / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = ((folder / "a", folder / "b"),)
    build_study(StudyConfig(pairs=pairs, references=(folder / "creature",), checks=0), folder / "study")
    return folder / "study"


def _small(path: Path, out: Path) -> None:
    """The picture with few colours, in few bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(200, dither=Image.Dither.NONE).save(out, optimize=True)


def draw_pages(folder: Path) -> None:
    """A pair with one question answered, on a desk and on a phone."""
    with serving(_creatures(folder), "--raters", len(SCREENS)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for link, (name, options) in zip(server.links, SCREENS.items(), strict=True):
            page = browser.new_context(**options).new_page()
            page.goto(link)
            page.get_by_role("button", name="Begin").click()
            for answer in ("Left", "About the same", "Right"):
                page.evaluate("document.querySelector('#stage').dataset.old = 'yes'")
                page.locator("fieldset.waiting").get_by_role("button", name=answer).click()
                page.wait_for_selector("#stage:not([data-old])")
            page.mouse.move(2, 2)
            page.wait_for_timeout(800)
            page.screenshot(path=folder / f"{name}.png")
            _small(folder / f"{name}.png", OUT / f"rating-{name}.png")
        browser.close()


def draw_results(folder: Path) -> None:
    """The figure of the study of tests/…/test_score.py."""
    study = make_study(folder / "big", SUBJECTS, prompts=25, size=32)
    store = Store(study)
    store.add_raters(RATERS)
    draw = np.random.default_rng(5)
    drawn = {question: population.draw(draw, RATERS, 100, 2) for question, population in TRUTH.items()}

    def opinion(rater, item, question):
        prompt = 25 * (item["subject"] - 1) + item["prompt_index"]
        return int(drawn[question][rater - 1, prompt, item["seed"]])

    vote_everything(store, opinion)
    store.close()
    table = score_study(study)[0]["table"]
    figure = bars_figure(table, "lora (simulated)", "moslora (simulated)", published=True)
    save(figure, folder / "table6.png")
    _small(folder / "table6.png", OUT / "rating-table6.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        draw_pages(Path(temporary))
        draw_results(Path(temporary))
