"""Slides without a browser: from a notebook's metadata to parts, notes, pages and folders."""

from html.parser import HTMLParser

import nbformat
import pytest

from teachkit import lab
from teachkit.course import chromium, cli, contents, decks, parts, rendering, slides
from teachkit.course.decks import DeckError, deck
from teachkit.show import quizzes, tables

PIXEL = '<img src="data:image/png;base64,AA" alt="x">'


def text(source, kind="", **more):
    return _typed(nbformat.v4.new_markdown_cell(source), kind, more)


def code(source, kind="", *, page="", plain="", tags=(), **more):
    cell = _typed(nbformat.v4.new_code_cell(source), kind, more)
    data = {mime: x for mime, x in (("text/html", page), ("text/plain", plain)) if x}
    cell.outputs = [nbformat.v4.new_output("display_data", data=data)] if data else []
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def _typed(cell, kind, more):
    show = {**({"slide_type": kind} if kind else {}), **more}
    if show:
        cell.metadata["slideshow"] = show
    return cell


def covered(name, page):
    return (
        f'<details class="teachkit-reveal" data-predict="{name}">'
        f"<summary>Predict first: question {name}</summary>{page}</details>"
    )


def made(*cells):
    return deck("02_taylor", nbformat.v4.new_notebook(cells=cells), ["01_hessian"])


def kinds(slide):
    return [(part.kind, part.step) for part in slide.parts]


# From metadata to slides -----------------------------------------------------------------------


def test_slides_begin_go_on_step_and_leave_out():
    one, two = made(
        code("before = 1", page="<p>before the first slide</p>"),
        text("## One\n\nfirst", "slide"),
        text("second"),
        text("third", "fragment"),
        text("gone", "skip"),
        text("said aloud", "notes"),
        text("still there"),
        code("show.table(x)", "subslide", page="<table></table>"),
    ).slides
    assert (one.heading, [p.words for p in one.parts]) == (
        "One",
        ["first", "second", "third", "still there"],
    )
    assert [p.step for p in one.parts] == [False, False, True, False]
    assert one.notes == ["<p>said aloud</p>"]
    assert (two.heading, kinds(two)) == ("One", [("table", False)])


def test_an_untyped_heading_after_skipped_cells_is_no_part_of_the_lecture():
    (slide,) = made(
        text("## One\n\nfirst", "slide"),
        text("## Exercises", "skip"),
        text("## Where you are"),
        code("show.end('02')", page="<p>end</p>"),
    ).slides
    assert [p.words for p in slide.parts] == ["first"]
    first, again = made(
        text("## One", "slide"), text("x", "skip"), text("## End"), text("## Two", "slide")
    ).slides
    assert (first.heading, again.heading) == ("One", "Two")


def test_code_is_hidden_unless_it_is_tagged():
    (slide,) = made(
        text("## One", "slide"),
        code("hidden = 1"),
        code("shown = 2  # type: ignore[misc]", tags=["show-input"], plain="two"),
        *(code("x", page="<p>no</p>", tags=[tag]) for tag in sorted(decks.LEFT_OUT)),
    ).slides
    assert [(p.kind, p.words) for p in slide.parts] == [("code", "shown = 2"), ("code", "two")]


def test_the_title_shows_the_question_and_leaves_the_rest_to_the_lecturer():
    (slide,) = made(
        text("# Why\n\n**The question**: why?\n\n**You will** see.\n\n**You need** time.", "slide")
    ).slides
    assert (slide.heading, slide.level) == ("Why", 1)
    assert [p.words for p in slide.parts] == ["The question : why?"]
    assert [parts.plain(n) for n in slide.notes] == ["You will see.", "You need time."]


def test_the_author_overrules_heading_minutes_and_layout():
    one, two = made(
        text("## One\n\ntext", "slide", minutes=2.5, layout="columns"),
        text("## Two\n\ntext", "slide", heading="Two with $x$"),
    ).slides
    assert (one.minutes, one.layout) == (2.5, "columns")
    assert two.heading == "Two with $x$"
    assert two.parts[0].html.startswith("<h2>Two</h2>")


