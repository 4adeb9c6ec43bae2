"""Questions in a real browser: each kind right and wrong, by keyboard, on a plain page and in JupyterLab."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from teachkit.course.notebooks import KERNEL
from teachkit.show import predictions, quizzes

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DARK = "<style>:root { color-scheme: dark } body { background: #111; color: #ddd }</style>"
HEARD = """<script>
window.heard = []; window.votes = [];
document.addEventListener('keydown', (event) => heard.push(event.key), true);
document.addEventListener('teachkit-vote', (event) => votes.push(event.detail));
</script>"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Plain pages, light and dark, with a question of each kind and a result that waits for the first."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(Path(__file__).with_name("questions.toml"), folder / "77_x.toml")
    asked = "\n".join(question.static for question in quizzes.load(folder / "77_x.toml").values())
    waiting = (
        '<details data-predict="77.1"><summary>Predict first</summary><p>the result</p></details>'
    )
    for name, style in {"light": "", "dark": DARK}.items():
        (folder / f"{name}.html").write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Questions</title>{style}'
            f"{HEARD}</head><body><main><h1>Questions</h1>{asked}{waiting}</main>"
            f"{predictions.page_script()}</body></html>",
            "utf-8",
        )
    return folder.as_uri()


@pytest.fixture
def page(browser, address):
    opened = browser.new_page(viewport={"width": 900, "height": 900})
    opened.set_default_timeout(5000)
    strange = []
    opened.on("pageerror", lambda error: strange.append(str(error)))
    opened.goto(f"{address}/light.html")
    yield opened
    opened.close()
    assert strange == []


def ask(page, name):
    return page.locator(f'[data-asks="{name}"]')


def lock(box, what="answer"):
    box.get_by_role("button", name=f"Lock in my {what}").click()


def said(box, at=0):
    return box.locator(".tk-q-says").nth(at).inner_text()


def choose(*texts):
    def act(box):
        for text in texts:
            box.get_by_label(text, exact=True).check()

    return act


def type_number(value):
    return lambda box: box.get_by_label("Your number").fill(value)


def arrange(*texts):
    """Move each item up to its place."""

    def act(box):
        rows = box.locator("li")
        for place, text in enumerate(texts):
            while rows.evaluate_all("rows => rows.map(row => row.dataset.text)")[place] != text:
                box.get_by_role("button", name=f"Move up: {text}").click()

    return act


def draw(*values):
    def act(box):
        for slider, value in zip(box.get_by_role("slider").all(), values, strict=True):
            slider.fill(str(value))

    return act


