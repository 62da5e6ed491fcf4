"""The character that the demo teaches: five pictures of it, and prompts that put it elsewhere."""

from pathlib import Path

from PIL import Image

from ..scenes import Scene, render
from .model import Creature, Pose
from .painting import paint

SIDE = 64  # pixels of a reference picture

SUBJECT = Creature(
    body="round",
    colour="purple",
    pattern="striped",
    accent="cyan",
    eyes=3,
    top="hat",
    top_colour="yellow",
)

# Five grounds, sizes and places; twice it looks the other way.
_REFERENCES = (
    (Scene(items=(), background="white"), Pose(size=0.95)),
    (Scene(items=(), background="wooden floor", seed=1), Pose(x=0.47, y=0.52, size=0.85, tilt=3, mirrored=True)),
    (Scene(items=(), background="snow", seed=2), Pose(x=0.52, y=0.5, size=0.9)),
    (Scene(items=(), background="tiles", seed=3), Pose(x=0.53, y=0.53, size=0.8, tilt=-3, mirrored=True)),
    (Scene(items=(), background="orange"), Pose(x=0.49, y=0.49, size=0.88)),
)

# None of these grounds is in the pictures.
PROMPTS = (
    "a photo of sks creature on grass",
    "a photo of sks creature in the water",
    "a photo of sks creature in the night sky",
    "a photo of sks creature on sand",
    "a photo of sks creature on a brick wall",
    "a photo of sks creature on a red background",
    "a photo of sks creature on a green background",
    "a photo of sks creature on a black background",
)


def subject_pictures() -> list[Image.Image]:
    """The five reference pictures, SIDE x SIDE, RGB."""
    return [paint(render(scene, SIDE), SUBJECT, pose) for scene, pose in _REFERENCES]


def write_subject(folder: Path) -> None:
    """Write the subject as `moslora train subject` and `moslora generate subject` read it.

    Args:
        folder: gets `images/`, five PNG files, and `prompts.txt`, one prompt a line.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(subject_pictures(), 1):
        picture.save(images / f"{number}.png")
    (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
