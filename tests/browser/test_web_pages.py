"""The website in a browser, from the disk and from a host: built once, of two lessons and all docs."""

import functools
import http.server
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from window import FRAMES, SHOTS

from teachkit.course import notebooks
from teachkit.course.setup import ROOT

NAMES = ["02", "08"]
LESSON = "notebooks/02_taylor.html"
LOOKED_AT = ["index.html", "notebooks/08_schedule.html", "api/schedule.html"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site; a lesson is run for its explorers where it has changed since it was run last."""
    made = tmp_path_factory.mktemp("made") / "site"
    command = [sys.executable, "-m", "teachkit.course.site", *NAMES, "--output", str(made)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host(folder):
    """The address of a host that only hands out files."""
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def page(browser):
    """A page, and what is strange on it: errors, and requests that leave the site or find nothing."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(20_000)
    opened.strange = []

    def only_here(route):
        if route.request.url.startswith(("file:///", "http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            opened.strange.append(f"request to {route.request.url}")
            route.abort()

    def failed(request):
        if "ERR_ABORTED" not in request.failure:  # the page was left before it was there
            opened.strange.append(f"failed: {request.url}")

    opened.route("**/*", only_here)
    opened.on("pageerror", lambda error: opened.strange.append(f"page error: {error}"))
    opened.on("requestfailed", failed)
    opened.on(
        "response", lambda r: r.status >= 400 and opened.strange.append(f"{r.status}: {r.url}")
    )
    yield opened
    opened.close()


def pages(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html")
                  if path.relative_to(folder).parts[0] not in ("slides", "_static"))  # fmt: skip


# Links -----------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The names that a page gives to its places, and where its links, pictures and scripts lead."""

    def __init__(self, text):
        super().__init__()
        self.names, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[name] for name in ("id", "name") if given.get(name)}
        self.targets += [given[name] for name in ("href", "src") if given.get(name)]


def broken(folder, outside=("http", "https", "mailto", "data")):
    """Links that lead to no file, or to no place in it."""
    read = {name: Links((folder / name).read_text("utf-8")) for name in pages(folder)}
    found, count = [], 0
    for name, links in read.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme in outside:
                continue
            count += 1
            path = folder / name
            if parts.path:
                path = (folder / name).parent.joinpath(unquote(parts.path)).resolve()
            there = read.get(path.relative_to(folder).as_posix())
            if not path.exists() or (parts.fragment and there
                                     and unquote(parts.fragment) not in there.names):  # fmt: skip
                found.append(f"{name}: {target}")
    return found, count


def test_every_link_leads_somewhere(folder):
    found, count = broken(folder)
    assert found == []
    assert count > 500


def test_the_test_of_links_can_fail(tmp_path):
    (tmp_path / "a.html").write_text('<a href="#x"><a href="b.html"><a id="y" href="a.html#y">')
    assert broken(tmp_path) == (["a.html: #x", "a.html: b.html"], 3)


def test_pages_ask_for_nothing_outside(folder):
    """What a page loads by itself; a link to a paper is only followed by a reader."""
    loads = []
    for name in pages(folder):
        links = Links((folder / name).read_text("utf-8"))
        loads += [t for t in links.targets if t.endswith((".js", ".css")) and "//" in t]
    assert loads == []


def test_every_lesson_has_its_notebook_and_no_page_needs_a_kernel(folder):
    for path in notebooks.select(NAMES):
        text = (folder / "notebooks" / f"{path.stem}.html").read_text("utf-8")
        (download,) = {t for t in Links(text).targets if t.endswith(".ipynb")}
        assert (folder / "notebooks" / download).read_bytes() == path.read_bytes()
        shown = text.partition('<script type="module">')[0]
        for word in ("Run this cell", "not attempted yet", "Error displaying widget"):
            assert word not in shown, f"{path.stem}: {word}"


# In a browser ----------------------------------------------------------------------------------


def test_formulas_are_drawn(host, page):
    page.goto(host + LESSON)
    page.wait_for_function("window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise")
    asked = page.locator(".math.notranslate").count()
    assert page.locator("mjx-container svg").count() >= asked > 50
    assert page.locator("[data-mml-node='merror']").count() == 0


@pytest.mark.parametrize("place", ["disk", "host"])
def test_search_finds_saliency(place, folder, request, page):
    base = request.getfixturevalue("host") if place == "host" else f"{folder.as_uri()}/"
    page.goto(f"{base}search.html?q=saliency")
    page.locator("#search-results li a").first.wait_for()
    page.wait_for_function("document.querySelectorAll('#search-results li').length > 3")
    found = page.locator("#search-results li a").all_text_contents()
    assert "Glossary" in found, found
    assert page.strange == []


def test_a_question_answers_and_a_cover_opens(folder, page):
    page.goto((folder / LESSON).as_uri())
    question = page.locator("[data-asks='02.1']")
    cover = page.locator("details[data-predict='02.1']")
    assert not cover.evaluate("it => it.open")
    assert not cover.locator("img").is_visible()
    for option in ("x = 1", "x = −0.5"):
        question.get_by_label(option, exact=True).check()
    question.get_by_role("button").first.click()
    question.get_by_text("Rightly chosen.").first.wait_for()
    assert cover.locator("img").is_visible()
    assert page.strange == []


def test_explorers_answer_without_a_kernel(folder, page):
    page.goto((folder / "notebooks" / "08_schedule.html").as_uri())
    explorer = page.locator(".tk-explorer").first
    picture, slider = explorer.locator("img"), explorer.locator("input[type=range]").first
    before = picture.get_attribute("src"), picture.get_attribute("alt")
    slider.focus()
    page.keyboard.press(slider.evaluate("it => it.value === it.max ? 'Home' : 'End'"))
    page.wait_for_function(
        "([it, src]) => it.src !== src", arg=[picture.element_handle(), before[0]]
    )
    assert picture.get_attribute("alt") not in ("", before[1])
    assert page.strange == []


def test_a_solution_is_folded_until_it_is_asked_for(folder, page):
    page.goto((folder / LESSON).as_uri())
    solution = page.locator("details", has_text="Show the solution").first
    assert not solution.locator("pre").is_visible()
    solution.locator("summary").focus()
    page.keyboard.press("Enter")
    assert solution.locator("pre").is_visible()


WIDE = """() => [...document.querySelectorAll('.bd-article *')]
  .filter(it => it.getBoundingClientRect().right > innerWidth + 1 && it.checkVisibility())
  .filter(it => !it.closest('pre, mjx-container, .math, [role=group], .pst-scrollable-table-container'))
  .map(it => `${it.tagName}.${it.className} ${it.textContent.slice(0, 40)}`)"""


def test_pages_open_from_the_disk_and_nothing_is_cropped(folder, page):
    """No page scrolls sideways; what is wide scrolls within its own box."""
    wide = []
    for name in pages(folder):
        page.goto((folder / name).as_uri())
        page.evaluate("window.MathJax?.startup?.promise")
        page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
        for width in (400, 820, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(FRAMES)
            beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            wide += [f"{name} at {width}: {beyond} beyond"] * (beyond > 0)
            wide += [f"{name} at {width}: {it}" for it in page.evaluate(WIDE)[:3]]
    assert wide + page.strange == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(theme, folder, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=theme)
    found = []
    SHOTS.mkdir(parents=True, exist_ok=True)
    for name in LOOKED_AT:
        page.goto((folder / name).as_uri())
        page.evaluate("window.MathJax?.startup?.promise")
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        page.screenshot(path=SHOTS / f"site-{Path(name).stem}-{theme}.png")
        found += [
            f"{name}: {rule['id']} ({rule['impact']}) {node['html'][:160]}"
            for rule in axe.run(page).response["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
    assert found == []
