"""The pages: what they do for raters and owners, what they refuse, and what they never say."""

import re
import sys
import types

import pytest
from fastapi.testclient import TestClient

from moslora.errors import UnsupportedError
from moslora.tasks.subject.rating import guard
from moslora.tasks.subject.rating.build import StudyConfig, build_study
from moslora.tasks.subject.rating.guard import LARGEST_BODY
from moslora.tasks.subject.rating.serve import make_app, prepare
from moslora.tasks.subject.rating.store import Store

from .answering import Visitor
from .studies import SECRET_A, SECRET_B, write_references, write_run


def _home(store):
    return f"/r/{store.add_raters(1)[0].token}"


def _votes(store):
    return store.rows("SELECT place, question, answer FROM votes WHERE undone IS NULL ORDER BY id")


@pytest.fixture
def visitor(client, store):
    """A rater before the first pair."""
    return Visitor(client, _home(store)).begin()


def test_a_rater_answers_everything_and_is_thanked(client, store):
    visitor = Visitor(client, _home(store))
    assert "12 pairs" in visitor.page
    assert "No name, no network address, no cookie" in visitor.page
    visitor.begin().answer_all(lambda question, *_: "tie" if question == "subject" else "left")
    assert "Thank you" in visitor.page
    assert len(_votes(store)) == 2 * 12
    assert {row["answer"] for row in _votes(store) if row["question"] == "subject"} == {"tie"}


def test_the_link_leads_back_to_where_the_rater_was(client, store, visitor):
    for _ in range(5):
        visitor.vote(visitor.waiting(), "right")
    again = Visitor(client, visitor.home)
    assert (again.find("place"), again.waiting(), again.pictures()) == (
        visitor.find("place"),
        visitor.waiting(),
        visitor.pictures(),
    )
    assert 'id="progress" max="12" value="2"' in again.page


def test_back_takes_answers_back_one_by_one(store, visitor):
    first, pictures = visitor.waiting(), visitor.pictures()
    for _ in range(2):
        visitor.vote(visitor.waiting(), "left")
    visitor.post("undo")
    assert visitor.pictures() == pictures
    assert visitor.waiting() != first
    visitor.post("undo")
    assert visitor.waiting() == first
    assert len(_votes(store)) == 0
    assert len(store.rows("SELECT * FROM votes WHERE undone IS NOT NULL")) == 2  # kept, but not counted
    assert visitor.post("undo").status_code == 200


def test_another_answer_to_the_same_question_replaces_the_first(store, visitor):
    question = visitor.waiting()
    for answer in ("left", "right", "right"):
        visitor.vote(question, answer)
    assert [tuple(row) for row in _votes(store)] == [(1, question, "right")]


def test_a_second_window_cannot_answer_a_pair_again(client, store, visitor):
    second = Visitor(client, visitor.home)
    for _ in range(2):
        visitor.vote(visitor.waiting(), "left")
    second.vote(second.waiting(), "right")
    assert (
        "answered before"
        in second.client.post(
            f"{second.home}/vote",
            data={"csrf": second.find("csrf"), "place": 1, "question": "subject", "answer": "right"},
            headers={"HX-Request": "true"},
        ).text
    )
    assert {row["answer"] for row in _votes(store)} == {"left"}


def test_htmx_gets_the_page_and_a_browser_without_scripts_a_redirect(store, client, visitor):
    client.follow_redirects = False
    fields = {"csrf": visitor.find("csrf"), "place": 1, "question": visitor.waiting(), "answer": "tie"}
    plain = client.post(f"{visitor.home}/vote", data=fields)
    assert (plain.status_code, plain.headers["location"]) == (303, visitor.home)
    assert 'id="stage"' in client.post(f"{visitor.home}/vote", data=fields, headers={"HX-Request": "true"}).text


@pytest.mark.parametrize(
    "change", [{"csrf": "0" * 64}, {"csrf": ""}, {"csrf": "é"}, {"place": "x"}, {"answer": "both"}]
)
def test_a_forged_or_broken_form_is_refused(store, visitor, change):
    good = {"place": 1, "question": "subject", "answer": "left"}
    fields = {"csrf": visitor.find("csrf"), **good, **change}
    response = visitor.client.post(f"{visitor.home}/vote", data=fields)
    assert response.status_code in (400, 403)
    assert response.headers["content-type"].startswith("text/html")
    assert not _votes(store)


