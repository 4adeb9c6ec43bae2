"""The course as a website: what becomes of a lesson, of a term, of a link, and of a build that fails."""

import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from teachkit import obd
from teachkit.course import cli, contents, site, site_lessons, site_pages, site_sphinx
from teachkit.course.setup import ROOT
from teachkit.show import pages, predictions

ANCHORS = {"mask": "mask", "saddle point": "saddle-point", "saliency": "saliency"}


def made(*cells):
    """The page of a made-up lesson."""
    book = new_notebook(cells=[new_markdown_cell("# Title\n\nWords."), *cells])
    return site_lessons.page(book, "doors", "02", str)


def code(source, *tags, html="", markdown=""):
    data = {"text/html": html} if html else {"text/markdown": markdown}
    outputs = [new_output("display_data", data)] if html or markdown else []
    return new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


# A lesson --------------------------------------------------------------------------------------


def test_the_title_has_its_number_and_the_doors_follow():
    assert made().cells[0].source == "# 02 Title\n\ndoors\n\nWords."


def test_the_notebook_itself_stays_as_it_is():
    book = new_notebook(
        cells=[new_markdown_cell("# T"), code("show.quiz('1')"), code("x", "check")]
    )
    before = nbformat.writes(book)
    site_lessons.page(book, "", "02", str.upper)
    assert nbformat.writes(book) == before


def test_checks_and_the_learners_state_go_and_the_heading_with_them():
    end = [new_markdown_cell("## Where you are"), code('show.end("02")', html="<p>x</p>")]
    page = made(new_markdown_cell("### Exercise\n\nDo it."), code("show.check()", "check"), *end)
    assert [cell.source for cell in page.cells[1:]] == ["### Exercise\n\nDo it."]


def test_a_word_to_the_lecturer_goes_but_not_prose_that_a_deck_reads_aloud():
    notes = {"slideshow": {"slide_type": "notes"}}
    page = made(
        new_markdown_cell("**For lecturers**: wait here.", metadata=notes),
        new_markdown_cell("The power is what matters.", metadata=notes),
        new_markdown_cell("For lecturers there are notes."),
    )
    said = [cell.source for cell in page.cells[1:]]
    assert said == ["The power is what matters.", "For lecturers there are notes."]


@pytest.mark.parametrize(
    ("source", "tags", "tag"),
    [
        ('show.quiz("02.1")', [], "remove-input"),
        ('show.reveal("02.1", x)', [], "hide-input"),
        ("a = 1\nshow.explore(scenes.f, x=(0, 1))", [], "hide-input"),
        ("import torch\nlab.setup()", [], "hide-input"),
        ("def solution(): ...", ["solution"], "hide-input"),
        ("w = 1", [], None),
        ('show.table({"a": [1]})', [], None),
    ],
)
def test_what_is_folded(source, tags, tag):
    cell = made(code(source, *tags, html="<p>1</p>")).cells[1]
    assert [t for t in cell.metadata.tags if t.endswith("input")] == ([tag] if tag else [])
    assert bool(cell.outputs) is ("solution" not in tags)


def test_links_in_outputs_lead_from_page_to_page():
    run = "<p>Run this cell to move the sliders.</p>\n<p><i>Run this cell to answer.</i></p>"
    html = f'{run}<a href="03_masks.ipynb">03</a> <a href="https://x.org/a.ipynb">'
    page = made(code("a", html=html), code("b", markdown="[03](03_masks.ipynb) `[a](b.ipynb)`"))
    assert page.cells[1].outputs[0].data["text/html"] == (
        '<a href="03_masks.html">03</a> <a href="https://x.org/a.ipynb">'
    )
    assert page.cells[2].outputs[0].data["text/markdown"] == "[03](03_masks.html) `[a](b.ipynb)`"


# Terms, modules, links -------------------------------------------------------------------------


def linked(text):
    return site_lessons.link_terms(text, ANCHORS, "g.md", set())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A *mask* keeps.", "A [*mask*](g.md#mask) keeps."),
        ("*Masks* and\n*saddle\npoints*", "[*Masks*](g.md#mask) and\n*saddle\npoints*"),
        ("* *Saddle points*, (*saliencies*)", "* [*Saddle points*](g.md#saddle-point), "
         "([*saliencies*](g.md#saliency))"),
        ("*mask*, then *mask*", "[*mask*](g.md#mask), then *mask*"),
    ],
)  # fmt: skip
def test_a_term_is_linked_once(text, says):
    assert linked(text) == says


