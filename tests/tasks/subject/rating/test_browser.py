"""The pages in a real browser: two raters at once, by keyboard and by touch, on a desk and on a phone."""

import re
import shutil
import time

import pytest

from moslora.tasks.subject.rating.store import Store

from .processes import serving

CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def chromium():
    """Debian's chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not shutil.which(CHROMIUM):
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(folder):
    """A server with two raters."""
    with serving(folder, "--raters", 2) as server:
        yield server


def _open(chromium, link, trouble, **options):
    """A page past the introduction; what goes wrong in the browser is added to `trouble`."""
    page = chromium.new_context(**options).new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: trouble.append(request.url) if "127.0.0.1" not in request.url else None)
    page.goto(link)
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("#questions")
    page.wait_for_load_state()  # the keys are listened to only then
    return page


def _place(page):
    return int(page.locator("#stage").get_attribute("data-pair"))


def _seen(page):
    """Wait until both pictures are there, as a person would."""
    deadline = time.monotonic() + 20
    # The page's policy allows no code from text, with which wait_for_function would ask again and again.
    while not page.evaluate("[...document.querySelectorAll('.pictures img')].every(image => image.complete)"):
        assert time.monotonic() < deadline, "the pictures do not come"
        page.wait_for_timeout(20)


def _next(page, act):
    """Do something that leads to another state of the page, and wait for it."""
    page.evaluate("document.querySelector('#stage').dataset.old = 'yes'")
    act()
    page.wait_for_selector("#stage:not([data-old])")


def _votes(folder):
    store = Store(folder)
    rows = store.rows("SELECT rater, place, question, answer FROM votes WHERE undone IS NULL ORDER BY id")
    store.close()
    return [tuple(row) for row in rows]


def test_two_raters_at_once_by_keyboard_and_by_touch(chromium, server, folder):
    trouble = []
    desk = _open(chromium, server.links[0], trouble, **DESKTOP)
    phone = _open(chromium, server.links[1], trouble, **PHONE)
    keys = ("1", "ArrowDown", "3", "ArrowLeft", "2", "ArrowRight")
    typed, touched = [], []
    for number in range(24):
        _seen(desk)
        typed.append({"1": "left", "2": "tie", "3": "right"}.get(keys[number % 6]) or
                     {"ArrowLeft": "left", "ArrowDown": "tie", "ArrowRight": "right"}[keys[number % 6]])  # fmt: skip
        _next(desk, lambda key=keys[number % 6]: desk.keyboard.press(key))
        words = ("About the same", "Right", "Left")[number % 3]
        touched.append({"About the same": "tie"}.get(words, words.lower()))
        button = phone.locator("fieldset.waiting").get_by_role("button", name=words)
        _next(phone, button.tap)
    for page in (desk, phone):
        page.get_by_role("heading", name="Thank you").wait_for()
    store = Store(folder)
    rows = store.rows("SELECT rater, answer FROM votes WHERE undone IS NULL ORDER BY id")
    assert [row["answer"] for row in rows if row["rater"] == 1] == typed
    assert [row["answer"] for row in rows if row["rater"] == 2] == touched
    assert trouble == []


def test_mouse_back_reload_and_another_device(chromium, server, folder):
    trouble = []
    page = _open(chromium, server.links[0], trouble, **DESKTOP)
    for words in ("Left", "Right", "About the same"):
        _next(page, page.locator("fieldset.waiting").get_by_role("button", name=words).click)
    assert _place(page) == 2
    pictures = page.locator(".compared img").first.get_attribute("src")
    page.reload()
    assert _place(page) == 2
    elsewhere = chromium.new_context(**PHONE).new_page()
    elsewhere.goto(server.links[0])
    assert elsewhere.locator(".compared img").first.get_attribute("src") == pictures
    assert elsewhere.locator("[aria-pressed=true]").get_attribute("value") == "tie"
    _next(page, page.get_by_role("button", name="Back").click)
    assert page.locator("[aria-pressed=true]").count() == 0
    _next(page, lambda: page.keyboard.press("Backspace"))
    assert _place(page) == 1
    assert len(_votes(folder)) == 1
    assert trouble == []


def test_everything_can_be_reached_with_tab_and_enter(chromium, server, folder):
    trouble = []
    page = _open(chromium, server.links[0], trouble, **DESKTOP)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the questions"
    page.keyboard.press("Enter")
    page.locator("#questions:focus").wait_for(state="attached")  # a jump takes its time
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.id")
    assert re.fullmatch(r"(subject|prompt)-left", focused)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    _next(page, lambda: page.keyboard.press("Enter"))
    # The question that is open gets the focus, not one of its answers; Tab leads to the first.
    page.locator("#stage :focus").wait_for(state="attached")
    assert page.evaluate("document.activeElement.className") == "waiting"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    _next(page, lambda: page.keyboard.press("Space"))
    assert [vote[3] for vote in _votes(folder)] == ["left", "tie"]
    assert page.locator("#said").inner_text().startswith("Pair 2 of 12. a sks robot")
    assert trouble == []


@pytest.mark.slow
def test_enlarging_help_and_switching_keys_off(chromium, server, folder):
    trouble = []
    page = _open(chromium, server.links[0], trouble, **DESKTOP)
    _seen(page)
    page.keyboard.press("z")
    page.keyboard.press("ArrowRight")  # the other picture, not an answer
    assert page.locator("#zoom strong").inner_text() == "Right"
    page.keyboard.press("Escape")
    page.locator(".photographs a").nth(1).click()
    assert page.locator("#zoom strong").inner_text() == "Photograph 2"
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("?")
    page.keyboard.press("1")  # nothing, while the help is open
    page.get_by_label("Use these keys").uncheck()
    page.get_by_role("button", name="Go on").click()
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert _votes(folder) == []
    assert trouble == []


@pytest.mark.slow
def test_a_vote_that_was_not_kept_is_said_and_can_be_repeated(chromium, server, folder):
    page = _open(chromium, server.links[0], [], **DESKTOP)
    page.context.set_offline(True)
    page.locator("fieldset.waiting").get_by_role("button", name="Left").click()
    page.get_by_role("alert").filter(has_text="not kept").wait_for()
    assert _votes(folder) == []
    page.context.set_offline(False)
    _next(page, page.locator("fieldset.waiting").get_by_role("button", name="Left").click)
    assert len(_votes(folder)) == 1
    assert page.locator("#trouble").is_hidden()


@pytest.mark.slow
def test_without_scripts_the_buttons_are_plain_forms(chromium, server, folder):
    page = _open(chromium, server.links[0], [], java_script_enabled=False, **DESKTOP)
    for words in ("Left", "Right", "Left"):
        with page.expect_navigation():
            page.locator("fieldset.waiting").get_by_role("button", name=words).click()
    assert _place(page) == 2
    with page.expect_navigation():
        page.get_by_role("button", name="Back").click()
    assert len(_votes(folder)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [DESKTOP, PHONE, {"viewport": {"width": 320, "height": 568}}])
def test_the_pair_fits_the_screen(chromium, server, options):
    page = _open(chromium, server.links[0], [], **options)
    _seen(page)
    width, height = options["viewport"]["width"], options["viewport"]["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if height > 600:
        assert page.evaluate("document.documentElement.scrollHeight") <= height, "the answers need scrolling"
    boxes = [page.locator(f"figure.{side} img").bounding_box() for side in ("left", "right")]
    assert (boxes[0]["width"], boxes[0]["height"]) == (boxes[1]["width"], boxes[1]["height"])
    assert boxes[0]["y"] == boxes[1]["y"]
    for button in page.locator("#stage button:visible").all():
        assert min(button.bounding_box()[side] for side in ("width", "height")) >= 43.9


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(chromium, server, scheme):
    """At least 4.5 to 1 for every text on the page, by WCAG's formula, in both colour schemes."""
    page = _open(chromium, server.links[0], [], color_scheme=scheme, **DESKTOP)
    _next(page, page.locator("fieldset.waiting").get_by_role("button", name="Left").click)
    page.mouse.move(1, 1)
    page.wait_for_timeout(300)  # transitions
    pairs = page.evaluate(
        """() => [...document.querySelectorAll('#stage *')].filter(e => !e.closest('.hidden, :disabled') &&
            [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
                let back = e;
                while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
                return [e.textContent.trim(), getComputedStyle(e).color, getComputedStyle(back).backgroundColor];
            })"""
    )
    assert len(pairs) > 12
    for text, *colours in pairs:
        light, dark = sorted((_luminance(colour) for colour in colours), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text}: {colours}"


def _luminance(colour):
    """Relative luminance of rgb(r, g, b), as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.slow
def test_the_owner_watches_and_ends_the_study(chromium, server, folder):
    trouble = []
    owner = chromium.new_context(**DESKTOP).new_page()
    owner.goto(server.owner)
    assert "0 of 24 pairs answered" in owner.locator(".lead").inner_text()
    page = _open(chromium, server.links[0], trouble, **DESKTOP)
    for _ in range(2):
        _next(page, page.locator("fieldset.waiting").get_by_role("button", name="Left").click)
    owner.get_by_text("1 of 24 pairs answered").wait_for()  # by itself
    owner.get_by_role("button", name="End the study").click()
    owner.get_by_text("The study has ended").wait_for()
    _next(page, page.locator("fieldset.waiting").get_by_role("button", name="Left").click)
    assert "has ended" in page.locator("#stage").inner_text()
    assert len(_votes(folder)) == 2
    assert trouble == []
