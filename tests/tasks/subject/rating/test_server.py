"""The server as a process: many raters at once, kill -9, stopping, links."""

import collections
import contextlib
import random
import signal
import socket
import sqlite3
import threading
import time

import httpx
import pytest

from moslora.cli import main
from moslora.errors import ConfigError
from moslora.tasks.subject.rating import serve
from moslora.tasks.subject.rating.score import read_votes
from moslora.tasks.subject.rating.store import Store

from .answering import Visitor
from .processes import serving
from .studies import make_study


@contextlib.contextmanager
def _client(server):
    """A client, once the server answers."""
    with httpx.Client(base_url=server.base, follow_redirects=True, timeout=60) as client:
        for _ in range(200):
            with contextlib.suppress(httpx.ConnectError):
                client.get("/")
                break
            time.sleep(0.1)
        yield client


def _answer_everything(server, link, known, failures):
    """A rater who remembers what he answered and was told is kept."""
    try:
        number, draw = link.rsplit("/", 1)[1], random.Random(link)
        with _client(server) as client:
            visitor = Visitor(client, link.removeprefix(server.base)).begin()
            while question := visitor.waiting():
                place, answer = int(visitor.find("place")), draw.choice(("left", "tie", "right"))
                response = visitor.vote(question, answer)
                if response.status_code == 429:
                    time.sleep(0.3)
                    continue
                assert response.status_code == 200
                known[number, place, question] = answer
                if draw.random() < 0.05:
                    visitor.post("undo")
                    place = int(visitor.find("place"))
                    known.pop((number, place, visitor.waiting()))
    except Exception as error:
        failures.append(error)


def _stored(folder):
    """Votes that count: token, place and question -> answer."""
    store = Store(folder)
    rows = store.rows(
        "SELECT token, place, question, answer FROM votes JOIN raters ON raters.id = votes.rater WHERE undone IS NULL"
    )
    found = {(row["token"], row["place"], row["question"]): row["answer"] for row in rows}
    assert len(found) == len(rows)
    store.close()
    return found


@pytest.mark.slow
def test_fifty_raters_at_once_lose_no_vote(tmp_path):
    folder = make_study(tmp_path, prompts=8, seeds=(0,), size=32)
    known, failures = {}, []
    with serving(folder, "--raters", 50) as server:
        assert len(server.links) == 50
        threads = [
            threading.Thread(target=_answer_everything, args=(server, link, known, failures)) for link in server.links
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert failures == []
        with _client(server) as client:
            assert "50 raters, 600 of 600 pairs answered" in client.get(server.owner).text
    assert len(known) == 50 * 12 * 2
    assert _stored(folder) == known


def test_votes_survive_kill_9(folder):
    """Everything that a rater was told is kept is there after SIGKILL in the middle of voting."""
    with serving(folder, "--raters", 4) as server:
        told, threads = {}, []

        def go_on(link):
            draw = random.Random(link)
            try:
                with _client(server) as client:
                    visitor = Visitor(client, link.removeprefix(server.base)).begin()
                    while question := visitor.waiting():
                        place, answer = int(visitor.find("place")), draw.choice(("left", "tie", "right"))
                        if visitor.vote(question, answer).status_code == 200:
                            told[visitor.home.rsplit("/", 1)[1], place, question] = answer
            except (httpx.TransportError, AssertionError):
                pass  # the server is gone

        for link in server.links:
            threads.append(threading.Thread(target=go_on, args=(link,)))
            threads[-1].start()
        while len(told) < 30 and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        server.kill()
        for thread in threads:
            thread.join(60)
    stored = _stored(folder)
    assert told.items() <= stored.items()
    assert len(stored) <= len(told) + 4  # at most one a rater was on the disk before he could be told
    assert sqlite3.connect(folder / "study.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with serving(folder) as server, _client(server) as client:
        for link in server.links:  # everybody goes on where he was
            visitor = Visitor(client, link.removeprefix(server.base))
            done = sum(token == visitor.home.rsplit("/", 1)[1] for token, _, _ in stored)
            assert visitor.waiting() is None or int(visitor.find("place")) == done // 2 + 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_asked_and_keeps_everything_in_one_file(folder, how):
    with serving(folder, "--raters", 1) as server:
        with _client(server) as client:
            visitor = Visitor(client, server.links[0].removeprefix(server.base)).begin()
            visitor.vote(visitor.waiting(), "left")
        said = server.stop(how)
    assert "Traceback" not in said
    if how == signal.SIGINT:
        assert "every vote is kept" in said
    assert not (folder / "study.sqlite-wal").exists()
    assert len(_stored(folder)) == 1


def test_links_stay_and_more_can_be_had(folder):
    with serving(folder, "--raters", 2) as server:
        first = [link.rsplit("/", 1)[1] for link in server.links]
    with serving(folder, "--raters", 2, "--add", 1, "--open", "--url", "https://rate.example/") as server:
        assert [link.rsplit("/", 1)[1] for link in server.links][:2] == first
        assert len(server.links) == 3
        assert server.invitation.startswith("https://rate.example/join/")
    with serving(folder) as server, _client(server) as client:
        assert server.invitation is None
        assert client.get(f"/join/{Store(folder).fact('invitation')}").status_code == 404
        assert client.get("/").headers.get("server") is None


def test_two_processes_may_serve_one_study(folder):
    """Two tabs, two processes: still one vote a question."""
    with serving(folder, "--raters", 1) as one, serving(folder) as two, _client(one) as here, _client(two) as there:
        home = one.links[0].removeprefix(one.base)
        visitors = [Visitor(here, home).begin(), Visitor(there, home)]
        for number in range(8):
            visitor = visitors[number % 2]
            visitor.page = visitor.client.get(home).text
            assert visitor.vote(visitor.waiting(), "left").status_code == 200
    assert collections.Counter(place for _, place, _ in _stored(folder)) == {1: 2, 2: 2, 3: 2, 4: 2}


def test_what_cannot_be_served_is_said(tmp_path, folder, capsys):
    assert main(["rate", "serve", str(tmp_path)]) == 1
    assert "moslora rate build" in capsys.readouterr().err
    with serving(folder) as server:
        port = server.base.rsplit(":", 1)[1]
        assert main(["rate", "serve", str(folder), "--port", port]) == 1
        assert "Choose another --host or --port" in capsys.readouterr().err
    assert main(["rate", "serve", str(folder), "--raters", "-1"]) == 1
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.sqlite").write_bytes(b"not a database, but long enough to look like one" * 30)
    assert main(["rate", "serve", str(tmp_path / "damaged")]) == 1
    assert "is not the database of a study" in capsys.readouterr().err


def test_votes_read_by_the_score_are_those_of_the_store(folder):
    with serving(folder, "--raters", 1) as server, _client(server) as client:
        visitor = Visitor(client, server.links[0].removeprefix(server.base)).begin()
        visitor.answer_all(lambda *_: "right")
        store = Store(folder)  # while the server runs
        votes = read_votes(store)
        store.close()
    assert len(votes) == 24
    assert {vote.outcome for vote in votes if vote.b_left} == {-1}
    assert {vote.outcome for vote in votes if not vote.b_left} == {1}


def test_a_printed_address_is_open_before_the_server_is_at_work_and_had_by_one():
    with serve.listen("127.0.0.1", 0) as listening:
        place = listening.getsockname()
        socket.create_connection(place, timeout=5).close()
        with pytest.raises(ConfigError, match=r"Cannot listen at 127\.0\.0\.1"):
            serve.listen(*place)
