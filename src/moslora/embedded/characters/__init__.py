"""Drawn creatures with bodies, eyes and hats, and the one of them that the demo teaches. Pure Python and Pillow.

creature = draw_creature(Random(0))
picture = paint(render(Scene(items=(), background="grass"), 64), creature, Pose(size=0.8))
creature_name(Random(0), creature)  # "green creature with one eye"
"""

from .captions import creature_name
from .model import BODIES, PATTERNS, SKINS, TOPS, Creature, Pose, draw_creature, shared_traits
from .painting import paint
from .subject import PROMPTS, SUBJECT, subject_pictures, write_subject

__all__ = [
    "BODIES",
    "PATTERNS",
    "PROMPTS",
    "SKINS",
    "SUBJECT",
    "TOPS",
    "Creature",
    "Pose",
    "creature_name",
    "draw_creature",
    "paint",
    "shared_traits",
    "subject_pictures",
    "write_subject",
]
