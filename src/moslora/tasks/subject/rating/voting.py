"""A rater's turn, votes and taking back, as transactions of the store."""

import sqlite3
from typing import NamedTuple

from .... import runs
from .blind import Stored
from .questions import ANSWERS, KEYS
from .store import Rater, Store, Turn

_FIRST_OPEN = """
    SELECT place FROM plan WHERE rater = ?1 AND
        (SELECT count(*) FROM votes WHERE votes.rater = ?1 AND votes.place = plan.place AND undone IS NULL) < ?2
    ORDER BY place LIMIT 1
"""
_TURN = """
    SELECT plan.item, plan.b_left, items.subject, items.prompt, a.id, a.width, a.height, b.id, b.width, b.height,
        (SELECT count(*) FROM plan WHERE rater = ?1) AS total
    FROM plan JOIN items ON items.id = plan.item JOIN pictures AS a ON a.id = items.a
        JOIN pictures AS b ON b.id = items.b
    WHERE plan.rater = ?1 AND plan.place = ?2
"""

# Of one question: how many votes for either side and for neither, attention checks left out.
TALLY = """
    SELECT CASE WHEN answer = 'tie' THEN 'tie' WHEN (answer = 'left') = b_left THEN 'b' ELSE 'a' END AS verdict,
        count(*) AS votes
    FROM votes JOIN plan USING (rater, place) JOIN items ON items.id = plan.item
    WHERE question = ? AND undone IS NULL AND kind = 'pair' GROUP BY verdict
"""


class Progress(NamedTuple):
    """How far a rater is."""

    rater: int
    token: str
    begun: bool
    done: int  # pairs with both answers
    total: int
    last: str | None  # time of the last vote


def turn(store: Store, rater: Rater, place: int | None = None) -> Turn | None:
    """What the rater is asked now, or at a place of the plan; None when everything is answered.

    Args:
        store: of the study.
        rater: who asks.
        place: from 1; the first that is not wholly answered by default.
    """
    place = _first_open(store.connection(), rater) if place is None else place
    rows = store.rows(_TURN, rater.id, place) if place is not None else []
    if not rows or place is None:
        return None
    row = rows[0]
    a, b = Stored(*row[4:7]), Stored(*row[7:10])
    left, right = (b, a) if row["b_left"] else (a, b)
    photographs = store.rows("SELECT picture FROM photographs WHERE subject = ? ORDER BY rowid", row["subject"])
    given = store.rows(
        "SELECT question, answer FROM votes WHERE rater = ? AND place = ? AND undone IS NULL", rater.id, place
    )
    answers = {vote["question"]: vote["answer"] for vote in given}
    shown = [each["picture"] for each in photographs]
    return Turn(place, row["total"], row["item"], row["prompt"], shown, left, right, answers)


def vote(store: Store, rater: Rater, place: int, question: str, answer: str) -> bool:
    """Keep an answer to the pair that the rater is at; it takes the place of an earlier one there.

    Returns:
        whether it was kept; False if the rater is at another pair, for example in another window, or the study has
        ended.
    """
    if question not in KEYS or answer not in ANSWERS:
        return False
    with store.writing() as connection:
        if _ended(connection) or _first_open(connection, rater) != place:
            return False
        old = connection.execute(
            "SELECT id, answer FROM votes WHERE rater = ? AND place = ? AND question = ? AND undone IS NULL",
            (rater.id, place, question),
        ).fetchone()
        if old is not None and old["answer"] == answer:
            return True
        now = runs.now()
        if old is not None:
            connection.execute("UPDATE votes SET undone = ? WHERE id = ?", (now, old["id"]))
        connection.execute(
            "INSERT INTO votes (rater, place, question, answer, given) VALUES (?, ?, ?, ?, ?)",
            (rater.id, place, question, answer, now),
        )
    return True


def undo(store: Store, rater: Rater) -> bool:
    """Take the rater's last vote back; False if there is none, or the study has ended."""
    with store.writing() as connection:
        last = connection.execute(
            "SELECT id FROM votes WHERE rater = ? AND undone IS NULL ORDER BY id DESC LIMIT 1", (rater.id,)
        ).fetchone()
        if last is None or _ended(connection):
            return False
        connection.execute("UPDATE votes SET undone = ? WHERE id = ?", (runs.now(), last["id"]))
    return True


def progress(store: Store) -> list[Progress]:
    """How far everybody is, by number of the rater."""
    rows = store.rows(
        """
        SELECT raters.id, raters.token, raters.begun IS NOT NULL AS begun,
            (SELECT count(*) FROM plan WHERE plan.rater = raters.id) AS total,
            (SELECT max(given) FROM votes WHERE votes.rater = raters.id) AS last,
            (SELECT count(*) FROM
                (SELECT 1 FROM votes WHERE votes.rater = raters.id AND undone IS NULL GROUP BY place
                 HAVING count(*) = ?)) AS done
        FROM raters ORDER BY raters.id
        """,
        len(KEYS),
    )
    return [
        Progress(row["id"], row["token"], bool(row["begun"]), row["done"], row["total"], row["last"]) for row in rows
    ]


def _first_open(connection: sqlite3.Connection, rater: Rater) -> int | None:
    row = connection.execute(_FIRST_OPEN, (rater.id, len(KEYS))).fetchone()
    return row["place"] if row else None


def _ended(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT value FROM facts WHERE name = 'ended'").fetchone()
    return bool(row and row["value"])
