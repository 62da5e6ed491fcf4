"""Words for creatures."""

from random import Random

from ..scenes import with_article
from .model import Creature

NUMBERS = {1: "one eye", 2: "two eyes", 3: "three eyes"}


def creature_name(draw: Random, creature: Creature) -> str:
    """The words for a creature without an article, such as "green dotted creature with two eyes and a red hat".

    Each trait is named or left out at random, so that a model learns them one by one.
    """
    adjectives = [creature.body] if draw.random() < 0.3 else []
    if draw.random() < 0.8:
        adjectives.append(creature.colour)
    if creature.pattern != "plain" and draw.random() < 0.7:
        adjectives.append(creature.pattern)
    parts = [NUMBERS[creature.eyes]] if draw.random() < 0.5 else []
    if creature.top != "nothing" and draw.random() < 0.6:
        singular = creature.top == "hat"
        parts.append(
            with_article(f"{creature.top_colour} hat") if singular else f"{creature.top_colour} {creature.top}"
        )
    draw.shuffle(parts)
    name = " ".join([*adjectives, "creature"])
    return f"{name} with {' and '.join(parts)}" if parts else name