def test_a_form_of_another_rater_or_of_another_site_is_refused(client, store, visitor):
    other = Visitor(client, _home(store)).begin()
    fields = {"csrf": other.find("csrf"), "place": 1, "question": "subject", "answer": "left"}
    assert client.post(f"{visitor.home}/vote", data=fields).status_code == 403
    fields["csrf"] = visitor.find("csrf")
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        assert client.post(f"{visitor.home}/vote", data=fields, headers=headers).status_code == 403
    assert not _votes(store)
    assert client.post(f"{visitor.home}/vote", data=fields, headers={"Sec-Fetch-Site": "same-origin"}).is_success


def test_bodies_have_a_limit_that_headers_cannot_move(client, store, visitor):
    def chunks():
        for _ in range(20):
            yield b"x" * 1024

    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(f"{visitor.home}/vote", content=b"x" * (LARGEST_BODY + 1), headers=kind).status_code == 413
    assert client.post(f"{visitor.home}/vote", content=chunks(), headers=kind).status_code == 413
    assert client.post(f"{visitor.home}/vote", files={"answer": b"x" * 200}).status_code == 400
    assert not _votes(store)


@pytest.mark.parametrize(
    "name",
    ["../study.sqlite", "..%2Fstudy.sqlite", "%2e%2e/study.json", "x", "....//study.json", "%00", "study.json"],
)
def test_only_pictures_of_the_database_can_be_had(client, visitor, name):
    response = client.get(f"{visitor.home}/p/{name}")
    assert response.status_code == 404
    assert b"SQLite" not in response.content
    assert client.get(f"/static/{name}").status_code == 404


