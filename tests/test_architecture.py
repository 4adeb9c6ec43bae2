"""The floor plan holds: imports follow the syllabus, the environment has one source."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from teachkit.course.setup import ROOT, requirements
from teachkit.show import pages

PACKAGE = ROOT / "teachkit"
LESSONS = [  # in the order of the course
    *("hessian", "taylor", "masks", "obd", "obs", "fisher", "magnitude", "schedule", "structured"),
    *("sparse_training", "paradox", "neurons", "compression", "scale", "showdown"),
]
MODULES = sorted(PACKAGE.rglob("*.py"))
# Names that differ between import and package index.
DISTRIBUTION = {
    "PIL": "pillow",
    "backpack": "backpack-for-pytorch",
    "curvlinops": "curvlinops-for-pytorch",
    "torch_pruning": "torch-pruning",
}
# Not imported by teachkit or a notebook, but run by a command of ours.
COMMANDS = {"jupyterlab", "ipykernel"}
# Installed by, and imported as part of, a package that is listed.
PART_OF = {"cycler": "matplotlib"}


def imported(path):
    """The modules that a Python file imports, with the names taken from a package of ours."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            yield node.module
            if node.module in ("teachkit", "teachkit.core", "teachkit.lab", "teachkit.show"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    """Which floor a dotted name of ours is on: a lesson, lab, show, course."""
    return module.split(".")[1] if "." in module else ""


def forbidden(path):
    """The imports of a file that the floor plan does not allow."""
    here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    floor = room(here)
    for name in imported(path):
        there = room(name) if name.split(".")[0] == "teachkit" else ""
        if not there or there == floor:
            continue
        if floor in LESSONS:
            lower = LESSONS[: LESSONS.index(floor)]
            # The data-free criteria stand on masks alone, so lesson 00 may use them from the start.
            allowed = there == "lab" or there in lower
        elif floor == "lab":
            allowed = there == "masks"
        elif floor == "show":
            allowed = there in ("lab", *LESSONS)
        else:
            allowed = floor in ("course", "__main__")
        if not allowed:
            yield f"{here} imports {name}"


def test_imports_follow_the_syllabus():
    assert [line for path in MODULES for line in forbidden(path)] == []


@pytest.mark.parametrize(
    ("floor", "line"),
    [
        ("hessian.py", "from teachkit import taylor"),
        ("masks.py", "import teachkit.show"),
        ("lab/data.py", "from teachkit.hessian import classify"),
        ("show/plots.py", "from teachkit.course import setup"),
    ],
)
def test_the_import_test_can_fail(floor, line, tmp_path, monkeypatch):
    path = tmp_path / "teachkit" / floor
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line, "utf-8")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(list(forbidden(path))) >= 1


def test_lesson_modules_are_known():
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert top <= set(LESSONS)


def test_lab_is_free_of_circles():
    """Each module can be the first to be imported."""
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in MODULES
    ]
    first = [n for n in names if not n.endswith("__main__") and n.count(".") <= 2]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for known in [k for k in sys.modules if k.split('.')[0] == 'teachkit']:\n"
        "        del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *first], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def ours(name):
    """The files of ours that an import of this name runs."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        base = ROOT.joinpath(*parts[:i])
        yield from (f for f in (base / "__init__.py", base.with_suffix(".py")) if f.exists())


def test_start_needs_the_standard_library_only():
    """``python -m teachkit`` runs before anything is installed."""
    waiting, seen = [PACKAGE / "__init__.py", PACKAGE / "__main__.py"], set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for module in imported(path):
            top = module.split(".")[0]
            assert top == "teachkit" or top in sys.stdlib_module_names, f"{path}: {module}"
            waiting += [file for file in ours(module) if file not in seen]
    here = {path.relative_to(PACKAGE).as_posix() for path in seen}
    assert here >= {"course/cli.py", "course/setup.py", "core/__init__.py", "core/files.py"}


def test_an_old_python_can_read_the_version_check():
    for name in ("__init__.py", "__main__.py"):
        ast.parse((PACKAGE / name).read_text("utf-8"), feature_version=(3, 4))


def pins():
    _, lines = requirements((ROOT / "environment.yml").read_text("utf-8"))
    return dict(line.split("==") for line in lines if "==" in line)


def ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    return dict(line.split(">=") for line in lines), {
        line.split(">=")[0] for line in project["dependencies"]
    }


def optional():
    """Packages that a function uses if they are there: a cluster, the peers in a benchmark."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra]
    return {re.split("[<>=]", line)[0] for line in lines}


def version(text):
    return [int(part) for part in text.split(".")]


def test_environment_and_pyproject_name_the_same_packages():
    _, lines = requirements((ROOT / "environment.yml").read_text("utf-8"))
    assert lines[0] == "torch==2.13.0"
    assert [line for line in lines if "==" not in line] == ["-e ."]
    low, _ = ranges()
    assert set(pins()) == set(low)
    for name, pinned in pins().items():
        assert version(pinned) >= version(low[name]), name


def third_party(names):
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"teachkit"}
    return {DISTRIBUTION.get(top, PART_OF.get(top, top)) for top in tops}


def test_what_is_imported_is_declared_and_the_other_way_round(tmp_path):
    used = third_party(name for path in MODULES for name in imported(path))
    for book in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [c.source for c in nbformat.read(book, as_version=4).cells if c.cell_type == "code"]
        code = tmp_path / "cells.py"
        code.write_text(re.sub(r"^%.*$", "", "\n".join(cells), flags=re.M), "utf-8")  # no magics
        used |= third_party(imported(code))
    _, runtime = ranges()
    needed = used - optional() | COMMANDS | {"requests"}  # pooch downloads with requests
    assert needed == runtime


def test_version_is_said_once():
    from teachkit import __version__

    assert re.search(
        rf"^version: {re.escape(__version__)}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M
    )
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"):
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_table_lists_the_notebooks():
    text = (ROOT / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[.*?\]\(notebooks/(.+?)\.ipynb\)", text, re.MULTILINE)
    assert listed == sorted(path.stem for path in Path(ROOT / "notebooks").glob("*.ipynb"))


def test_the_map_in_lesson_00_lists_the_other_lessons():
    book = nbformat.read(ROOT / "notebooks" / "00_start.ipynb", as_version=4)
    text = "\n".join(
        output["data"]["text/markdown"]
        for cell in book.cells
        if cell.source.endswith("show.course_map()")
        for output in cell.outputs
    )
    listed = re.findall(r"^\| \[.*?\]\((.+?)\.ipynb\)", text, re.MULTILINE)
    there = sorted(path.stem for path in Path(ROOT / "notebooks").glob("*.ipynb"))
    assert ["00_start", *listed] == there
    assert "Where a gradient is zero, is it a minimum? | 40 |" in text


def test_readme_and_notebooks_say_the_same_of_a_lesson():
    """The README's table is written by hand: question and minutes are those of the notebooks."""
    rows = re.findall(
        r"^\| \[(.*?)\].*?\| (.*?) \| .*? \| (\d+) \|$",
        (ROOT / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    lessons = [pages.lesson(path) for path in pages.notebooks()]
    assert rows == [(it.title, it.question, it.minutes) for it in lessons]
