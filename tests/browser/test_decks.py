"""Decks in a real browser: offline, nothing sticks out, and every step works by keyboard."""

import json
import re
import shutil

import nbformat
import pytest

from teachkit import show
from teachkit.course import contents, rendering, slides
from teachkit.course.notebooks import FOLDER
from teachkit.show import frames, plots, quizzes

FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PROVED = ["02_taylor", "05_obs", "11_paradox"]  # decks that fit slide by slide
SIZES = [(1280, 720), (1920, 1080)]
QUESTIONS = ["02.3", "02.1", "02.2", "11.8", "05.4"]  # one of each kind, the first with a reason
LONG = "\n\n".join(["A slide of many words says what no one reads."] * 20)


def line(n):
    return plots.lines([0, 1], {"f": [0, n]}, xlabel="t", ylabel="f", alt=f"A line of slope {n}.")


def cell(kind, source, slide="", thing=None, **more):
    made = nbformat.v4.new_code_cell(source) if kind else nbformat.v4.new_markdown_cell(source)
    made.metadata["slideshow"] = {**({"slide_type": slide} if slide else {}), **more}
    if thing is not None:
        data = {"text/html": thing}
        made.outputs = [nbformat.v4.new_output("display_data", data=data)]
    return made


def lesson():
    """A lesson with a question of each kind, a scrubber, a full slide and an empty one."""
    explorer = show.explore(line, n=(1, 4, 1))
    moving = frames.element(explorer, "<p>still</p>")
    cells = [cell(0, "# Made\n\n**The question**: is $x_1 < 2$?", "slide")]
    for name in QUESTIONS:
        cells.append(cell(0, f"## Question {name}", "slide"))
        cells.append(cell(1, "quiz", thing=quizzes.find(name).static))
    cells += [cell(0, "## Move", "slide"), cell(1, "explore", thing=moving)]
    cells += [cell(0, "## Step", "slide"), cell(0, "One $a$.", "fragment")]
    cells += [cell(0, "Two.", "fragment"), cell(0, "Say $b^2$ </script> aloud.", "notes")]
    cells += [cell(0, f"## Full\n\n{LONG}", "slide"), cell(0, "## Empty", "slide")]
    return nbformat.v4.new_notebook(cells=cells)


