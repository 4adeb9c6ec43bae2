"""A server, a browser and a page for the tests that open JupyterLab."""

from pathlib import Path

import pytest
from window import Window

from benchmarks.jupyterlab import CHROME, FLAGS, Server


# Of the module, not of the session: while a browser is there, no other event loop can run.
@pytest.fixture(scope="module")
def browser():
    name = "playwright.sync_api"
    sync_api = pytest.importorskip(name, reason="playwright is not installed")
    if not CHROME:
        pytest.skip("no Chromium on this machine to open JupyterLab with")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The course, opened for a learner who has a folder outside of it."""
    home = tmp_path_factory.mktemp("home")
    server = Server(home, work=home / "work")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_window(browser):
    """Open a window on a server; each is closed at the end."""
    opened = []

    def window(server):
        opened.append(browser.new_page(viewport={"width": 1400, "height": 1000}))
        opened[-1].add_init_script(path=Path(__file__).with_name("notebook.js"))
        return Window(opened[-1], server)

    yield window
    for page in opened:
        page.close()


@pytest.fixture
def window(lab, new_window):
    yield new_window(lab)
    lab.shut()
