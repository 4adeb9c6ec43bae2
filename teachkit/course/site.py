"""Make the course a website in build/site: ``python -m teachkit site``.

Every lesson with its results, the glossary, the formulas, the reading room and the slides, as files that
any host can serve and that open without one. Nothing on a page asks for anything outside of it.
"""

import argparse
import io
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from teachkit.core import files
from teachkit.course import contents, notebooks, rendering, site_pages, site_sphinx
from teachkit.course.setup import ROOT
from teachkit.course.site_pages import SiteError, Sources


def lessons(paths: Iterable[Path], *, stored: bool = False) -> dict[str, NotebookNode]:
    """The lessons by name, with explorers that move; ``stored``: with the outputs that the files hold."""
    if stored:
        return {path.stem: nbformat.read(path, as_version=4) for path in paths}
    return {path.stem: book for path, book in rendering.all_rendered(paths)}


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Lend a new folder that takes the place of ``target`` at the end; if the block raises, it goes.

    It lies in a folder of its own, which goes with all that is written around it.
    """
    around = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    part = around / "new"
    part.mkdir(parents=True)
    try:
        yield part
        contents.take_place(part, target)
    finally:
        shutil.rmtree(around, ignore_errors=True)


def lay_out(sources: Sources, folder: Path) -> None:
    """Make a folder hold these files and no others; what is the same keeps its date."""
    for path in sorted(folder.rglob("*"), reverse=True) if folder.exists() else []:
        if path.is_file() and path.relative_to(folder).as_posix() not in sources:
            path.unlink()
    for name, content in sources.items():
        path, data = folder / name, content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            files.replace(path, data)


def sphinx(source: Path, output: Path, doctrees: Path) -> None:
    """Build the pages; a warning is an error.

    Raises:
        SiteError: with all that Sphinx has warned of.

    """
    warned = io.StringIO()
    try:
        app = Sphinx(
            source, None, output, doctrees, "html", site_sphinx.SETTINGS,
            status=None, warning=warned, warningiserror=True, exception_on_warning=False,
        )  # fmt: skip
        app.build()
        shutil.rmtree(output / "_sources", ignore_errors=True)  # an empty folder
    except SphinxError as error:
        raise SiteError(f"the site was not made: {error}\n{warned.getvalue()}") from error
    if said := warned.getvalue().strip():
        raise SiteError(f"the site was not made:\n{said}")


def build(
    root: Path = ROOT,
    names: Iterable[str] = (),
    output: Path | None = None,
    *,
    stored: bool = False,
) -> Path:
    """Make the site of the course in ``root``; the folder where it lies.

    Args:
        root: the folder of the course.
        names: the lessons, such as 02; all without names.
        output: where it goes; ``build/site`` of the course without it. Beside it stay its source and
            what makes the next build quicker.
        stored: show the outputs that the notebooks hold, and run nothing.

    Raises:
        SiteError: it cannot be made; what was there before is still there.

    """
    target, slides = output or root / "build" / "site", root / "build" / "slides"
    if target.exists() and not (target / "searchindex.js").is_file():
        raise SiteError(f"{target} is no site, and would be replaced: name another folder")
    source, doctrees = (
        target.with_name(f"{target.name}.{part}") for part in ("source", "doctrees")
    )
    if source.exists() and not (source / "slides.md").is_file():
        raise SiteError(f"{source} is not ours, and would be emptied: name another output folder")
    found = (path for path in slides.glob("[0-9][0-9]*") if path.suffix in (".html", ".pdf"))
    decks = sorted(path.name for path in found)
    paths = notebooks.select(list(names), root / "notebooks")
    lay_out(site_pages.sources(root, lessons(paths, stored=stored), decks), source)
    with beside(target) as part:
        sphinx(source, part, doctrees)
        if decks:
            shutil.copytree(slides, part / "slides", ignore=shutil.ignore_patterns("*.png"))
    return target


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit site``."""
    parser = argparse.ArgumentParser("python -m teachkit site", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NN", help="e.g. 01 03; all without a name")
    parser.add_argument("--output", type=Path, help="another folder than build/site")
    parser.add_argument("--stored", action="store_true", help="run no lesson: show stored outputs")
    given, began = parser.parse_args(list(arguments)), time.monotonic()
    try:
        folder = build(names=given.names, output=given.output, stored=given.stored)
    except (SiteError, notebooks.NotebookError) as error:
        print(error, file=sys.stderr)
        return 1
    count = sum("_static" not in path.parts for path in folder.rglob("*.html"))
    print(f"{count} pages in {time.monotonic() - began:.0f} s: open {folder / 'index.html'}")
    if not site_pages.address((ROOT / "pyproject.toml").read_text("utf-8")):
        print("No links to Binder and Colab: pyproject.toml names no repository in project.urls.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
