"""Raters whose opinion is known: a latent preference with effects of rater and prompt, cut into win, tie, loss."""

import math
import random
from typing import NamedTuple

import numpy as np
from scipy import special

CUT = 0.8  # how large a preference has to be to be noticed


class Population(NamedTuple):
    """Preference for B in units of the noise of a single vote: mean, and deviations between raters and so on."""

    mean: float
    raters: float
    prompts: float
    both: float

    def truth(self):
        """Shares of wins, ties and losses over all raters and prompts there could be."""
        deviation = math.sqrt(1 + self.raters**2 + self.prompts**2 + self.both**2)
        loss = float(special.ndtr((-CUT - self.mean) / deviation))
        win = float(special.ndtr((self.mean - CUT) / deviation))
        return {"win": win, "tie": 1 - win - loss, "loss": loss, "delta": win - loss}

    def draw(self, draw, raters, prompts, each=1):
        """Outcomes 1, 0, -1 of shape (raters, prompts, each)."""
        preference = self.mean + draw.normal(0, 1, (raters, prompts, each))
        preference += draw.normal(0, self.raters, (raters, 1, 1)) + draw.normal(0, self.prompts, (1, prompts, 1))
        preference += draw.normal(0, self.both, (raters, prompts, 1))
        return np.where(preference > CUT, 1, np.where(preference < -CUT, -1, 0))


def vote_everything(store, opinion, careless=()):
    """Let every rater of a study answer everything; `opinion` takes rater, item and question and gives 1, 0 or -1.

    Attention checks are passed, except by the `careless`, who answer them by chance.
    """
    from moslora.tasks.subject.rating import voting

    items = {row["id"]: row for row in store.rows("SELECT * FROM items")}
    for rater in store.raters():
        draw = random.Random(rater.id)
        plan = store.rows("SELECT * FROM plan WHERE rater = ? ORDER BY place", rater.id)
        for step in plan:
            item = items[step["item"]]
            for question in rater.questions:
                passed = {"same": 0, "noise": 1}
                found = opinion(rater.id, item, question) if item["kind"] == "pair" else passed[item["kind"]]
                if item["kind"] != "pair" and rater.id in careless:
                    found = draw.choice((1, 0, -1))
                answer = "tie" if found == 0 else "left" if (found == 1) == bool(step["b_left"]) else "right"
                assert voting.vote(store, rater, step["place"], question, answer)
