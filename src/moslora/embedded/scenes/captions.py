"""Words for items and scenes."""

from random import Random

from .model import COLOURS, Item, Scene, size_name

_OPENINGS = ("", "", "a picture of ", "a drawing of ", "an image of ", "seen here: ")
_PREPOSITIONS = {"water": "in the water", "night sky": "in the night sky", "brick wall": "on a brick wall"}
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def caption(draw: Random, scene: Scene) -> str:
    """A sentence about the whole scene, in one of several wordings; names sizes and textures now and then."""
    opening = draw.choice(_OPENINGS)
    with_size = draw.random() < 0.5 and not scene.grid
    names = [
        with_article(item_name(item, with_size, item.texture != "plain" and draw.random() < 0.7))
        for item in scene.items
    ]
    where = place_name(scene.background)
    if not names:
        return f"{opening}nothing {where}."
    if len(names) > 1 and draw.random() < 0.3:
        return f"{opening}{count_name(len(names))} things {where}: {_list(names)}."
    return f"{opening}{_list(names)} {where}."


def item_name(item: Item, with_size: bool = False, with_texture: bool = True) -> str:
    """The words for an item, such as "large red striped star"; a plain texture is not named."""
    size = [size_name(item.size)] if with_size else []
    texture = [item.texture] if with_texture and item.texture != "plain" else []
    return " ".join([*size, item.colour, *texture, item.shape])


def count_name(count: int) -> str:
    """A number in words up to nine."""
    return _COUNTS[count] if count < len(_COUNTS) else str(count)


def place_name(background: str) -> str:
    """Where things on this background are: "on grass", "in the water", "on a white background"."""
    if background in COLOURS:
        return f"on {with_article(background)} background"
    if background in _PREPOSITIONS:
        return _PREPOSITIONS[background]
    return f"on a {background}" if " " in background else f"on {background}"


def with_article(words: str) -> str:
    """The words after "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