# Decks are made before the browser of the tests runs: two of them cannot in one thread.
@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Lessons as they are stored, and a made one; ``said`` is what the command finds wrong with them."""
    home = tmp_path_factory.mktemp("decks")
    for stem in PROVED:
        shutil.copy(FOLDER / f"{stem}.ipynb", home)
    nbformat.write(lesson(), home / "77_made.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "rendered", lambda path: nbformat.read(path, as_version=4))
        said = slides.write(sorted(home.glob("*.ipynb")), home / "slides")
    (home / "said.json").write_text(json.dumps(said))
    return home / "slides"


@pytest.fixture
def opened(browser, folder):
    """Open a deck; what is strange is collected on the page."""
    contexts = []

    def open_(stem, query="", size=SIZES[0]):
        contexts.append(
            browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)))
        )
        page, strange = contexts[-1].new_page(), []
        contexts[-1].on("request", lambda r: strange.append(r.url) if left(r.url) else None)
        page.on("pageerror", lambda e: strange.append(str(e)))
        page.on("console", lambda m: strange.append(m.text) if m.type == "error" else None)
        page.goto((folder / f"{stem}.html").as_uri() + query)
        page.wait_for_function("window.deckReady", timeout=60_000)
        page.strange = strange
        return page

    yield open_
    for context in contexts:
        context.close()


def left(url):
    """Whether a request leaves the deck, which may ask for its own file and for what stands in it."""
    return not (
        url.startswith(("data:", "blob:", "about:")) or re.search(r"slides/\d\d_\w+\.html", url)
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stem", PROVED)
def test_a_lesson_is_fit_for_a_hall_without_internet(stem, size, opened):
    page = opened(stem, size=size)
    assert page.evaluate("Reveal.getTotalSlides()") <= 20
    assert page.evaluate("deckProblems()") == []
    assert page.locator("section mjx-container").count() > 20
    text = page.evaluate(
        "[...document.querySelectorAll('.page')].map(p => p.textContent).join(' ')"
    )
    assert "$" not in text
    assert page.strange == []


def test_the_command_names_the_slide_that_is_too_full_and_the_empty_one(browser, folder):
    said = json.loads((folder.parent / "said.json").read_text())
    full, empty = said  # and no word of the lessons
    made = nbformat.read(folder.parent / "77_made.ipynb", 4)
    ids = {c.source.split("\n")[0]: c.id for c in made.cells}
    where = r"77_made, slide 9 \(Full\)"
    cell = ids["## Full"]
    assert re.fullmatch(
        rf"{where}: too full by \d{{3}} px down, cell {cell} “A slide of .*…”", full
    )
    assert empty.startswith("77_made, slide 10 (Empty): nothing on it")


def test_every_step_comes_by_keyboard(opened):
    page = opened("77_made")
    seen = []
    for _ in range(60):
        seen.append(page.evaluate("[Reveal.getState().indexh, Reveal.getState().indexf]"))
        if page.evaluate("Reveal.isLastSlide() && !Reveal.availableFragments().next"):
            break
        page.keyboard.press("ArrowRight")
    steps = page.locator(".slides .fragment").count()
    assert steps == len(QUESTIONS) + 2
    assert len(seen) == page.evaluate("Reveal.getTotalSlides()") + steps
    assert page.locator(".slides .fragment:not(.visible)").count() == 0
    page.keyboard.press("Escape")
    assert page.evaluate("Reveal.isOverview()")
    assert page.strange == []


def test_a_scrubber_answers_to_arrows_and_gives_the_keys_back(opened):
    page = opened("77_made")
    page.evaluate(f"Reveal.slide({1 + len(QUESTIONS)})")
    picture = page.locator("section.present .tk-explorer img")
    first = picture.get_attribute("src")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert picture.get_attribute("src") != first
    assert picture.get_attribute("alt") == "A line of slope 2."
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body && !Reveal.isOverview()")
    page.locator("section.present input").focus()
    page.keyboard.press("PageDown")
    assert page.evaluate("Reveal.getIndices().h") == 2 + len(QUESTIONS)
    assert page.strange == []


@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=QUESTIONS)
def test_after_a_vote_the_slide_still_fits(opened, number):
    page = opened("77_made")
    page.evaluate("i => Reveal.slide(i)", 1 + number)
    here = page.locator("section.present")
    keys = {"02.2": "7", "11.8": "ArrowRight", "05.4": ""}.get(QUESTIONS[number], "Space")
    if keys:
        here.locator("input").first.focus()
        page.keyboard.press(keys)
    here.get_by_role("button", name="Lock in my answer").press("Enter")
    assert here.locator(".tk-q-says").first.inner_text().strip()
    reason = here.locator(".tk-q-second:not([hidden]) input")
    if reason.count():
        reason.last.focus()
        page.keyboard.press("Space")
        here.get_by_role("button", name="Lock in my reason").press("Enter")
    assert here.locator(".answer").count() == 0
    page.evaluate(FRAMES)
    out = page.evaluate("sticksOut(Reveal.getCurrentSlide().querySelector('.page'))")
    assert max(out["down"], out["across"]) < 1, out
    assert page.strange == []


def test_light_and_dark(opened):
    page = opened("77_made", "?dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.keyboard.press("d")
    light = page.evaluate(paper)
    assert (dark, light) == ("rgb(22, 24, 28)", "rgb(255, 255, 255)")


def test_the_lecturer_has_notes_in_a_second_window(opened):
    page = opened("77_made")
    page.evaluate("Reveal.slide(1)")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    notes = popup.value.locator(".speaker-controls-notes .value")
    notes.get_by_text("Wrong answers that will come").wait_for()
    assert "A cautious guess" in notes.inner_text()
    page.evaluate(f"Reveal.slide({2 + len(QUESTIONS)})")
    notes.get_by_text("aloud").wait_for()
    assert notes.locator("math").count() == 1
    assert page.strange == []


def test_a_page_of_the_pdf_is_a_slide(browser, folder):
    for row in contents.rows(folder):
        pdf = (folder / f"{row.stem}.pdf").read_bytes()
        assert len(re.findall(rb"/Type /Page\b(?!s)", pdf)) == row.slides
        assert re.findall(rb"/MediaBox \[([^]]*)\]", pdf) == [b"0 0 960 540"] * row.slides
    index = (folder / "index.html").read_text("utf-8")
    assert index.count(".pdf") == len(contents.rows(folder)) == 1 + len(PROVED)
