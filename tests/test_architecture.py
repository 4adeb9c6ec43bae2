"""The floor plan holds: imports point one way, files are short, functions are short."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import house
import nbformat
import pytest
from house import FOUNDATION, LESSONS
from packaging.version import Version

from teachkit.course.setup import ROOT, requirements
from teachkit.show import pages

PACKAGE = ROOT / "teachkit"
MODULES = house.files(ROOT)
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STANDS = [name for name in LESSONS if any(PACKAGE.glob(f"{name}*"))]
# Names that differ between import and package index.
DISTRIBUTION = {
    "IPython": "ipython",
    "PIL": "pillow",
    "backpack": "backpack-for-pytorch",
    "curvlinops": "curvlinops-for-pytorch",
    "torch_pruning": "torch-pruning",
}
# Not imported by teachkit or a notebook, but run by a command of ours.
COMMANDS = {"jupyterlab", "ipykernel"}
# Installed by, and imported as part of, a package that is listed.
PART_OF = {"cycler": "matplotlib"}


def lines(path):
    return len(path.read_text("utf-8").splitlines())


def written(root, name, text):
    """A file in a house of its own."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


# Imports ---------------------------------------------------------------------------------------


def test_imports_point_one_way():
    assert [line for path in [*MODULES, *BOOKS] for line in house.forbidden(path, ROOT)] == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("teachkit/__init__.py", "import teachkit.core"),
        ("teachkit/__main__.py", "from teachkit import lab"),
        ("teachkit/core/weights.py", "from teachkit.engine import surgeon"),
        ("teachkit/core/losses.py", "from teachkit.lab.data import digits"),
        ("teachkit/engine/surgeon.py", "from teachkit import lab"),
        ("teachkit/engine/deep/down.py", "from teachkit import obs"),
        ("teachkit/lab/data.py", "from teachkit.masks import apply"),
        ("teachkit/lab/data.py", "from teachkit.engine.surgeon import remove"),
        ("teachkit/hessian.py", "from teachkit import taylor"),
        ("teachkit/obd.py", "def late():\n    from teachkit.paradox import changes"),
        ("teachkit/masks.py", "import teachkit.show"),
        ("teachkit/masks.py", "import importlib\nimportlib.import_module('teachkit.show')"),
        ("teachkit/masks.py", "from teachkit import experiments"),
        ("teachkit/masks.py", "from tests import oracles"),
        ("teachkit/show/plots.py", "from teachkit.course import setup"),
        ("teachkit/show/lessons/obs.py", "from teachkit.experiments import han"),
        ("teachkit/experiments/han.py", "if TYPE_CHECKING:\n    from teachkit.show import plots"),
        ("teachkit/course/cli.py", "from benchmarks import bench"),
        ("teachkit/unknown.py", "from teachkit import core"),
        ("benchmarks/bench.py", "import tests.oracles"),
    ],
)
def test_the_import_test_can_fail(name, line, tmp_path):
    assert len(house.forbidden(written(tmp_path, name, line), tmp_path)) == 1


@pytest.mark.parametrize(
    "line", ["from teachkit.course import setup", "from benchmarks import bench"]
)
def test_a_notebook_imports_no_benchmark_and_no_command(line, tmp_path):
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"%matplotlib inline\n{line}")]
    )
    path = written(tmp_path, "notebooks/01_x.ipynb", nbformat.writes(book))
    assert len(house.forbidden(path, tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("teachkit/engine/surgeon.py", "from teachkit.core import checks"),
        (
            "teachkit/obd.py",
            "from teachkit import lab, masks\nfrom teachkit.engine import curvature",
        ),
        (
            "teachkit/show/lessons/obs.py",
            "from teachkit import obs\nfrom teachkit.show import plots",
        ),
        ("teachkit/course/setup.py", "from teachkit import __version__"),
        ("benchmarks/fisher.py", "from teachkit import fisher, show\nfrom benchmarks import bench"),
    ],
)
def test_what_the_floor_plan_allows(name, line, tmp_path):
    written(tmp_path, "teachkit/__init__.py", "__version__ = '1'")
    assert house.forbidden(written(tmp_path, name, line), tmp_path) == []


@pytest.mark.parametrize("line", ["from . import checks", "from teachkit.core import *"])
def test_relative_and_star_imports_are_refused(line, tmp_path):
    with pytest.raises(AssertionError):
        house.forbidden(written(tmp_path, "teachkit/core/a.py", line), tmp_path)


def test_there_are_no_circles_between_files():
    assert house.circles(house.graph(ROOT)) == []