@pytest.mark.parametrize(
    "text",
    [
        "`a *mask* b`", "``a *mask* ` b``", "```python\nx = a *mask* b\n```", "~~~\n*mask*\n~~~",
        "$a *mask* b$", "$$\na\n*mask*\n$$", r"\(a *mask* b\)", "[the *mask*](x.md)", "![*mask*](x.png)",
        "## The *mask*", "**a *mask* b**", "**mask**", "***mask***", "a*mask*b", r"\*mask*", "* mask * a",
        '<a title="*mask*">', "*unknown*", "*a mask of ones*", "*mask", "",
    ],
)  # fmt: skip
def test_code_formulas_links_and_headings_stay(text):
    assert linked(text) == text


def test_what_was_met_before_is_not_linked_again():
    seen = {"mask"}
    assert site_lessons.link_terms("*mask*", ANCHORS, "g.md", seen) == "*mask*"
    site_lessons.link_terms("*saliency*", ANCHORS, "g.md", seen)
    assert seen == {"mask", "saliency"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("see `teachkit.obd`.", "see [`teachkit.obd`](../api/obd.md)."),
        ("[`teachkit.obd`](x.md)", "[`teachkit.obd`](x.md)"),
        ("``teachkit.obd``", "``teachkit.obd``"),
        ("`teachkit.lab` `teachkit.obd.diagonal`", "`teachkit.lab` `teachkit.obd.diagonal`"),
    ],
)
def test_modules_are_linked(text, says):
    assert site_lessons.link_modules(text, {"obd"}) == says


@pytest.mark.parametrize(
    ("text", "says", "with_address"),
    [
        ("[a](b.md#c)", "[a](b.md#c)", "[a](b.md#c)"),
        ("[a](#c) [b](https://x.org)", "[a](#c) [b](https://x.org)", "[a](#c) [b](https://x.org)"),
        ("[a](../LICENSE)", "a", "[a](https://h/r/blob/HEAD/LICENSE)"),
        ("`[a](z)` $f[i](x)$", "`[a](z)` $f[i](x)$", "`[a](z)` $f[i](x)$"),
        ("```\nm[i](x)\n```\n[a](z)", "```\nm[i](x)\n```\na", "```\nm[i](x)\n```\n[a](https://h/r/blob/HEAD/z)"),
        ("![a](z.png)", "![a](z.png)", "![a](z.png)"),
    ],
)  # fmt: skip
def test_links_to_what_is_no_page(text, says, with_address):
    assert site_lessons.relink(text, "b.md".__eq__) == says
    assert site_lessons.relink(text, "b.md".__eq__, "https://h/r") == with_address


# Docstrings ------------------------------------------------------------------------------------


def docstring(*lines):
    given = list(lines)
    site_sphinx.docstring(None, "function", "f", None, None, given)
    return given


def test_formulas_in_docstrings():
    assert docstring("|w| of w_i and ``|w_i|``") == [r"\|w\| of w\ :sub:`i`\  and ``|w_i|``"]
    assert docstring("∂²L/∂w_i² x^k") == [
        r"∂²L/∂w\ :sub:`i`\ ² x\ :sub:`k`\ ".replace("sub:`k", "sup:`k")
    ]
    plain = "keep_top, from_torch, a.b_c, f_x(1), :func:`w_i`"
    assert docstring(plain) == [plain]


def test_examples_in_docstrings_stay():
    example = [">>> a | b_i", "x_1 | y", "", ">>> c"]
    assert docstring(*example) == example


def test_signatures_are_those_of_the_source():
    assert site_sphinx.signature(None, "function", "x", obd.gradients, None, None, None) == (
        "(model: nn.Module, batch: Batch, loss: Loss=cross_entropy)",
        "Iterator[tuple[str, nn.Parameter, Tensor]]",
    )
    for thing in (len, obd.Assumptions, lambda x: x, 3):
        assert site_sphinx.signature(None, "class", "x", thing, None, None, None) is None


def test_a_page_gets_its_script_once_and_only_if_it_needs_one():
    context = {"body": '<p class="teachkit-question" data-question="{}">' * 2}
    site_sphinx.enliven(None, "", "", context, None)
    assert context["body"].count(predictions.page_script()) == 1
    for body in ("<p>teachkit-question</p>", ""):
        context = {"body": body}
        site_sphinx.enliven(None, "", "", context, None)
        assert context["body"] == body


# The pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "count"),
    [("", 0), ("https://github.com/me/course", 2), ("https://gitlab.com/me/course", 0)],
)
def test_binder_and_colab_need_an_address(address, count):
    line = site_pages.doors(
        "02_taylor", "teachkit.taylor", ["02_taylor.html", "03_masks.html"], address
    )
    assert line.count("me/course") == count
    assert "../downloads/02_taylor.ipynb" in line
    assert "../slides/02_taylor.html" in line
    assert "03_masks" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ""),
        ("[project]\nname = 'x'", ""),
        ("[project.urls]\nDocs = 'https://d'", ""),
        ("[project.urls]\nrepository = 'https://g/r/'", "https://g/r"),
    ],
)
def test_the_address_of_the_repository(text, says):
    assert site_pages.address(text) == says