RIGHT = {
    "77.1": (choose("it rises"), "Because it does."),
    "77.2": (choose("weights", "biases"), "4 of 4 judged rightly"),
    "77.3": (type_number("0.954"), "That is erf(2/√2)."),
    "77.4": (arrange("magnitude", "SD", "OBD", "random"), "As measured."),
    "77.5": (draw(0.1, 0.3, 0.6, 0.9), "Each step is small enough."),
    "77.6": (draw(-3.5), "The third power."),
}
WRONG = {
    "77.1": (choose("it falls"), "That is the sum of the single ones."),
    "77.2": (choose("weights", "classes"), "2 of 4 judged rightly"),
    "77.3": (type_number("95"), "Those are per cent"),
    "77.4": (arrange("random", "SD"), "In order: magnitude, then OBD, then SD, then random."),
    "77.5": (draw(0.5, 0.45, 0.5, 0.6), "That would be as good as chance. Measured: 0.17 at 1"),
    "77.6": (draw(-6), "Count the powers. Measured: 0.001 at t = 0.1."),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(("answers", "word"), [(RIGHT, "✓ Right."), (WRONG, "✗ Not so.")])
def test_an_answer_is_judged_and_explained(page, name, answers, word):
    box, (act, why) = ask(page, name), answers[name]
    act(box)
    assert said(box) == "" or "is now number" in said(box)  # no vote without the button
    lock(box)
    assert said(box).startswith(word)
    assert why in said(box)
    assert page.evaluate("votes") == [name]
    assert all(
        field.is_disabled() for field in box.locator("fieldset").first.locator("input").all()
    )


@pytest.mark.parametrize("name", RIGHT)
def test_another_try_does_not_vote_again(page, name):
    box = ask(page, name)
    WRONG[name][0](box)
    lock(box)
    box.get_by_role("button", name="Try again").click()
    assert said(box).startswith("Your first answer was: ")
    RIGHT[name][0](box)
    lock(box)
    assert said(box).startswith("✓ Right.")
    assert page.evaluate("votes") == [name]


@pytest.mark.parametrize("name", [name for name in RIGHT if name != "77.4"])
def test_nothing_is_no_answer(page, name):
    box = ask(page, name)
    lock(box)
    assert "first" in said(box)
    assert page.evaluate("votes") == []


@pytest.mark.parametrize(
    ("reason", "word", "why"),
    [
        ("the weights work together", "✓ Right.", "Cross terms."),
        ("the data are few", "✗ Not so.", "They are the training data."),
    ],
)
@pytest.mark.parametrize("answers", [RIGHT, WRONG])
def test_the_reason_is_judged_apart(page, answers, reason, word, why):
    box = ask(page, "77.1")
    assert not box.get_by_text("Why?").is_visible()
    answers["77.1"][0](box)
    lock(box)
    verdict = said(box)
    lock(box, "reason")
    assert said(box, 1) == "Choose a reason first."
    choose(reason)(box)
    lock(box, "reason")
    assert said(box, 1) == f"{word} {why}"
    assert said(box) == verdict


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0.931", "✓"),
        ("0.969", "✓"),
        ("0.930", "✗ Not so. Think"),
        ("0.97", "✗ Not so. Think"),
        ("9.5e-1", "✓"),
        ("0.47", "✗ Not so. That is one side alone."),
        ("-0.95", "✗ Not so. The size is right, the sign is not. Think"),
        ("1.9", "✗ Not so. Your number is 2 times too large. Think"),
        ("0.0095", "✗ Not so. Your number is 100 times too small. Think"),
        ("0", "✗ Not so. Think"),
    ],
)
def test_the_tolerance_and_the_usual_slips(page, value, says):
    box = ask(page, "77.3")
    type_number(value)(box)
    lock(box)
    assert said(box).startswith(says)


def test_enter_locks_a_number_in(page):
    box = ask(page, "77.3")
    type_number("0.95")(box)
    box.get_by_label("Your number").press("Enter")
    assert said(box).startswith("✓ Right.")


@pytest.mark.parametrize(("share", "value"), [(0.0, "1"), (0.5, "0.5"), (1.0, "0")])
def test_a_point_can_be_dragged(page, share, value):
    box = ask(page, "77.5")
    box.locator("svg").scroll_into_view_if_needed()
    chart = box.locator("svg").bounding_box()
    scale = chart["width"] / 520
    x, y = chart["x"] + 84 * scale, chart["y"] + (14 + share * 234) * scale
    page.mouse.move(x, chart["y"] + 200 * scale)
    page.mouse.down()
    page.mouse.move(x, y, steps=4)
    page.mouse.up()
    assert box.locator("output").all_inner_texts() == [value, "0.5", "0.5", "0.5"]


# Keyboard --------------------------------------------------------------------------------------


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def until(page, locator, key="Tab"):
    """Press a key until an element has the focus."""
    for _ in range(40):
        if locator.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError("it cannot be reached by keyboard")


