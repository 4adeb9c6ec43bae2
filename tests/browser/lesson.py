"""One way through a lesson in JupyterLab, from the first sight to the notebook opened again.

All is done in one go, because a lesson takes half a minute to run; what is wrong is collected.
"""

import json

from answers import answer, first_exercise, right_code, try_again, wrong_code

from teachkit.show.quizzes import find

WIDGETS = ".tk-explorer, .tk-q-question, .tk-q-cover"
DEAD = ["model not found", "Error displaying widget", "Click to show javascript error"]
TOUCHED = {
    "a slider": ".tk-explorer input[type=range]",
    "a menu": ".tk-explorer select",
    "a radio button": ".tk-q-question input[type=radio]:not([disabled])",
    "a checkbox": ".tk-q-question input[type=checkbox]:not([disabled])",
    "a number": ".tk-q-question .tk-q-number:not([disabled])",
    "a slider of a question": ".tk-q-question input[type=range]:not([disabled])",
    "a button": ".tk-q-question button:not([disabled]):not([hidden])",
    "a cover": ".tk-q-cover:not([hidden]) button",
    "a hint": ".jp-OutputArea-output summary",
    "a table": ".jp-OutputArea-output [tabindex='0']",
}


class Lesson:
    """A lesson on its way; each step gives back what is wrong."""

    def __init__(self, window, stem):
        self.window, self.page, self.stem = window, window.page, stem
        self.file = f"{stem}.ipynb"

    def walk(self):
        """Take every step; what was wrong, one line each."""
        found = []
        for step in (
            self.first_sight, self.run, self.keys, self.questions, self.explorers, self.exercise,
            self.looks, self.sizes, self.restarted, self.reopened, self.strangers,
        ):  # fmt: skip
            try:
                found += [f"{step.__name__}: {line}" for line in step()]
            except Exception as error:
                found.append(f"{step.__name__}: {type(error).__name__}: {str(error)[:600]}")
        return found

    def first_sight(self):
        self.window.open(self.file)
        return self.dead()

    def dead(self):
        """Outputs that show nothing of use."""
        said = self.page.evaluate("book.outputs().map(output => output.textContent)")
        return [f"{text[:80]!r}" for text in said for word in DEAD if word in text]

    def run(self):
        return self.window.run_all() + self.dead()

    def widgets(self, selector):
        """The elements that the learner sees, as they are now."""
        return [one for one in self.page.locator(selector).all() if one.is_visible()]

    def keys(self):
        """What is typed on a widget is not a command of JupyterLab."""
        found, count = [], len(self.window.cells())
        for what, selector in TOUCHED.items():
            for one in self.widgets(selector)[:1]:
                one.scroll_into_view_if_needed()
                one.focus()
                for key in "ddbx":
                    self.page.keyboard.press(key)
                now = len(self.window.cells())
                if now != count:
                    found.append(f"ddbx typed on {what} makes {count} cells {now}")
                    self.window.undo()
        return found

    def questions(self):
        """Each question wrong, then right, with the keyboard."""
        found = []
        for form in self.forms():
            question = find(form.get_attribute("data-asks"))
            found += answer(self.page, question, right=False)
            try_again(self.page, question)
            found += answer(self.page, question, right=True)
        covered = self.page.locator(".tk-q-cover:visible").count()
        return found + ["a cover stays after the vote"] * covered

    def forms(self):
        """The questions, once all are there."""
        forms, asked = self.page.locator(".tk-q-question"), self.sources("show.quiz(")
        if asked:
            forms.nth(asked - 1).wait_for(state="attached")
        return forms.all()

    def explorers(self):
        """Each control changes the picture."""
        found, asked = [], self.sources("show.explore(")
        if asked:  # one that was covered comes a moment after the vote
            self.page.locator(".tk-explorer").nth(asked - 1).wait_for(state="attached")
        explorers = self.widgets(".tk-explorer")
        for number, explorer in enumerate(explorers, 1):
            image = explorer.locator("img")
            for control in explorer.locator("input, select").all():
                if not self.moves(control, image):
                    name = control.evaluate("it => it.labels[0]?.textContent")
                    found.append(f"explorer {number}: {name!r} does not change the picture")
            if not image.get_attribute("alt"):
                found.append(f"explorer {number}: the picture has no alt text")
        return found if explorers and asked else ["there is no explorer"]

    def sources(self, word):
        """How many cells have a word in their code."""
        return sum(word in cell["source"] for cell in self.window.cells())

    def moves(self, control, image):
        """Whether a key changes what the picture shows; a step or two may leave it as it is."""
        control.scroll_into_view_if_needed()
        control.focus()
        before = image.evaluate("img => book.looks(img)")
        for _ in range(3):
            self.page.keyboard.press(control.evaluate("it => book.onward(it)"))
            try:
                self.page.wait_for_function(
                    "([img, before]) => book.changed(img, before)",
                    arg=[image.element_handle(), before],
                    timeout=10_000,
                )
            except Exception:  # noqa: S112  (playwright's TimeoutError; it may not be installed)
                continue
            return True
        return False

    def exercise(self):
        """An exercise answered wrong, then right."""
        found = []
        stub, check, solution = first_exercise(self.window)
        for code, right in ((wrong_code(stub), False), (right_code(stub, solution), True)):
            self.window.write(stub["id"], code)
            self.window.run(stub["id"])
            says = self.window.run(check["id"])
            if ("correct." in says) is not right or "not attempted" in says:
                found.append(f"a {'right' if right else 'wrong'} answer: {says!r}")
            if not right:
                output = self.page.locator(f"[data-cell='{check['id']}']")
                self.window.point(check["id"])
                self.window.shoot(output.first, f"{self.stem}_exercise_wrong_light")
        self.written = right_code(stub, solution)
        return found

    def looks(self):
        """axe-core in both themes, with pictures to look at."""
        found = []
        check = self.window.cells("check")[0]["id"]
        self.window.point(check)
        for theme in ("dark", "light"):
            self.window.theme(theme)
            found += [f"{theme}: {line}" for line in self.window.violations()]
            for what, selector in {
                "explorer": ".tk-explorer", "question": ".tk-q-question", "cover": ".tk-q-cover",
                "table": ".jp-OutputArea-output table", "exercise": f"[data-cell='{check}']",
            }.items():  # fmt: skip
                for i, one in enumerate(self.widgets(selector)[:3]):
                    self.window.shoot(one, f"{self.stem}_{what}{i or ''}_{theme}")
        return found

    def sizes(self):
        """A narrow window with the side bar open, and a zoom of 200 %."""
        found = []
        for name, size in {"820 px": (820, 900), "200 %": (700, 500)}.items():
            self.window.size(*size)
            found += [f"{name}: {line}" for line in self.window.cropped()]
            for one in self.widgets(".tk-explorer")[:1]:
                self.window.shot(f"{self.stem}_{size[0]}", one)
        self.window.size(1400, 1000)
        return found

    def restarted(self):
        """A new kernel: what is on the page says so, and all runs again."""
        self.window.restart()
        silent = [
            f"after a restart nothing is said: {text[:80]!r}"
            for text in self.page.evaluate(
                "[...document.querySelectorAll('.tk-explorer')].map(it => it.textContent)"
            )
            if "Run this cell" not in text
        ]
        again = [f"after a restart: {line}" for line in self.window.run_all()]
        for explorer in self.widgets(".tk-explorer")[:1]:
            if not self.moves(explorer.locator("input, select").first, explorer.locator("img")):
                again.append("after a restart the explorer does not move")
        ends = [cell["id"] for cell in self.window.cells() if "show.end(" in cell["source"]]
        for said in map(self.window.text, ends):
            for words in ("Your predictions.", "Your exercises. 1 of"):
                if words not in said:
                    again.append(f"the end does not say {words!r}: {said[:200]!r}")
        return silent + again

    def reopened(self):
        """Saved, closed, opened again: the learner's code is there, and nothing is dead."""
        self.window.save()
        self.window.close()
        self.window.server.shut()
        saved = json.loads((self.window.server.work / self.file).read_bytes())
        lost = self.written not in ["".join(cell["source"]) for cell in saved["cells"]]
        self.window.open(self.file)
        self.forms()
        found = self.dead() + ["what was typed is not in the saved notebook"] * lost
        for explorer in self.widgets(".tk-explorer, .teachkit-explorer")[:1]:
            self.window.shoot(explorer, f"{self.stem}_reopened")
        return found

    def strangers(self):
        return self.window.strange
