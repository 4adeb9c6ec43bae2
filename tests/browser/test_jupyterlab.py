"""JupyterLab in a real browser: run every notebook, move every explorer's slider, see it change."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from teachkit.course.setup import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROME = (
    shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
)
pytestmark = pytest.mark.skipif(
    not CHROME, reason="no Chromium on this machine to open JupyterLab with"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
BOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SHOTS = ROOT / "build" / "screenshots"

# JupyterLab shows "idle" before the kernel is connected; a Run All in that gap would be lost.
RUN_ALL = """async () => {
  const app = window.jupyterapp; await app.restored;
  const book = app.shell.currentWidget; await book.context.ready; await book.sessionContext.ready;
  await book.sessionContext.session.kernel.info;
  await app.commands.execute('notebook:run-all-cells');
  return book.content.widgets.filter(c => c.model.type === 'code').map(c => c.model.sharedModel.toJSON());
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server of our own on loopback, started as ``python -m teachkit lab`` starts it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(
        ROOT / "notebooks", home / "root" / "notebooks", ignore=shutil.ignore_patterns(".*")
    )
    dirs = {
        "JUPYTER_CONFIG_DIR": "c",
        "JUPYTER_DATA_DIR": "d",
        "JUPYTER_RUNTIME_DIR": "r",
        "IPYTHONDIR": "i",
    }
    env = (
        os.environ
        | {name: str(home / sub) for name, sub in dirs.items()}
        | {"OMP_NUM_THREADS": "1"}
    )
    env["JUPYTERLAB_WORKSPACES_DIR"] = str(home / "w")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'root'}"]
    options += ["--LabApp.expose_app_in_browser=True"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log, env=env
        )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/api?token={token}", timeout=1)
                break
            assert server.poll() is None, (home / "log").read_text()
            time.sleep(0.2)
        yield url, token
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(lab, browser):
    url, _ = lab
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.strange = []

    def only_here(route):
        if route.request.url.startswith((url, "data:", "blob:")):
            route.continue_()
        else:
            opened.strange.append(route.request.url)
            route.abort()

    opened.route("**/*", only_here)
    opened.on("pageerror", lambda error: opened.strange.append(str(error)))
    yield opened
    opened.close()


@pytest.mark.parametrize("stem", BOOKS)
def test_run_all_and_move_a_slider(stem, lab, page):
    url, token = lab
    page.goto(f"{url}/lab/tree/notebooks/{stem}.ipynb?token={token}&reset")
    connected = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(connected, timeout=60_000)
    page.set_default_timeout(20_000)
    cells = page.evaluate(RUN_ALL)
    assert all(cell["execution_count"] for cell in cells)
    assert [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"] == []

    explorer = page.locator(".jp-OutputArea .tk-explorer").first
    explorer.scroll_into_view_if_needed()
    picture, slider = explorer.locator("img"), explorer.get_by_role("slider").first
    before = picture.get_attribute("src")
    slider.press("ArrowRight")
    sync_api.expect(picture).not_to_have_attribute("src", before)
    assert picture.get_attribute("alt")
    assert slider.get_attribute("aria-valuetext")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{stem}_explorer.png")

    radio = page.locator(".widget-radio-box input").first
    radio.scroll_into_view_if_needed()
    radio.check()
    page.get_by_text("Not yet.").or_(page.get_by_text("Correct.")).first.wait_for()
    page.screenshot(path=SHOTS / f"{stem}_quiz.png")
    assert page.strange == []