def test_addresses_are_keys(client, store, visitor):
    picture = visitor.pictures()[0]
    assert client.get(f"{visitor.home}/p/{picture}").headers["content-type"] == "image/webp"
    for path in (f"/r/wrong/p/{picture}", "/r/wrong", "/join/wrong", "/owner/wrong", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404
    assert client.get(f"/join/{store.fact('invitation')}").status_code == 404  # closed unless --open


@pytest.fixture
def no_time_passes(monkeypatch):
    """Limits do not recover, however slow the machine is."""
    monkeypatch.setattr(guard, "time", types.SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("no_time_passes")
def test_guessing_addresses_is_slowed_down_and_hinders_nobody_else(client, visitor):
    codes = [client.get(f"/r/guess{number}").status_code for number in range(70)]
    assert codes == [404] * 60 + [429] * 10
    assert client.get(visitor.home).status_code == 200


@pytest.mark.usefixtures("no_time_passes")
def test_a_flood_of_votes_is_slowed_down_and_told_so(visitor):
    codes = [visitor.client.post(f"{visitor.home}/undo", data={"csrf": "x"}).status_code for _ in range(50)]
    assert codes[0] == 403
    assert codes[-1] == 429


def test_what_a_prompt_says_is_shown_and_not_run(tmp_path):
    evil = '"><script>alert(1)</script> & <b>{{ 7 * 7 }}</b>'
    references = write_references(tmp_path / "photos")
    runs = tuple(write_run(tmp_path / name, name, references, prompts=1, size=64) for name in ("one", "two"))
    for run in runs:
        index = run / "images" / "images.jsonl"
        index.write_text(index.read_text().replace("a sks robot", evil.replace('"', '\\"')))
    build_study(StudyConfig(pairs=(runs,), title="<i>t</i>", checks=0), tmp_path / "study")
    store = Store(tmp_path / "study")
    with TestClient(make_app(store)) as client:
        visitor = Visitor(client, _home(store)).begin()
    assert visitor.prompt().startswith(evil)
    for raw in ("<script>alert", "<b>", "<i>"):
        assert raw not in visitor.page
    assert "{{ 7 * 7 }}" in visitor.page


def test_no_response_names_a_method_or_a_run(tmp_path, client, store):
    """Every page, picture, file and header that raters and the owner can get."""
    secrets = [secret.encode() for secret in (SECRET_A, SECRET_B, str(tmp_path), "moslora", "lora-")]
    prepare(store, "", invite=True)
    seen = []

    def keep(response):
        seen.append(response.read() + repr(response.headers).encode() + str(response.url).encode())

    client.event_hooks["response"] = [keep]
    invitation = f"/join/{store.fact('invitation')}"
    page = client.get(invitation).text
    response = client.post(invitation, data={"csrf": re.search(r'value="(\w{64})"', page)[1]})
    visitor = Visitor(client, response.url.path)
    owner = f"/owner/{store.fact('owner')}"
    client.get(owner)
    pictures = set()

    def opinion(question, prompt, left, right):
        pictures.update(re.findall(r"/p/(\w+)", visitor.page))
        return "left"

    visitor.answer_all(opinion)
    assert len(pictures) == store.rows("SELECT count(*) AS n FROM pictures")[0]["n"]
    paths = [f"{visitor.home}/p/{name}" for name in pictures]
    paths += [
        "/",
        "/nowhere",
        owner,
        *(f"/static/{name}" for name in ("rate.css", "rate.js", "htmx.min.js", "icon.svg")),
    ]
    for path in paths:
        client.get(path)
    assert b"Results" in seen[-5]
    assert len(seen) > 60
    for secret in secrets:
        # the owner's page names the command that scores a study
        assert not [body for body in seen if secret in body.replace(b"<code>moslora rate score</code>", b"")]


def test_two_sides_of_a_check_look_like_any_pair(store, client):
    """A picture beside itself has two names and two files, so that an address gives nothing away."""
    rows = store.rows("SELECT * FROM items WHERE kind = 'same'")
    assert len(rows) == 2
    for row in rows:
        files = [store.picture(row[side]).read_bytes() for side in "ab"]
        assert row["a"] != row["b"]
        assert files[0] == files[1]


def test_every_answer_carries_the_headers_that_protect_it(client, store, visitor):
    paths = (visitor.home, "/nowhere", "/static/rate.js", f"{visitor.home}/p/{visitor.pictures()[0]}")
    for path in paths:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "set-cookie" not in headers
    assert client.get(visitor.home).headers["cache-control"] == "no-store"
    assert not re.search(r"(src|href|action)=.?https?:|style=|<style|onclick|<script>", visitor.page)


def test_an_invitation_gives_everybody_a_link_of_his_own(client, store):
    links = prepare(store, "http://x", invite=True)
    invitation = links.invitation.removeprefix("http://x")
    page = client.get(invitation).text
    assert client.post(invitation, data={"csrf": "1" * 64}).status_code == 403
    csrf = re.search(r'value="(\w{64})"', page)[1]
    homes = {client.post(invitation, data={"csrf": csrf}).url.path for _ in range(3)}
    assert len(homes) == 3
    assert len(store.raters()) == 3


def test_the_owner_sees_progress_at_once_and_results_at_the_end(client, store, visitor):
    owner = f"/owner/{store.fact('owner')}"
    visitor.vote(visitor.waiting(), "left")
    visitor.vote(visitor.waiting(), "left")
    page = client.get(owner).text
    assert "1 of 12" in page
    assert "Shown when everybody has finished" in page
    csrf = re.search(r'value="(\w{64})"', page)[1]
    assert client.post(f"{owner}/end", data={"csrf": "0", "ended": "yes"}).status_code == 403
    assert "A better" in client.post(f"{owner}/end", data={"csrf": csrf, "ended": "yes"}).text
    visitor.vote("subject", "left")
    assert "has ended" in visitor.page
    assert len(_votes(store)) == 2
    client.post(f"{owner}/end", data={"csrf": csrf, "ended": "no"})
    assert Visitor(client, visitor.home).find("place") == "2"
    assert len(client.post(f"{owner}/raters", data={"csrf": csrf, "count": 3}).text.split("/r/")) > 4
    assert len(store.raters()) == 4


def test_peeking_shows_results_before_the_end(folder):
    store = Store(folder)
    with TestClient(make_app(store, peek=True)) as client:
        visitor = Visitor(client, _home(store)).begin()
        visitor.answer_all(lambda *_: "left")
        page = client.get(f"/owner/{store.fact('owner')}").text
    # 8 pairs, B on the left in half of them
    assert re.findall(r"<td>(\d+)</td>", page.split("<h2>Results</h2>")[1]) == ["4", "0", "4"] * 2


def test_without_the_extra_the_error_names_it(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'moslora\[rating\]'"):
        make_app(store)
