"""A learner's story: they work, the course changes, the machine fails, and nothing of theirs is lost.

Only the first story needs a browser; the others ask JupyterLab's server as its page does.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from answers import answer, first_exercise, right_code

from benchmarks.jupyterlab import Server
from teachkit.course.setup import ROOT
from teachkit.show.quizzes import find

COURSE = ("teachkit", "notebooks", "data", "environment.yml", "pyproject.toml", ".gitignore")
COURSE += ("README.md",)
LESSON, NEW = "02_taylor.ipynb", "02_taylor-new.ipynb"
MINE = "# my own words"
RECORD = """
import itertools
from teachkit.lab import progress
for n in itertools.count():
    progress.record("prediction", f"02.{n}", answer="it falls", right=False, truth="it rises")
    print(n, flush=True)
"""


def git(folder, *words):
    names = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *names, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def course(tmp_path):
    """A learner's clone of the course, as the course stands here."""
    origin = tmp_path / "origin"
    origin.mkdir()
    for name in COURSE:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, origin / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, origin / name)
    git(origin, "init", "-q", "-b", "main")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "One")
    git(tmp_path, "clone", "-q", "origin", "course")
    return tmp_path / "course"


def publish(course, word):
    """The course changes lesson 02, and the learner updates by git without a question."""
    path = course.parent / "origin" / "notebooks" / LESSON
    book = json.loads(path.read_text("utf-8"))
    book["cells"][0]["source"].append(f"\n\n{word}")
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", "utf-8")
    git(path.parent, "commit", "-qam", word)
    git(course, "pull", "-q", "--ff-only")


@pytest.fixture
def start(course):
    """Start ``lab`` in the clone; each server that still runs is killed at the end."""
    servers = []

    def started():
        server = Server(course.parent / "home", course)
        servers.append(server)
        return server

    (course.parent / "home").mkdir()
    yield started
    for server in servers:
        server.kill()


def progress(course):
    """What the command ``progress`` says."""
    env = os.environ | {"PYTHONPATH": str(course)}
    env.pop("TEACHKIT_WORK")
    command = [sys.executable, "-m", "teachkit.course.progress"]
    return subprocess.run(command, cwd=course, env=env, capture_output=True, text=True).stdout


def test_work_outlives_an_update_of_the_course(course, start, new_window):
    server = start()
    server.start()
    window = new_window(server)
    window.page.goto(f"{server.url}/?token={server.token}")  # where the command opens the browser
    window.await_kernel("work/00_start.ipynb")
    assert window.page.locator(".jp-TableOfContents:visible").count()
    assert window.page.get_by_text("Would you like to").count() == 0  # no news
    window.open(LESSON)
    cells = window.cells()
    window.run(next(c["id"] for c in cells if "from teachkit import" in c["source"]))
    quiz = next(c for c in cells if "show.quiz(" in c["source"])
    window.run(quiz["id"])
    question = find(quiz["source"].split('"')[1])
    assert answer(window.page, question, right=False) == []
    stub, check, solution = first_exercise(window)
    code = f"{MINE}\n{right_code(stub, solution)}"
    window.write(stub["id"], code)
    window.run(stub["id"])
    assert "correct." in window.run(check["id"])
    window.save()
    window.close()
    server.stop()
    before, kept = (course / "work" / LESSON).read_bytes(), progress(course)
    assert " made, 0 right" in kept
    assert "1 of 4 solved" in kept

    publish(course, "Entirely new.")
    server = start()
    server.start()
    assert f"beside it as {NEW}" in server.log.read_text("utf-8")
    assert "Entirely new." in (course / "work" / NEW).read_text("utf-8")
    assert (course / "work" / LESSON).read_bytes() == before
    assert kept in progress(course).replace(
        f"A new version of a lesson lies beside yours: {NEW}.\n", ""
    )
    window = new_window(server)
    window.open(LESSON)
    assert code in [cell["source"] for cell in window.cells()]
    window.open(NEW)
    assert "Entirely new." in window.cells()[0]["source"]
    window.run(window.cells()[0]["id"])
    window.save()
    assert git(course, "status", "--porcelain") == ""
    assert window.strange == []


def killed_when(process, seen, wait):
    """Kill a program and all of its own ``wait`` seconds after something is seen."""
    end = time.monotonic() + 120
    while not seen() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def while_copying(course, server, wait):
    """The first start, before all lessons are copied."""
    server.begin()
    killed_when(server.process, lambda: any((course / "work").glob("0*.ipynb")), wait / 10)


def while_saving(course, server, wait):
    """A page that saves again and again; what the server has confirmed must be there, or what came after."""
    server.start()
    book = server.ask(f"/api/contents/work/{LESSON}")["content"]
    confirmed = []

    def save():
        try:
            for n in range(10_000):
                book["cells"][-1]["source"] = f"{MINE} {n}"
                server.ask(
                    f"/api/contents/work/{LESSON}", "PUT", {"type": "notebook", "content": book}
                )
                confirmed.append(n)
        except OSError:
            pass  # the server is gone

    thread = threading.Thread(target=save)
    thread.start()
    killed_when(server.process, lambda: len(confirmed) > 3, wait)
    thread.join(30)
    return confirmed[-1]


def while_recording(course, wait):
    """A kernel that keeps prediction after prediction; every one that it has confirmed must be there."""
    env = os.environ | {"PYTHONPATH": str(course)}
    env.pop("TEACHKIT_WORK")
    kernel = subprocess.Popen(
        [sys.executable, "-c", RECORD], cwd=course / "work", env=env, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    first = kernel.stdout.readline()
    killed_when(kernel, lambda: first, wait)
    return int((first + kernel.stdout.read()).split("\n")[-2])


def while_laying_beside(course, server, wait):
    """The start after an update, as the new version comes to lie beside the learner's own."""
    publish(course, "Entirely new.")
    server.begin()
    killed_when(server.process, (course / "work" / NEW).exists, wait / 10)


def test_what_was_saved_outlives_a_kill_at_any_moment(course, start):
    dice = random.Random(12)
    waits = [dice.uniform(0, 0.3) for _ in range(5)]
    work = course / "work"
    while_copying(course, start(), waits[0])
    last = while_saving(course, start(), waits[1])
    assert _words(start, course)[0] >= last
    made = while_recording(course, waits[2])
    while_laying_beside(course, start(), waits[3])
    number, server = _words(start, course, stop=False)
    assert number >= last
    killed_when(server.process, lambda: True, waits[4])  # in the middle of nothing
    assert _words(start, course)[0] == number
    names = {path.name for path in work.glob("[0-9]*.ipynb")}  # JupyterLab may have left .~02…
    assert names == {path.name for path in (course / "notebooks").glob("*.ipynb")} | {NEW}
    assert "Entirely new." in (work / NEW).read_text("utf-8")
    lines = [line for line in (work / "progress.jsonl").read_bytes().split(b"\n") if line]
    events = [json.loads(line)["name"] for line in lines[: made + 1]]
    assert events == [f"02.{n}" for n in range(made + 1)]
    assert git(course, "status", "--porcelain") == ""


def _words(start, course, stop=True):
    """Start again; which of the learner's saves JupyterLab opens."""
    server = start()
    server.start()
    book = server.ask(f"/api/contents/work/{LESSON}")["content"]
    if stop:
        server.stop()
    return int(book["cells"][-1]["source"].removeprefix(MINE)), server
