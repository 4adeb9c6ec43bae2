"""Offline slides of the lessons, each deck one HTML file and one PDF.

``python -m teachkit slides [NN …]`` writes build/slides; ``--strict`` fails where a slide overflows.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from teachkit.course import chromium, contents, decks, notebooks, rendering, vendored
from teachkit.course.decks import Deck, DeckError
from teachkit.course.setup import ROOT
from teachkit.show import pages, predictions

OUT = ROOT / "build" / "slides"
HERE = Path(__file__).with_name("deck")
STYLES = ("reveal.js/dist/reset.css", "reveal.js/dist/reveal.css")
PLUGINS = ("notes", "search", "zoom")
SCRIPTS = ("reveal.js/dist/reveal.js", *(f"reveal.js/plugin/{p}/{p}.js" for p in PLUGINS))
MATHJAX = "mathjax/es5/tex-svg.js"


def page(deck: Deck, question: str = "") -> str:
    """A deck as one HTML file that asks for no other; the question is what it says of itself."""
    template = _template("deck.html.j2")
    return template.render(
        deck=deck,
        question=question,
        clock=_clock(deck),
        styles=[*map(vendored.read, STYLES), _own("slides.css")],
        alive=predictions.page_script(),
        before=_own("before.js"),
        mathjax=vendored.script(MATHJAX),
        scripts=[*map(vendored.script, SCRIPTS), _own("deck.js")],
    )


def _own(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined).get_template(name)  # noqa: S701  (what it is given is HTML)


def _clock(deck: Deck) -> list[str]:
    """For each slide, when it begins and how long it takes."""
    start, said = 0.0, []
    for slide in deck.slides:
        said.append(f"Minute {start:g}. This slide takes about {slide.minutes:g}.")
        start += slide.minutes
    return said


def in_words(deck: Deck, problem: dict[str, Any]) -> str:
    """A problem of a slide, so that an author finds the cell."""
    number = problem["slide"]
    slide = deck.slides[number - 1]
    words = next((p.words for p in slide.parts if p.cell == problem["cell"] and p.words), "")
    where = f"{deck.stem}, slide {number} ({slide.heading or 'no heading'})"
    if problem["kind"] == "empty":
        return f"{where}: nothing on it below the heading, cell {slide.cell}"
    if problem["kind"] == "formula":
        return f"{where}: a formula of cell {slide.cell} cannot be set: {problem['words']}"
    far = [(problem["down"], "down"), (problem["across"], "to the right")]
    how = " and ".join(f"{pixels:.0f} px {way}" for pixels, way in far if pixels > 1)
    return f"{where}: too full by {how}, cell {problem['cell']} “{words[:40].strip()}…”"


def check(made: Sequence[Deck], folder: Path, *, sheet: bool = False) -> list[str]:
    """Look at each deck in Chromium and print it as PDF; a line for each slide that is not right."""
    said: list[str] = []
    try:
        with chromium.chromium() as browser:
            for deck in made:
                path = folder / f"{deck.stem}.html"
                said += [in_words(deck, found) for found in chromium.problems(browser, path)]
                chromium.print_pdf(browser, path, path.with_suffix(".pdf"))
                if sheet:
                    chromium.contact_sheet(browser, path, path.with_suffix(".png"))
    except chromium.NoChromiumError as error:
        print(f"No PDF was made, and no slide was measured: {error}.", file=sys.stderr)
    return said


def write(paths: Sequence[Path], out: Path = OUT, *, sheet: bool = False) -> list[str]:
    """Write the decks of these lessons, beside those that are there; a line for each bad slide."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        stems = [path.stem for path in notebooks.select([], paths[0].parent)]
        read = rendering.all_rendered(paths)
        made = [decks.deck(path.stem, notebook, stems) for path, notebook in read]
        for deck, path in zip(made, paths, strict=True):
            (part / f"{deck.stem}.html").write_text(
                page(deck, pages.lesson(path).question), "utf-8"
            )
        said = check(made, part, sheet=sheet)
        contents.keep(out, part, set(stems) - {deck.stem for deck in made})
        rows = contents.rows(part)
        (part / "index.html").write_text(_template("index.html.j2").render(rows=rows), "utf-8")
        contents.take_place(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return said


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit slides``."""
    parser = argparse.ArgumentParser("python -m teachkit slides", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NN", help="e.g. 02 05; all without a name")
    parser.add_argument("--strict", action="store_true", help="fail where a slide is too full")
    parser.add_argument("--sheet", action="store_true", help="make a picture of all slides, too")
    given = parser.parse_args(list(arguments))
    try:
        said = write(notebooks.select(given.names), sheet=given.sheet)
    except (notebooks.NotebookError, DeckError, vendored.VendorError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([*said, f"The slides are in {OUT / 'index.html'}"]))
    return int(bool(said) and given.strict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
