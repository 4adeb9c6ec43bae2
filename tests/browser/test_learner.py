"""A learner in a real browser: their copies, links between them, an update of the course by git."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from teachkit.course import jupyter
from teachkit.course.setup import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROME = (
    shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
)
pytestmark = pytest.mark.skipif(
    not CHROME, reason="no Chromium on this machine to open JupyterLab with"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
COURSE = (
    "teachkit",
    "notebooks",
    "data",
    "environment.yml",
    "pyproject.toml",
    "README.md",
    ".gitignore",
)
SHOTS = ROOT / "build" / "screenshots"
# The environment of this test run stands in for .venv; its package is the copy of the course.
START = """
import os, sys
from pathlib import Path
from teachkit.course import cli, processes
from teachkit.course.setup import Environment
Environment.ensure = lambda self: setattr(self, "python", Path(sys.executable))
processes.environment = lambda: dict(os.environ)
sys.exit(cli.main(["lab", *sys.argv[1:]]))
"""
BOOK = "const app = window.jupyterapp, book = app.shell.currentWidget;"


def git(folder, *words):
    names = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *names, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def course(tmp_path):
    """A course in git, and a learner's clone of it."""
    origin = tmp_path / "origin"
    for name in COURSE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (origin / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, origin / name)
    git(origin, "init", "-q", "-b", "main")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "One")
    git(tmp_path, "clone", "-q", "origin", "course")
    return tmp_path / "course"


def publish(course, old, new):
    """A commit at the origin that changes lesson 02; the learner's clone takes it."""
    path = course.parent / "origin" / "notebooks" / "02_taylor.ipynb"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    git(path.parent, "commit", "-qam", "Two")
    git(course, "pull", "-q", "--ff-only")
    assert git(course, "status", "--porcelain") == ""