def test_the_test_of_circles_can_fail(tmp_path):
    written(tmp_path, "teachkit/core/a.py", "from teachkit.core.b import f")
    written(tmp_path, "teachkit/core/b.py", "def f():\n    from teachkit.core import c")
    written(tmp_path, "teachkit/core/c.py", "import teachkit.core.a")
    written(tmp_path, "teachkit/core/d.py", "from teachkit.core import a")  # leads in, not back
    written(tmp_path, "teachkit/lab/__init__.py", "from teachkit.lab.e import g")
    written(tmp_path, "teachkit/lab/e.py", "from teachkit.lab import setup")  # what __init__ gives
    core = [f"teachkit.core.{name}" for name in "abc"]
    assert house.circles(house.graph(tmp_path)) == [core, ["teachkit.lab", "teachkit.lab.e"]]


def test_each_module_can_be_the_first_to_be_imported():
    names = [house.module(path, ROOT) for path in MODULES]
    first = [n for n in names if not n.endswith("__main__") and n.count(".") <= 2]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for known in [k for k in sys.modules if k.split('.')[0] in ('teachkit', 'benchmarks')]:\n"
        "        del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *first], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_lesson_that_is_to_come_has_a_module_and_no_notebook_yet():
    assert not house.COMING & house.BOOKS
    assert all((PACKAGE / f"{stem[3:]}.py").is_file() for stem in house.COMING)


# Sizes -----------------------------------------------------------------------------------------


def test_a_lesson_is_one_file():
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert top <= set(LESSONS)
    rooms = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert rooms <= FOUNDATION | {"show", "experiments", "course"}


def too_long(root, most=250):
    """The lessons, and the files below them, that a class cannot read in one go."""
    below = [path for room in sorted(FOUNDATION) for path in (root / room).rglob("*.py")]
    return [(path.name, lines(path)) for path in [*root.glob("*.py"), *below] if lines(path) > most]


def too_short(root, least=40):
    """The files that should join a neighbour."""
    free = ("__init__.py", "__main__.py")
    return [
        (path.name, lines(path))
        for path in sorted(root.rglob("*.py"))
        if path.name not in free and lines(path) < least
    ]


def test_files_are_neither_long_nor_short():
    assert too_long(PACKAGE) == []
    assert too_short(PACKAGE) == []
    assert too_short(ROOT / "benchmarks") == []


def test_the_tests_of_lengths_can_fail(tmp_path):
    written(tmp_path, "obs.py", "x = 1\n" * 251)
    written(tmp_path, "engine/deep/a.py", "x = 1\n" * 251)
    written(tmp_path, "show/long.py", "x = 1\n" * 251)  # a room without a limit
    written(tmp_path, "core/short.py", "x = 1\n" * 39)
    written(tmp_path, "core/__init__.py", "")
    assert too_long(tmp_path) == [("obs.py", 251), ("a.py", 251)]
    assert too_short(tmp_path) == [("short.py", 39)]


@pytest.mark.parametrize("lesson", STANDS)
def test_the_functions_of_a_lesson_are_short(lesson):
    found = [path for path in MODULES if house.room(house.module(path, ROOT)) == lesson]
    counts = {name: n for path in found for name, n in house.bodies(path).items()}
    assert {name: n for name, n in counts.items() if n > 20} == {}
    assert house.median(counts.values()) <= 6


@pytest.mark.parametrize("room", sorted(FOUNDATION))
def test_the_functions_below_the_lessons_are_short(room):
    paths = (PACKAGE / room).rglob("*.py")
    counts = {name: n for path in paths for name, n in house.bodies(path).items()}
    assert {name: n for name, n in counts.items() if n > 40} == {}
    assert house.median(counts.values()) <= 8
    assert house.ninth_tenth(counts.values()) <= 20


def test_lines_of_code_are_counted(tmp_path):
    text = '''
def outer(x):
    """Words.

    More words.
    """
    # why

    def inner():
        """Not code."""
        return x

    return (
        inner
    )


class Thing:
    """Words."""

    def stub(self):
        """Only words."""
'''
    counts = house.bodies(written(tmp_path, "f.py", text))
    assert {name.split(":")[0]: n for name, n in counts.items()} == {
        "f.outer": 5,
        "f.inner": 1,
        "f.stub": 0,
    }
    assert house.median([1, 2, 9]) == 2
    assert house.ninth_tenth(range(1, 11)) == 9
    assert house.ninth_tenth([3, 30]) == 30


# The device of a new tensor --------------------------------------------------------------------

