"""What raters are asked, and the answers they can give."""

from typing import NamedTuple


class Question(NamedTuple):
    """One of the two questions about a pair of pictures."""

    key: str  # in the database and in CSV files
    paper: str  # name of the metric in the paper's Table 6
    name: str  # for tables
    text: str  # for raters


QUESTIONS = (
    Question(
        "subject",
        "Sub-simi",
        "subject similarity",
        "Which picture shows the subject of the photographs more faithfully?",
    ),
    Question("prompt", "Pro-cons", "prompt consistency", "Which picture fits the description better?"),
)
KEYS = tuple(question.key for question in QUESTIONS)
ANSWERS = ("left", "tie", "right")
SECONDS_A_PAIR = 15  # of an unhurried rater


def minutes(pairs: int) -> int:
    """About how long so many pairs take."""
    return max(1, round(pairs * SECONDS_A_PAIR / 60))


def outcome(answer: str, b_left: bool) -> int:
    """What an answer says of B against A: 1 if B is better, 0 for a tie, -1 if A is.

    Args:
        answer: one of ANSWERS.
        b_left: whether B was shown on the left.
    """
    if answer == "tie":
        return 0
    return 1 if (answer == "left") == b_left else -1