@contextlib.contextmanager
def lab(course):
    """The server as ``python -m teachkit lab`` starts it, on loopback."""
    home = course.parent
    dirs = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    env = os.environ | dirs | {"PYTHONPATH": str(course), "IPYTHONDIR": str(home / "ipython")}
    env.pop("TEACHKIT_WORK")
    settings = home / "settings"
    settings.mkdir(exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(jupyter.SETTINGS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    words = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    words += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    words += [f"--LabApp.app_settings_dir={settings}"]  # in .venv it is the environment's own
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", START, *words],
            cwd=course, env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/api?token={token}", timeout=1)
                break
            assert server.poll() is None, (home / "log").read_text()
            time.sleep(0.2)
        yield server, url, token
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield running
        running.close()


@contextlib.contextmanager
def opened(browser, url, token, path=""):
    """JupyterLab as it opens, or one notebook in it, with its kernel."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(f"{url}/{'lab' + path if path else ''}?token={token}")
    ready(page)
    yield page
    page.close()


def ready(page, name=""):
    page.wait_for_function(
        "name => { const book = window.jupyterapp?.shell?.currentWidget;"
        " return book?.context?.path?.endsWith(name) && book.sessionContext?.session?.kernel }",
        arg=name,
    )
    page.evaluate(f"async () => {{ {BOOK} await book.context.ready; }}")


def run(page, code):
    """Put code into the last cell, run it, and say what came out."""
    return page.evaluate(
        f"""async code => {{ {BOOK}
        await book.sessionContext.session.kernel.info;
        const cells = book.content.widgets, cell = cells[cells.length - 1];
        book.content.activeCellIndex = cells.length - 1;
        await app.commands.execute('notebook:insert-cell-below');
        const made = book.content.activeCell;
        made.model.sharedModel.setSource(code);
        await app.commands.execute('notebook:run-cell');
        return made.model.sharedModel.toJSON().outputs; }}""",
        code,
    )


def save(page):
    page.evaluate(f"async () => {{ {BOOK} await app.commands.execute('docmanager:save'); }}")


def test_lab_opens_the_copies_with_contents_and_links_that_lead_on(course, browser):
    with lab(course) as (_, url, token), opened(browser, url, token) as page:
        ready(page, "work/00_start.ipynb")
        sync_api.expect(page.locator(".jp-TableOfContents")).to_be_visible()
        sync_api.expect(
            page.get_by_role("treeitem", name="Check your installation")
        ).to_be_visible()
        assert page.get_by_text("Would you like to").count() == 0  # no news
        outputs = run(page, "from teachkit import show\nshow.end('00')")
        assert "01_hessian.ipynb" in json.dumps(outputs)
        link = page.locator(".jp-OutputArea-output a", has_text="01 hessian").last
        link.scroll_into_view_if_needed()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "00_end.png")
        link.click()
        ready(page, "work/01_hessian.ipynb")
        save(page)
        page.evaluate(
            f"async () => {{ {BOOK} await app.commands.execute('docmanager:open', {{path: 'README.md'}}); }}"
        )
        sync_api.expect(page.locator(".jp-MarkdownViewer h1")).to_be_visible()
        assert git(course, "status", "--porcelain") == ""


def test_work_and_progress_outlive_an_update_of_the_course(course, browser):
    path = "/tree/work/02_taylor.ipynb"
    with lab(course) as (_, url, token), opened(browser, url, token, path) as page:
        run(page, "mine = 'my own work'\nfrom teachkit.lab import progress\n"
            "progress.record('prediction', '02.3', answer='it falls', right=False, truth='it rises')\n"
            "progress.record('exercise', '02.1', right=True)")  # fmt: skip
        save(page)
        page.close()
    publish(course, "Griewank", "GRIEWANK")
    with lab(course) as (_, url, token), opened(browser, url, token, path) as page:
        text = page.evaluate(f"() => {{ {BOOK} return JSON.stringify(book.model.toJSON()); }}")
        assert "my own work" in text
        assert "Griewank" in text
        outputs = json.dumps(run(page, "from teachkit import show\nshow.end('02')"))
        assert "it falls" in outputs
        assert "it rises" in outputs
        assert "1 of 4 solved" in outputs
        assert "02_taylor-new.ipynb" in json.dumps(run(page, "show.progress()"))
        page.close()
    assert "02_taylor-new.ipynb" in (course.parent / "log").read_text()
    assert "GRIEWANK" in (course / "work" / "02_taylor-new.ipynb").read_text("utf-8")
    assert git(course, "status", "--porcelain") == ""


def test_a_kill_at_any_moment_leaves_what_was_saved(course, browser):
    """Five ends of the server and its kernels, each while the learner goes on to save."""
    path = "/tree/work/02_taylor.ipynb"
    saved = []
    for n, wait in enumerate((0.3, 0.7, 1.1, 1.6, 2.2)):
        with lab(course) as (server, url, token), opened(browser, url, token, path) as page:
            run(
                page,
                f"from teachkit.lab import progress; progress.record('exercise', '02.{n}', right=True)",
            )
            save(page)
            saved.append(f"'02.{n}'")
            page.evaluate(
                f"() => {{ {BOOK} window.timer = setInterval(() => {{"
                " book.content.widgets[0].model.sharedModel.setSource('# ' + Math.random());"
                " app.commands.execute('docmanager:save').catch(() => 0); }, 20); }"
            )
            time.sleep(wait)
            os.killpg(server.pid, signal.SIGKILL)
            page.evaluate("() => clearInterval(window.timer)")
            page.close()
        publish(course, "Griewank" + "+" * n, "Griewank" + "+" * (n + 1))
    with lab(course) as (_, url, token), opened(browser, url, token, path) as page:
        text = page.evaluate(f"() => {{ {BOOK} return JSON.stringify(book.model.toJSON()); }}")
        assert [each for each in saved if each not in text] == []
        page.close()
    lines = (course / "work" / "progress.jsonl").read_text("utf-8")
    assert [n for n in range(5) if f'"02.{n}"' not in lines] == []
    assert "Griewank+++++" in (course / "work" / "02_taylor-new.ipynb").read_text("utf-8")
