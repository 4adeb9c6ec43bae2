"""Answer questions and exercises as a learner does: with the keyboard, and by typing into cells."""

import math
import re

RIGHT, WRONG = "✓ Right.", "✗ Not so."


def press(page, key, times=1):
    for _ in range(times):
        page.keyboard.press(key)


def choose(page, box, texts):
    """Tick radio buttons or checkboxes from the first on; the focus is on the last one after."""
    inputs = box.locator("input:not([disabled])")
    values = [one.get_attribute("value") for one in inputs.all()]
    inputs.first.focus()
    if inputs.first.get_attribute("type") == "radio":
        press(page, "Space")
        press(page, "ArrowDown", values.index(texts[0]))
        return
    for i, value in enumerate(values):
        press(page, "Tab", min(i, 1))
        if value in texts:
            press(page, "Space")


def put_in_order(page, box, texts):
    rows = box.locator(".tk-q-order li")
    for place, text in enumerate(texts):
        there = [row.get_attribute("data-text") for row in rows.all()].index(text)
        if there > place:
            rows.nth(there).get_by_role("button").first.focus()
            press(page, "Enter", there - place)


def draw(page, box, shares):
    """Move each slider to a share of its range."""
    for slider, share in zip(box.locator("input[type=range]").all(), shares, strict=True):
        slider.focus()
        steps = round(100 * share)
        press(page, "Home" if steps < 50 else "End")
        press(page, "ArrowRight" if steps < 50 else "ArrowLeft", min(steps, 100 - steps))


def _shares(question):
    facts = question.facts
    scale = math.log10 if facts["log"] else float
    low, high = scale(facts["low"]), scale(facts["high"])
    return [(scale(y) - low) / (high - low) for y in facts["truth"]]


def fill(page, box, question, right):
    """Give the right answer or a wrong one; the focus stays in the question."""
    if question.kind in ("choice", "several"):
        fit = [option.text for option in question.options if option.right]
        other = [option.text for option in question.options if not option.right]
        choose(page, box, fit if right else other[:1])
    elif question.kind == "number":
        answer = question.facts["answer"]
        box.locator("input").focus()
        press(page, "ControlOrMeta+a")  # what stood there goes
        page.keyboard.type(repr(answer if right else 3 * answer + 1))
    elif question.kind == "order":
        texts = [item.text for item in sorted(question.options, key=lambda item: item.place)]
        put_in_order(page, box, texts if right else texts[::-1])
    else:
        shares = _shares(question)
        draw(page, box, shares if right else [float(share < 0.5) for share in shares])


def lock_in(page, box, name):
    """Go on to a button with the Tab key, and press it."""
    button = box.get_by_role("button", name=name)
    for _ in range(12):
        if button.evaluate("it => it === document.activeElement"):
            break
        press(page, "Tab")
    else:
        raise AssertionError(f"{name!r} is not reached with the Tab key")
    press(page, "Enter")


def answer(page, question, right):
    """Answer a question and give its reason; what is wrong with what the question says then."""
    form = page.locator(f'form.tk-q-question[data-asks="{question.name}"]')
    form.scroll_into_view_if_needed()
    fill(page, form.locator("fieldset").first, question, right)
    if question.kind != "number":
        lock_in(page, form, "Lock in my answer")
    else:
        press(page, "Enter")
    found = _verdict(form.locator(".tk-q-says").first, question, right)
    if question.reason:
        second = form.locator(".tk-q-second")
        fit = [option.text for option in question.reason.options if option.right is right]
        choose(page, second.locator("fieldset"), fit[:1])
        lock_in(page, form, "Lock in my reason")
        found += _verdict(second.locator(".tk-q-says"), question, right)
    return found


def try_again(page, question):
    lock_in(page, page.locator(f'form.tk-q-question[data-asks="{question.name}"]'), "Try again")


def _verdict(says, question, right):
    says.get_by_text(re.compile("^(✓|✗)")).first.wait_for()
    text, wanted = says.inner_text(), RIGHT if right else WRONG
    if text.startswith(wanted) and len(text) > len(wanted) + 3:
        return []
    return [f"question {question.name}, answered {'right' if right else 'wrong'}, says {text!r}"]


# Exercises -----------------------------------------------------------------------------------


def first_exercise(window):
    """The first exercise of a notebook: the cells of its stub, its check and its solution."""
    stub, check, solution = (window.cells(tag)[0] for tag in ("exercise", "check", "solution"))
    return stub, check, solution


def right_code(stub, solution):
    """The course's solution under the name that the stub has."""
    name = re.search(r"def (\w+)\(", stub["source"]).group(1)
    code = solution["source"].replace("def solution(", f"def {name}(")
    return "\n".join(line for line in code.splitlines() if not line.startswith("show.check("))


def wrong_code(stub):
    """The stub with a constant for an answer."""
    head = re.search(r"def \w+\(.*?\):", stub["source"], re.DOTALL).group(0)
    return f"{head}\n    return 12345.0\n"