def test_a_question_is_followed_by_its_answer_and_by_what_it_covers():
    asked, shown = made(
        text("## One", "slide"),
        code("show.quiz('02.3')", page=quizzes.find("02.3").static),
        code("show.reveal('02.3', x)", page=covered("02.3", PIXEL)),
        code("show.reveal('02.3', y)", "slide", page=covered("02.3", "<table></table>")),
    ).slides
    assert kinds(asked) == [("question", False), ("answer", True), ("picture", True)]
    assert asked.parts[2].html == PIXEL
    assert kinds(shown) == [("table", False)]
    assert "Run this cell" not in asked.parts[0].html
    assert asked.parts[1].words.startswith("it rises It rises steeply.")
    said = parts.plain(" ".join(asked.notes))
    for wrong in ("it falls about as much as promised", "the single predictions are wrong"):
        assert f"“{wrong}”" in said.replace("Why? ", "")
    assert asked.minutes > shown.minutes


@pytest.mark.parametrize(
    "name",
    [
        name
        for path in sorted((lab.data.folder() / "quiz").glob("*.toml"))
        for name in quizzes.load(path)
    ],
)
def test_every_question_has_an_answer_and_wrong_answers(name):
    part = parts.Part("question", "", "a", asks=name)
    asked = quizzes.find(name)
    assert asked.truth in parts.plain(parts.answer(part).html)
    assert parts.expected(name).count("<li>") >= 1


def test_notes_of_code_are_what_it_printed():
    (slide,) = made(text("## One", "slide"), code("x", "notes", plain="a < b")).slides
    assert slide.notes == ["<pre>a &lt; b</pre>"]


def test_links_lead_to_decks_and_to_the_web_alone():
    links = "[a](01_hessian.ipynb#x) [b](https://x.org) [c](../docs/glossary.md#pruning)"
    page = parts.markdown(links, ["01_hessian"])
    assert page == '<p><a href="01_hessian.html">a</a> <a href="https://x.org">b</a> c</p>'


def test_what_an_output_is():
    table = tables.table({"a": [1]}, caption="One number.")._repr_mimebundle_()
    latex = nbformat.v4.new_output("display_data", data={"text/latex": "$a < b$"})
    picture = nbformat.v4.new_output(
        "display_data", data={"image/png": "AA\n", "text/plain": '"x"'}
    )
    printed = nbformat.v4.new_output("stream", text="<1>\n")
    silent = nbformat.v4.new_output("stream", text=" \n")
    cell = code("x", page=table["text/html"])
    cell.outputs += [latex, picture, printed, silent]
    found = list(parts.of(cell))
    assert [p.kind for p in found] == ["table", "html", "picture", "code"]
    assert [p.html for p in found[1:]] == [
        "<p>$a &lt; b$</p>",
        '<img src="data:image/png;base64,AA" alt="&quot;x&quot;">',
        "<pre>&lt;1&gt;</pre>",
    ]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([], "02_taylor has no slides"),
        ([text("words"), code("x", page="<p>y</p>")], "02_taylor has no slides"),
        ([text("x", "slide", layout="round")], "layout must be one of .* got 'round'"),
        ([text("x", "slide", minutes="two")], "minutes must be from 0 to 60, got 'two'"),
        ([text("x", "slide", minutes=-1)], "minutes must be from 0 to 60, got -1"),
        ([text("x", "slide", minutes=True)], "minutes must be from 0 to 60, got True"),
    ],
)
def test_what_makes_no_deck_is_refused_in_words(cells, says):
    with pytest.raises(DeckError, match=says):
        made(*cells)


# From slides to files --------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page, as a browser takes it apart."""

    def __init__(self):
        super().__init__()
        self.scripts, self.slides, self.names = [], 0, set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.slides += tag == "section"
        if tag == "script":
            self.scripts.append([value for name, value in attrs if name == "src"])


