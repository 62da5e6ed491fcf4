"""Runs and studies for the tests: pictures of shapes that are drawn here, and raters whose opinion is known."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw, PngImagePlugin

from moslora.tasks.subject.rating.build import StudyConfig, build_study

SECRET_A, SECRET_B = "lora-arm-a", "moslora-arm-b"  # may be in no response
PLACES = ("on a beach", "in snow", "in a forest", "on a table", "at night", "under water", "in a city", "on the moon")
_SKIES = ("#f2d7a6", "#dce8f2", "#a9c9a0", "#d8b48f", "#2d3550", "#7fb8c9", "#b9b7b2", "#5c5a66")


def draw_subject(size=256, sky="#e9e4d8", body="#c4572e", turn=0, eyes=True):
    """A little round robot before a plain background."""
    picture = Image.new("RGB", (size, size), sky)
    pen, unit = ImageDraw.Draw(picture), size / 16
    pen.rectangle((0, 12 * unit, size, size), fill=_darker(sky))
    x = 8 + turn
    box = [unit * value for value in (x - 3.4, 4.6, x + 3.4, 12.6)]
    pen.rounded_rectangle(box, radius=2.2 * unit, fill=body)
    pen.line([unit * value for value in (x, 4.8, x, 2.6)], fill=body, width=max(2, int(unit / 2)))
    pen.ellipse([unit * value for value in (x - 0.7, 1.7, x + 0.7, 3.1)], fill="#f0c33c")
    pen.rounded_rectangle([unit * value for value in (x - 2.5, 6, x + 2.5, 9)], radius=unit, fill="#f7f3e8")
    for side in (-1.2, 1.2) if eyes else (0,):
        pen.ellipse([unit * value for value in (x + side - 0.6, 6.9, x + side + 0.6, 8.1)], fill="#22303c")
    return picture


def _darker(colour):
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return (int(red * 0.86), int(green * 0.86), int(blue * 0.84))


def write_run(folder, method, references, subject="robot", prompts=8, seeds=(0, 1), size=128, status="done", salt=0):
    """A run folder as `moslora generate subject` leaves it, with metadata in every picture that names the method."""
    (folder / "images").mkdir(parents=True)
    config = {"method": method, "images": str(references), "prompt": f"a photo of sks {subject}"}
    (folder / "run.json").write_text(json.dumps({"status": status, "task": "subject", "config": config}))
    (folder / "images" / "images.json").write_text("{}")
    draw, rows = random.Random(salt), []
    for index in range(prompts):
        prompt = f"a sks {subject} {PLACES[index % len(PLACES)]}" + f", take {index // len(PLACES)}" * (index >= 8)
        for seed in seeds:
            body = "#c4572e" if method == SECRET_B or draw.random() < 0.5 else "#b0703a"
            picture = draw_subject(size, _SKIES[index % len(_SKIES)], body, draw.uniform(-2, 2), draw.random() < 0.8)
            notes = PngImagePlugin.PngInfo()
            notes.add_text("method", method)
            notes.add_text("run", str(folder))
            name = f"{index:04d}-{seed}.png"
            picture.save(folder / "images" / name, pnginfo=notes)
            rows.append({"file": name, "prompt_index": index, "prompt": prompt, "seed": seed})
    (folder / "images" / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_references(folder, count=4, size=200):
    """Photographs of the subject, drawn."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw_subject(size, ("#cfd6d2", "#e3d9c6", "#c9d4e0", "#ddd3dc")[number % 4], turn=number - 1.5).save(
            folder / f"{number:02d}.jpg"
        )
    return folder


def make_study(folder: Path, subjects=("robot",), prompts=8, seeds=(0, 1), size=128, **settings) -> Path:
    """A study of two methods with the names SECRET_A and SECRET_B."""
    pairs = []
    for number, subject in enumerate(subjects):
        references = write_references(folder / "photographs" / subject, size=min(size, 256))
        sides = [
            write_run(folder / subject / method, method, references, subject, prompts, seeds, size, salt=2 * number + b)
            for b, method in enumerate((SECRET_A, SECRET_B))
        ]
        pairs.append((sides[0], sides[1]))
    build_study(StudyConfig(pairs=tuple(pairs), **settings), folder / "study")
    return folder / "study"