@pytest.mark.parametrize("name", RIGHT)
def test_each_kind_by_keyboard_alone(page, name):
    box = ask(page, name)
    box.focus()
    if name == "77.1":
        until(page, box.get_by_role("radio").first)
        press(page, "Space")
        until(page, box.get_by_label("it rises"), "ArrowDown")
    elif name == "77.2":
        for text in ("biases", "weights"):
            until(page, box.get_by_label(text))
            press(page, "Space")
    elif name == "77.3":
        until(page, box.get_by_label("Your number"))
        page.keyboard.type("0.95")
    elif name == "77.4":
        rows = box.locator("li")
        for place, text in enumerate(("magnitude", "OBD", "SD", "random")):
            while rows.evaluate_all("rows => rows.map(row => row.dataset.text)")[place] != text:
                box.focus()
                until(page, box.get_by_role("button", name=f"Move up: {text}"))
                press(page, "Enter")
        box.focus()
    else:
        for slider, moves in zip(box.get_by_role("slider").all(), (35, 20, -6, -45), strict=False):
            until(page, slider)
            press(page, *["ArrowLeft" if moves > 0 else "ArrowRight"] * abs(moves))
            if name == "77.6":
                press(page, *["ArrowRight"] * 35)
    assert page.evaluate("votes") == []
    until(page, box.get_by_role("button", name="Lock in my answer"))
    press(page, "Space")
    assert said(box).startswith("✓ Right."), said(box)
    if name == "77.1":  # the focus is where one goes on
        press(page, "Space")
        until(page, box.get_by_role("button", name="Lock in my reason"))
        press(page, "Enter")
        assert said(box, 1)
    until(page, box.get_by_role("button", name="Try again"), "Shift+Tab")
    press(page, "Enter")
    assert box.get_by_role("button", name="Lock in my answer").is_visible()
    assert page.evaluate("heard").count(" ") == 0


def test_the_focus_stays_with_what_moves(page):
    box = ask(page, "77.4")
    text = box.locator("li").nth(1).get_attribute("data-text")
    box.get_by_role("button", name=f"Move up: {text}").focus()
    press(page, "Enter")
    assert said(box) == f"{text} is now number 1 of 4."
    down = box.get_by_role("button", name=f"Move down: {text}")  # up is off now
    assert down.evaluate("element => element === document.activeElement")


@pytest.mark.parametrize("name", RIGHT)
def test_keys_on_a_question_stay_in_it(page, name):
    page.locator("h1").click()
    press(page, "d")
    assert page.evaluate("heard") == ["d"]
    ask(page, name).locator("input, button").locator("visible=true").last.focus()
    press(page, "d", "d", "b", "x", "ArrowDown", "Escape")
    assert page.evaluate("heard") == ["d"]


# How it is built -------------------------------------------------------------------------------


def test_one_group_with_a_name_for_each_question(page):
    names = page.evaluate(
        "[...document.querySelectorAll('fieldset')].map(f => [...new Set("
        "[...f.querySelectorAll('input')].map(i => i.name))])"
    )
    flat = [name for group in names for name in group]
    assert max(map(len, names)) == 1
    assert len(flat) == len(set(flat)) == 7  # six questions but the order, two second steps
    assert page.locator("fieldset > legend").count() == 8
    lives = page.locator("[aria-live=polite]")
    assert lives.count() == 8


def test_text_is_text(page):
    assert ask(page, "77.1").locator("legend").first.inner_text() == "Is a < b & c one answer?"


