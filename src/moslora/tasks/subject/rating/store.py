"""The database of a study: SQLite, where a vote is on the disk before the rater is told so."""

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .... import runs
from ....errors import ConfigError, DataError
from .blind import Stored
from .plan import draw_plan

DATABASE = "study.sqlite"
MOST_RATERS = 1000
_WAIT = 30  # seconds for another writer's transaction


class Rater(NamedTuple):
    """Somebody who answers."""

    id: int
    token: str
    questions: tuple[str, ...]
    begun: bool


class Turn(NamedTuple):
    """What a rater is asked now."""

    place: int  # from 1
    total: int
    item: int
    prompt: str
    photographs: list[str]  # ids of pictures
    left: Stored
    right: Stored
    answers: dict[str, str]  # key of a question -> answer already given


class Store:
    """The database of one study; every thread has its own connection."""

    def __init__(self, folder: Path) -> None:
        """Open the study in a folder.

        Raises:
            DataError: there is none.
        """
        self.folder = folder
        self.path = folder / DATABASE
        if not self.path.is_file():
            raise DataError(f"{folder} holds no {DATABASE}: expected a study that `moslora rate build` has made.")
        self._local = threading.local()
        self._writing = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        try:
            self.seed = int(self.fact("seed"))
            self.title = self.fact("title")
            self.secret = bytes.fromhex(self.fact("secret"))
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} is not the database of a study: {error}.") from None

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = connect(self.path)
            self._connections.append(found)
        return found

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block ends, or did not happen."""
        connection = self.connection()
        with self._writing:  # threads take turns here, processes at SQLite's lock
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close every connection; the write-ahead log is then part of the database."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What a SELECT finds."""
        return self.connection().execute(query, values).fetchall()

    def fact(self, name: str, default: str | None = None) -> str:
        """A value that belongs to the study as a whole.

        Raises:
            DataError: it has no such value, and there is no default.
        """
        found = self.rows("SELECT value FROM facts WHERE name = ?", name)
        if not found and default is None:
            raise DataError(f"{self.path} has no {name!r}: it is not the database of a study, or is damaged.")
        return found[0]["value"] if found else str(default)

    def set_fact(self, name: str, value: str) -> None:
        """Keep a value that belongs to the study as a whole."""
        with self.writing() as connection:
            connection.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
            )

    @property
    def ended(self) -> bool:
        """Whether the owner has ended the study: no vote is taken any more."""
        return bool(self.fact("ended", ""))

    def picture(self, name: str) -> Path | None:
        """The file of a picture; None for a name that the study does not have."""
        found = self.rows("SELECT id FROM pictures WHERE id = ?", name)
        return self.folder / "pictures" / f"{found[0]['id']}.webp" if found else None

    def add_raters(self, count: int) -> list[Rater]:
        """Create raters, each with an own token and plan.

        Raises:
            ConfigError: the study would have more than MOST_RATERS.
        """
        added = []
        with self.writing() as connection:
            known = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM raters").fetchone()
            if known[0] + count > MOST_RATERS:
                raise ConfigError(f"{known[0]} raters and {count} more: a study has at most {MOST_RATERS}.")
            items = connection.execute("SELECT id, kind FROM items ORDER BY id").fetchall()
            pairs = [row["id"] for row in items if row["kind"] == "pair"]
            checks = [row["id"] for row in items if row["kind"] != "pair"]
            for number in range(known[1] + 1, known[1] + 1 + count):
                plan = draw_plan(self.seed, number, pairs, checks)
                rater = Rater(number, secrets.token_urlsafe(18), plan.questions, False)
                connection.execute(
                    "INSERT INTO raters (id, token, questions, created) VALUES (?, ?, ?, ?)",
                    (number, rater.token, " ".join(plan.questions), runs.now()),
                )
                steps = [(number, place, step.item, step.b_left) for place, step in enumerate(plan.steps, 1)]
                connection.executemany("INSERT INTO plan VALUES (?, ?, ?, ?)", steps)
                added.append(rater)
        return added

    def raters(self) -> list[Rater]:
        """Everybody, by number."""
        return [_rater(row) for row in self.rows("SELECT * FROM raters ORDER BY id")]

    def rater(self, token: str) -> Rater | None:
        """The rater with this token; None if there is none."""
        found = self.rows("SELECT * FROM raters WHERE token = ?", token)
        return _rater(found[0]) if found else None

    def begin(self, rater: Rater) -> None:
        """Note that the rater has read what is asked and stored."""
        with self.writing() as connection:
            connection.execute("UPDATE raters SET begun = ? WHERE id = ? AND begun IS NULL", (runs.now(), rater.id))


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive the end of the process and of the power."""
    connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def create(folder: Path, title: str, seed: int) -> sqlite3.Connection:
    """A new database with its secrets and no pictures yet."""
    connection = connect(folder / DATABASE)
    connection.executescript((Path(__file__).parent / "schema.sql").read_text(encoding="utf-8"))
    facts = {
        "title": title,
        "seed": str(seed),
        "secret": secrets.token_hex(32),
        "owner": secrets.token_urlsafe(24),
        "invitation": secrets.token_urlsafe(12),
    }
    connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
    return connection


def _rater(row: sqlite3.Row) -> Rater:
    return Rater(row["id"], row["token"], tuple(row["questions"].split()), row["begun"] is not None)