def test_no_text_ends_a_script_and_nothing_is_fetched():
    page = slides.page(
        made(
            text("# A </script> B\n\n`</script><script>alert(1)`", "slide"),
            text("</title>", "notes"),
        ),
        question='why "</head>"?',
    )
    elements = Elements()
    elements.feed(page)
    assert len(elements.scripts) > len(slides.SCRIPTS)
    assert not any(elements.scripts)  # none of them has an address
    assert elements.slides == 1
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert 'content="why &#34;&lt;/head&gt;&#34;?"' in page
    assert "link" not in elements.names


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder with two lessons, and no browser."""
    monkeypatch.setattr(rendering, "FOLDER", tmp_path / "rendered")
    for stem in ("01_one", "02_two"):
        cells = [text(f"# {stem}\n\n**The question**: why {stem}?", "slide", minutes=3)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{stem}.ipynb")

    def none():
        raise chromium.NoChromiumError("there is no Chromium on this machine")

    monkeypatch.setattr(chromium, "chromium", none)
    return tmp_path


def test_decks_stay_beside_each_other_and_without_a_browser_the_command_goes_on(course, capsys):
    out = course / "build" / "slides"
    one, two = sorted(course.glob("*.ipynb"))
    assert slides.write([one], out) == []
    assert "No PDF was made, and no slide was measured: there is no" in capsys.readouterr().err
    slides.write([two], out)
    assert [tuple(row) for row in contents.rows(out)] == [
        ("01_one", "01_one", "why 01_one?", 1, 3.0, False),
        ("02_two", "02_two", "why 02_two?", 1, 3.0, False),
    ]
    assert sorted(p.name for p in out.iterdir()) == ["01_one.html", "02_two.html", "index.html"]
    one.unlink()
    slides.write([two], out)  # a lesson that is gone takes its deck along
    assert [row.stem for row in contents.rows(out)] == ["02_two"]
    assert [p.name for p in out.parent.iterdir()] == ["slides"]


def test_a_lesson_without_slides_leaves_the_folder_as_it_was(course):
    out = course / "build" / "slides"
    slides.write(sorted(course.glob("*.ipynb")), out)
    before = (out / "index.html").stat().st_mtime_ns
    nbformat.write(nbformat.v4.new_notebook(), course / "02_two.ipynb")
    with pytest.raises(DeckError, match="02_two has no slides"):
        slides.write(sorted(course.glob("*.ipynb")), out)
    assert (out / "index.html").stat().st_mtime_ns == before
    assert [p.name for p in out.parent.iterdir()] == ["slides"]


def test_the_command_refuses_a_lesson_that_is_not_there(capsys):
    assert slides.main(["99"]) == 1
    assert "no notebook begins with '99'; there are 00_start" in capsys.readouterr().err


@pytest.mark.parametrize(("strict", "status"), [([], 0), (["--strict"], 1)])
def test_a_slide_that_is_too_full_fails_where_it_is_asked(strict, status, monkeypatch, capsys):
    monkeypatch.setattr(slides, "write", lambda paths, sheet: ["02_taylor, slide 3: too full"])
    assert slides.main(["02", *strict]) == status
    assert "slide 3: too full" in capsys.readouterr().out


def test_a_problem_is_said_so_that_an_author_finds_it():
    found = made(text("## One\n\nmany words", "slide"))
    cell = found.slides[0].cell
    about = {"slide": 1, "cell": cell, "down": 12.4, "across": 0, "kind": "overflow"}
    where = "02_taylor, slide 1 (One)"
    assert (
        slides.in_words(found, about)
        == f"{where}: too full by 12 px down, cell {cell} “many words…”"
    )
    both = slides.in_words(found, {**about, "across": 30})
    assert "12 px down and 30 px to the right" in both
    assert slides.in_words(found, {**about, "kind": "empty"}).startswith(f"{where}: nothing on it")
    formula = slides.in_words(found, {**about, "kind": "formula", "words": "\\frac"})
    assert formula.endswith("cannot be set: \\frac")


def test_the_command_line_knows_slides():
    assert "slides" in cli.COMMANDS
    assert cli.command("slides", ["02", "--strict"]) == [
        "-m",
        "teachkit.course.slides",
        "02",
        "--strict",
    ]