def test_a_vote_opens_what_waits_for_it(page):
    assert not page.get_by_text("the result").is_visible()
    RIGHT["77.1"][0](ask(page, "77.1"))
    lock(ask(page, "77.1"))
    assert page.get_by_text("the result").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_violation_and_nothing_cropped(page, address, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.goto(f"{address}/{theme}.html")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"questions_{theme}.png", full_page=True)
    for state in ("asked", "judged"):
        found = axe.Axe().run(page).response["violations"]
        bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] != "minor"]
        assert bad == [], state
        for name, (act, _) in WRONG.items() if state == "asked" else ():
            act(ask(page, name))
            lock(ask(page, name))
    page.screenshot(path=SHOTS / f"questions_{theme}_judged.png", full_page=True)
    page.set_viewport_size({"width": 320, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


# In JupyterLab ---------------------------------------------------------------------------------

CELLS = {
    "start": "from teachkit import show\nfrom teachkit.show.lessons import taylor as scenes",
    "quiz": 'show.quiz("02.3")',
    "explorer": 'show.reveal("02.3", show.explore(scenes.polynomial, function=["exp x"], '
    "centre=(0.0, 1.0, 0.5), order=(0, 8, 1, 2)))",
    "page": 'show.reveal("02.2", show.source(show.quiz))',
}


@pytest.fixture
def notebook(lab):
    cells = [nbformat.v4.new_code_cell(text, id=name) for name, text in CELLS.items()]
    path = lab.work / "questions.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    yield path
    path.unlink()


def votes(lab):
    file = lab.work / "progress.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if '"02.' in line]


def test_predict_see_restart_and_come_back(lab, notebook, new_window):
    window = new_window(lab)
    page = window.page
    window.open(notebook.name)
    assert window.run_all() == []
    box, covered = ask(page, "02.3"), page.locator(".tk-q-cover:visible")
    box.wait_for()
    covered.nth(1).wait_for()
    assert covered.count() == 2
    assert "Question 02.2 has not been asked yet" in covered.nth(1).inner_text()
    for shade in ("light", "dark"):
        window.theme(shade)
        assert window.violations() == []
        page.screenshot(path=SHOTS / f"questions_lab_{shade}.png")

    covered.first.get_by_role("button", name="Go to the question").click()
    press(page, "ArrowDown", "d", "d", "b", "x")
    assert [cell["id"] for cell in window.cells()] == list(CELLS)
    assert votes(lab) == []
    box.get_by_label("it rises").check()
    lock(box)
    order = page.get_by_role("slider", name="order")
    order.wait_for()
    box.get_by_text("kept as your prediction").wait_for()
    (vote,) = votes(lab)
    assert (vote["answer"], vote["right"], vote["reason_right"]) == ("it rises", True, None)
    box.get_by_label("do not add up").check()
    lock(box, "reason")
    picture = page.locator(".tk-q-child img")
    before = picture.get_attribute("src")
    order.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.tk-q-child img').src !== before", arg=before
    )
    assert [vote["reason_right"] for vote in votes(lab)] == [None, True]

    window.save()
    window.restart()
    box.get_by_role("button", name="Try again").click()
    box.get_by_label("it falls about").check()
    lock(box)
    assert said(box).startswith("✗ Not so.")
    assert window.run_all() == []
    box.get_by_text("kept as your prediction").wait_for()
    assert box.get_by_label("it rises").is_checked()  # the first vote, not the last
    assert box.get_by_label("do not add up").is_checked()
    assert page.locator(".tk-q-cover:visible").count() == 1
    page.get_by_role("button", name="Show it without a prediction").click()
    page.get_by_text("def quiz").locator("visible=true").last.wait_for()
    window.save()
    window.close()

    again = new_window(lab)
    again.open(notebook.name)
    again.page.screenshot(path=SHOTS / "questions_lab_reopened.png")
    ask(again.page, "02.3").wait_for(timeout=90_000)
    assert ask(again.page, "02.3").get_by_label("it rises").is_checked()
    assert [vote["kind"] for vote in votes(lab)] == ["prediction", "prediction", "skipped"]
    assert again.strange == window.strange == []
    again.close()


def test_a_vote_without_a_kernel_is_kept_when_the_cell_runs(lab, notebook, new_window):
    (lab.work / "progress.jsonl").unlink(missing_ok=True)
    window = new_window(lab)
    window.open(notebook.name)
    assert window.run_all() == []
    box = ask(window.page, "02.3")
    box.wait_for()
    window.restart()
    box.get_by_text("it is not kept until you run this cell").wait_for()
    box.get_by_label("it rises").check()
    lock(box)
    assert said(box).startswith("✓ Right.")
    assert votes(lab) == []
    window.run("start")
    window.run("quiz")
    box.get_by_text("kept as your prediction").wait_for()
    assert box.get_by_label("it rises").is_checked()
    assert [vote["answer"] for vote in votes(lab)] == ["it rises"]
    window.close()


def test_what_is_saved_after_a_restart_is_not_dead(lab, notebook, new_window):
    window = new_window(lab)
    window.open(notebook.name)
    assert window.run_all() == []
    ask(window.page, "02.3").wait_for()
    window.restart()
    window.save()
    window.close()
    window.open(notebook.name)
    window.page.get_by_text("Run this cell to answer.").wait_for()
    assert window.page.get_by_text("model not found").count() == 0
    window.close()


def test_a_number_with_a_comma_is_not_locked_in(page):
    box = ask(page, "77.3")
    box.get_by_label("Your number").press_sequentially("0,95")
    box.get_by_label("Your number").press("Enter")
    assert said(box).startswith("Type a number first, such as 0.5")
    assert page.evaluate("votes") == []