# Files that make tensors on the CPU on purpose, and why.
AT_HOME = {
    "teachkit/lab/data.py": "a data set is read or made on the CPU; who trains moves it",
}


def test_a_new_tensor_has_the_device_of_those_at_hand():
    rooms = FOUNDATION | set(LESSONS)
    lost = {
        name: house.homeless(house.parsed(path))
        for path in MODULES
        if house.room(house.module(path, ROOT)) in rooms
        and (name := path.relative_to(ROOT).as_posix()) not in AT_HOME
    }
    assert {name: calls for name, calls in lost.items() if calls} == {}
    assert all((ROOT / name).is_file() for name in AT_HOME)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("torch.zeros(3)", 1),
        ("torch.arange(n, dtype=w.dtype)", 1),
        ("torch.eye(3).to(w.dtype)", 1),
        ("torch.eye(3).to(torch.float32)", 1),
        ("torch.multinomial(p, 1, generator=dice)", 1),
        ("torch.randn(3, generator=dice)", 1),
        ("def f(dice):\n    return torch.randn(3, generator=dice, device=w.device)", 1),
        ("torch.zeros(3, device=w.device)", 0),
        ("torch.eye(3).to(w)", 0),
        ("torch.arange(6).reshape(2, 3)[1:].to(w.device)", 0),
        ("torch.from_numpy(a)", 0),  # where numpy is, and it cannot be told
        ("torch.rand(3, generator=dice, device='cpu')", 0),
        ("torch.eye(3).to(device=w.device, dtype=w.dtype)", 0),
        ("w.new_zeros(3) + torch.zeros_like(w)", 0),
        ("torch.randn(3, generator=dice, device=dice.device).to(w.device)", 0),
        ("torch.multinomial(p.to(dice.device), 1, generator=dice).to(p.device)", 0),
        (
            "def f(dice):\n    z = p.to(dice.device)\n    return torch.bernoulli(z, generator=dice)",
            0,
        ),
        ("torch.normal(mean, std)", 0),
    ],
)
def test_the_test_of_devices_can_fail(line, count):
    assert len(house.homeless(ast.parse(line))) == count


# The environment and the pages -----------------------------------------------------------------


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
        for module in house.imported(house.parsed(path)):
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
    extra = project["optional-dependencies"]
    lines = project["dependencies"] + extra["site"] + extra["test"] + extra["experiments"]
    return dict(line.split(">=") for line in lines), {
        line.split(">=")[0] for line in project["dependencies"]
    }


def optional():
    """Packages that a function uses if they are there: a cluster, the peers in a benchmark."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra]
    return {re.split("[<>=]", line)[0] for line in lines}


def test_environment_and_pyproject_name_the_same_packages():
    _, lines = requirements((ROOT / "environment.yml").read_text("utf-8"))
    assert lines[0] == "torch==2.13.0"
    assert [line for line in lines if "==" not in line] == ["-c constraints.txt", "-e ."]
    low, _ = ranges()
    (older,) = pins().keys() - low.keys()  # environment.yml says why
    assert older == "soupsieve"
    for name, lowest in low.items():
        assert Version(pins()[name]) >= Version(lowest), name


def third_party(names):
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - set(house.OURS)
    return {DISTRIBUTION.get(top, PART_OF.get(top, top)) for top in tops}


def test_what_is_imported_is_declared_and_the_other_way_round():
    paths = [path for path in [*MODULES, *BOOKS] if ROOT / "benchmarks" not in path.parents]
    used = third_party(name for path in paths for name in house.imported(house.parsed(path)))
    _, runtime = ranges()
    needed = used - optional() | COMMANDS | {"requests"}  # pooch downloads with requests
    assert needed == runtime
    peers = [path for path in MODULES if path not in paths]
    asked = third_party(name for path in peers for name in house.imported(house.parsed(path)))
    assert asked <= runtime | optional()


def test_the_wheel_holds_the_package_and_its_data():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert built["targets"] == {
        "wheel": {"packages": ["teachkit"], "force-include": {"data": "teachkit/_data"}}
    }


def test_version_is_said_once():
    from teachkit import __version__

    assert re.search(
        rf"^version: {re.escape(__version__)}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M
    )
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_links_of_the_pages_lead_somewhere():
    own = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"]
    for page in [*own, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_folder_docs_holds_the_pages_that_the_lessons_lead_to_and_nothing_else():
    """They are no part of the wheel: without the checkout there is no lesson that leads to them."""
    there = sorted(path.name for path in (ROOT / "docs").glob("[!.]*"))  # JupyterLab's are hidden
    assert there == sorted(f"{name}.md" for name in pages.PAGES.values())


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