def test_slides_are_listed_or_it_says_how_they_are_made():
    lessons = [pages.Lesson("02_taylor", "?", "45"), pages.Lesson("03_masks", "?", "45")]
    assert "python -m teachkit slides" in site_pages.slides_page(lessons, [])
    text = site_pages.slides_page(lessons, ["02_taylor.html", "02_taylor.pdf"])
    assert '<a href="slides/02_taylor.html">' in text
    assert '<a href="slides/02_taylor.pdf">' in text
    assert "03" not in text


@pytest.mark.parametrize("gone", ["## Start", "data/accuracy.png"])
def test_the_start_page_says_what_readme_lacks(gone):
    readme = (ROOT / "README.md").read_text("utf-8").replace(gone, "x")
    with pytest.raises(site_pages.SiteError, match=r"README\.md has no .*start page"):
        site_pages.start(readme, [], [], [])


def test_every_name_of_the_reading_room_is_shown():
    for path in pages.notebooks():
        it = pages.lesson(path)
        if it.module:
            text = site_pages.api_page(it)
            assert text.count(".. auto") > 5, it.module


# A build ---------------------------------------------------------------------------------------


def interrupted(target):
    with site.beside(target) as part:
        (part / "new").write_text("new")
        (part.parent / "more").write_text("what a tool leaves around")
        raise KeyboardInterrupt


def test_a_build_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "site"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    assert [path.name for path in tmp_path.rglob("*")] == ["site", "old"]
    with site.beside(target) as part:
        (part / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["site", "new"]


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(site_pages.SiteError, match="mine is no site"):
        site.build(names=["02"], output=tmp_path / "mine")


def test_the_source_keeps_what_is_the_same(tmp_path):
    site.lay_out({"a/b.md": "x", "c.png": b"\x00"}, tmp_path)
    before = (tmp_path / "a/b.md").stat().st_mtime_ns
    (tmp_path / "stray").write_text("x")
    site.lay_out({"a/b.md": "x", "d": "new"}, tmp_path)
    assert (tmp_path / "a/b.md").stat().st_mtime_ns == before
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "a/b.md", "d",
    ]  # fmt: skip


def test_an_unknown_lesson_is_refused(capsys):
    assert site.main(["77"]) == 1
    assert "no notebook begins with '77'" in capsys.readouterr().err


def test_a_warning_stops_the_build_and_is_told(tmp_path):
    """In a process of its own: Sphinx changes what docutils knows."""
    (tmp_path / "notebooks").mkdir()
    book = new_notebook(cells=[new_markdown_cell("# T\n\n```{no-such-directive}\n```")])
    nbformat.write(book, tmp_path / "notebooks" / "77_x.ipynb")
    for name in ("README.md", "pyproject.toml", "data/accuracy.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    call = "import sys; from pathlib import Path; from teachkit.course import site; "
    call += "site.build(Path(sys.argv[1]), stored=True)"
    done = subprocess.run(
        [sys.executable, "-c", call, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "SiteError: the site was not made" in done.stderr
    assert "no-such-directive" in done.stderr
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == [
        "site.doctrees", "site.source",
    ]  # fmt: skip


def test_the_workflow_runs_commands_that_there_are():
    flow = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text("utf-8"))
    steps = flow["jobs"]["site"]["steps"]
    runs = [step["run"].split() for step in steps if "run" in step]
    assert [run[:3] for run in runs] == [["python", "-m", "teachkit"]] * len(runs)
    assert [run[3] for run in runs] == ["slides", "site"]
    assert {run[3] for run in runs} <= {*cli.COMMANDS}
    (uploaded,) = [s["with"]["path"] for s in steps if "upload-pages" in s.get("uses", "")]
    assert uploaded == "build/site"
    assert set(flow["jobs"]["site"]) > {"environment", "runs-on"}


def test_what_lies_beside_the_output_and_is_not_ours_stays(tmp_path):
    mine = tmp_path / "public.source" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine", "utf-8")
    with pytest.raises(site_pages.SiteError, match="public.source is not ours"):
        site.build(names=["02"], output=tmp_path / "public", stored=True)
    assert mine.read_text("utf-8") == "mine"


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    old, part = tmp_path / "site", tmp_path / "part"
    old.mkdir()
    (old / "index.html").write_text("old", "utf-8")
    part.mkdir()
    rename, asked = type(part).rename, []

    def interrupted(self, target):
        asked.append(self.name)
        if self == part:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(part), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        contents.take_place(part, old)
    assert asked == ["site", "part", "part.old"]
    assert (old / "index.html").read_text("utf-8") == "old"
