"""What the tests of the floor plan read out of the source: imports, circles, sizes, new tensors."""

import ast
import importlib
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parents[1]
COMING: set[str] = set()  # modules that stand before their notebook does
BOOKS = {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
LESSONS = [stem[3:] for stem in sorted(BOOKS | COMING)]
FOUNDATION = {"core", "engine", "lab"}
OURS = ("teachkit", "benchmarks", "tests")
ROOMS = {*FOUNDATION, *LESSONS, "show", "experiments", "course", "__main__", *OURS[1:]}


def files(root: Path) -> list[Path]:
    """Every Python file of the package and of the benchmarks, every folder opened."""
    return sorted(path for top in OURS[:2] for path in (root / top).rglob("*.py"))


def tables(name: str) -> dict[str, Any]:
    """What the tests of the lessons, ``test_<lesson>.py``, have in their tables of this name, together."""
    found: dict[str, Any] = {}
    for lesson in LESSONS:
        path = ROOT / "tests" / f"test_{lesson}.py"
        if path.is_file() and f"\n{name} = {{" in path.read_text("utf-8"):
            found |= getattr(importlib.import_module(path.stem), name)
    return found


def module(path: Path, root: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    """Which room a dotted name belongs to: core, a lesson, benchmarks; else the top of the name."""
    top, _, rest = name.partition(".")
    inner = rest.partition(".")[0]
    return inner if top == "teachkit" and inner in ROOMS else top


def allowed(here: str) -> set[str]:
    """The rooms that may be imported from a room."""
    lessons, everything = set(LESSONS), {*FOUNDATION, *LESSONS, "show", "experiments", "course"}
    if here in LESSONS:
        return {*FOUNDATION, *LESSONS[: LESSONS.index(here) + 1]}
    return {
        "core": {"core"},
        "engine": {"core", "engine"},
        "lab": {"core", "lab"},
        "show": FOUNDATION | lessons | {"show"},
        "experiments": FOUNDATION | lessons | {"experiments"},
        "course": everything,
        "__main__": {"course"},
        "benchmarks": everything | {"benchmarks"},
        "notebooks": everything - {"course"},
    }.get(here, set())


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports anywhere, and the names taken from a module of ours.

    A name that ``import_module`` is given as a word counts; a relative or a star import is an error.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}: star"
            ours = str(node.module).partition(".")[0] in OURS
            yield from (f"{node.module}.{a.name}" if ours else str(node.module) for a in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; of a notebook, of its code cells without magics."""
    if path.suffix != ".ipynb":
        return ast.parse(path.read_text("utf-8"))
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return ast.parse(re.sub(r"^%.*$", "", "\n".join(cells), flags=re.M))


def forbidden(path: Path, root: Path) -> list[str]:
    """The imports of a file that the floor plan does not allow."""
    here = module(path, root)
    walls = ROOMS - allowed(room(here))
    wrong = [name for name in imported(parsed(path)) if room(name) in walls]
    return [f"{here} imports {name}" for name in dict.fromkeys(wrong)]


def _place(name: str, root: Path) -> str:
    """The module that an imported name is, or else the one that gives it.

    What is not there is taken for a module: the import fails anyway.
    """
    parts = name.split(".")
    for end in (len(parts), len(parts) - 1):
        path = root.joinpath(*parts[:end])
        if path.with_suffix(".py").is_file() or path.is_dir():
            return ".".join(parts[:end])
    return name


def graph(root: Path) -> dict[str, set[str]]:
    """Which module of ours imports which; a folder's name stands for its ``__init__``."""
    return {
        module(path, root): {_place(name, root) for name in imported(parsed(path))}
        for path in files(root)
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches each other: Tarjan's strongly connected components."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in edges[node] & edges.keys():
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            at = stack.index(node)
            groups.append(sorted(stack[at:]))
            del stack[at:]

    for node in edges:
        if node not in order:
            visit(node)
    return sorted(group for group in groups if len(group) > 1 or group[0] in edges[group[0]])


def bodies(path: Path) -> dict[str, int]:
    """Lines of code in the body of each function and method: no docstring, no comment, no blank."""
    source = path.read_text("utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    words: set[int] = set()  # lines of docstrings
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, False):
            words.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    counts = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first, last = node.body[0].lineno, node.body[-1].end_lineno or 0
            inside = [n for n in range(first, last + 1) if n not in words]
            code = [n for n in inside if lines[n - 1].strip()[:1] not in ("", "#")]
            counts[f"{path.stem}.{node.name}:{node.lineno}"] = len(code)
    return counts


def median(counts: Iterable[int]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(list(counts) or [0])


def ninth_tenth(counts: Iterable[int]) -> float:
    """The number that nine of ten do not exceed; 0 of nothing."""
    ordered = sorted(counts)
    return ordered[max(0, -(-9 * len(ordered) // 10) - 1)] if ordered else 0


CREATORS = {
    *("zeros", "ones", "empty", "full", "eye", "arange", "linspace", "logspace", "tensor"),
    *("rand", "randn", "randint", "randperm", "tril_indices", "triu_indices"),
}
DRAWS = {"multinomial", "bernoulli", "normal", "poisson"}  # on the device of what they are given


def homeless(tree: ast.AST) -> list[tuple[int, str]]:
    """The calls of torch that make a tensor and do not say on which device; line and function.

    One that is moved at once, ``torch.eye(n).to(w.device)``, has a device, and so has one that
    is made like another, ``torch.zeros_like(w)``. A function that draws with a generator must ask for
    the generator's device, unless it says "cpu", where generators are made.
    """
    moved = {id(link) for node in ast.walk(tree) if _moves(node) for link in _chain(node)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lost = {c for c in calls if _makes(c) and "device" not in _words(c) and id(c) not in moved}
    for scope in (
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Module))
    ):
        whole = ast.unparse(scope)
        inside = [node for node in ast.walk(scope) if isinstance(node, ast.Call)]
        drawn = [(c, _words(c).get("generator")) for c in inside if _makes(c) or _draws(c)]
        asked = {c for c, dice in drawn if dice and f"{dice}.device" not in whole}
        lost |= {c for c in asked if _words(c).get("device") != "'cpu'"}
    return sorted((call.lineno, ast.unparse(call.func)) for call in lost)


def _words(call: ast.Call) -> dict[str, str]:
    """The arguments that are given by name."""
    return {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}


def _makes(call: ast.Call) -> bool:
    target, _, name = ast.unparse(call.func).rpartition(".")
    return target == "torch" and name in CREATORS


def _draws(call: ast.Call) -> bool:
    target, _, name = ast.unparse(call.func).rpartition(".")
    return target == "torch" and name in DRAWS


def _chain(node: ast.AST) -> Iterator[ast.AST]:
    """What a chain of methods and indices is applied to: a(), a().b() and a().b()[c] of a().b()[c].d()."""
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
        yield node


def _moves(node: ast.AST) -> bool:
    """Whether it is ``something.to(...)`` with a device or another tensor, not a dtype alone."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    given = [ast.unparse(a) for a in node.args] + [ast.unparse(k.value) for k in node.keywords]
    plain = [
        word for word in given if "dtype" not in word and not re.match(r"torch\.\w+\d+$", word)
    ]
    return node.func.attr == "to" and bool(plain)
