"""Where code can be broken, the broken code, and the tests that try it in a fork of this process."""

import ast
import contextlib
import difflib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

OPTIONS = ["-q", "-o", "addopts=--doctest-modules", "-p", "no:cacheprovider"]


class Mutant(NamedTuple):
    """A file with one thing changed, from ``line`` on, in the outermost ``function`` "file:name"."""

    file: str
    line: int
    function: str
    before: str
    after: str
    code: str


def spots(path: Path) -> list[tuple[Any, Any]]:
    """Where mutmut would change a file, (module, change): in decorated functions too, but no prose."""
    import libcst as cst
    import libcst.matchers as m
    from mutmut.mutation import file_mutation, pragma_handling

    source = cst.MetadataWrapper(cst.parse_module(path.read_text("utf-8")))
    nothing = pragma_handling.IgnoredCode(set(), set(), set())
    visitor = file_mutation.MutationVisitor(file_mutation.mutation_operators, nothing)
    with visitor.resolve(source):
        source.module.visit(visitor)
        for node in _below(source.module):
            if isinstance(node, cst.FunctionDef) and node.decorators:
                node.params.visit(visitor)
                node.body.visit(visitor)
    wordy = (
        m.Raise() | m.Assign([m.AssignTarget(m.Name("__all__"))]) | m.AugAssign(m.Name("__all__"))
    )
    prose = set[int]()
    for node in _below(source.module):
        if m.matches(node, wordy):
            prose |= {id(word) for word in _below(node)}
        elif isinstance(node, cst.SimpleString) and " " in node.value:
            prose.add(id(node))
    return [(source.module, c) for c in visitor.mutations if id(c.original_node) not in prose]


def _below(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _below(child)


def made(file: str, module: Any, change: Any) -> Mutant | None:
    """The mutant of a spot; None where it is no Python."""
    from mutmut.mutation.file_mutation import deep_replace

    source, code = module.code, deep_replace(module, change.original_node, change.mutated_node).code
    with contextlib.suppress(SyntaxError):
        compile(code, file, "exec")
        old, new = source.splitlines(), code.splitlines()
        parts = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        _, first, last, start, end = next(part for part in parts if part[0] != "equal")
        spans = functions(source).items()
        name = next((n for n, (top, bottom) in spans if top <= first + 1 <= bottom), "")
        changed = "\n".join(old[first:last]), "\n".join(new[start:end])
        return Mutant(file, first + 1, f"{file}:{name}", *changed, code)
    return None


def functions(source: str) -> dict[str, tuple[int, int]]:
    r"""First and last line of each outermost function and method.

    >>> functions("def f():\n    return 1\nclass A:\n    def g(self):\n        pass\n")
    {'f': (1, 2), 'A.g': (4, 5)}
    """
    tops = [("", node) for node in ast.parse(source).body]
    classes = [node for _, node in tops if isinstance(node, ast.ClassDef)]
    tops += [(f"{node.name}.", inner) for node in classes for inner in node.body]
    return {
        prefix + node.name: (node.lineno, node.end_lineno or 0)
        for prefix, node in tops
        if isinstance(node, ast.FunctionDef)
    }


class Recorder:
    """A plugin of pytest: the functions that each test runs, its seconds, the libraries imported."""

    def __init__(self, copy: Path) -> None:
        import coverage

        self.copy, self.seconds = copy, dict[str, float]()
        self.coverage = coverage.Coverage(data_file=None, config_file=False, source=["teachkit"])
        self.coverage.start()

    def pytest_runtest_setup(self, item: Any) -> None:
        """What runs from now on is this test's."""
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Setup, call and teardown count; a test that fails or is skipped proves nothing."""
        spent = self.seconds.get(report.nodeid, 0.0)
        self.seconds[report.nodeid] = spent + (report.duration if report.passed else float("inf"))

    def pytest_sessionfinish(self) -> None:
        """Leave the answer in a file of the copy."""
        self.coverage.stop()
        data, runs = self.coverage.get_data(), {test: set[str]() for test in self.seconds}
        for path in map(Path, data.measured_files()):
            lines = data.contexts_by_lineno(str(path))
            for name, (top, bottom) in functions(path.read_text("utf-8")).items():
                for test in {test for n in range(top, bottom + 1) for test in lines.get(n, ())}:
                    if test in runs:
                        runs[test].add(f"{path.relative_to(self.copy).as_posix()}:{name}")
        tests = {t: (s, sorted(runs[t])) for t, s in self.seconds.items() if s < float("inf")}
        places = {n: getattr(m, "__file__", None) for n, m in [*sys.modules.items()]}
        libraries = [n for n, place in places.items() if place and str(self.copy) not in place]
        record = json.dumps({"tests": tests, "libraries": libraries})
        (self.copy / "record.json").write_text(record, "utf-8")


def recorded(copy: Path, name: str) -> dict[str, Any]:
    """What a :class:`Recorder` says of a file of tests, or a folder."""
    path = copy / "record.json"
    path.unlink(missing_ok=True)
    status = _forked(copy, [name], 3600, record=True)
    if not path.exists():
        said = (copy / "said.txt").read_text("utf-8", errors="replace")
        raise RuntimeError(f"{name}: pytest ended with status {status} and no record:\n{said}")
    return dict(json.loads(path.read_text("utf-8")))


def load(libraries: Iterable[str]) -> None:
    """Import what the tests import, so that no fork has to."""
    for name in libraries:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # a part that only its owner can import
                importlib.import_module(name)


def tried(copy: Path, tests: list[str], seconds: float) -> str:
    """Whether tests fail in the copy as it stands: "caught" or "survived".

    A mutant may change the very names of tests that are made from a table; then files are run whole.
    """
    status = _forked(copy, ["-x", *tests], seconds)
    if status in (4, 5):
        status = _forked(copy, ["-x", *sorted({t.split("::")[0] for t in tests})], seconds + 60)
    return "survived" if status == 0 else "caught"


def _forked(copy: Path, words: list[str], seconds: float, *, record: bool = False) -> int:
    """The exit status of pytest in a fork of this process; it is killed after so many seconds."""
    child = os.fork()
    if not child:
        try:
            os.setsid()
            os._exit(_pytest(copy, words, record))
        finally:
            os._exit(70)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(child, signal.SIGKILL)  # and what the tests have started
            os.waitpid(child, 0)


def _pytest(copy: Path, words: list[str], record: bool) -> int:
    """Run pytest, quietly, in the copy with the code that stands there."""
    import pytest
    from hypothesis import Phase, settings

    os.chdir(copy)
    sink = os.open(copy / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("teachkit", "benchmarks")]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    tempfile.tempdir = os.environ["TMPDIR"] = os.environ["PYTHONPATH"] = str(copy)
    phases = (Phase.explicit, Phase.generate)  # what fails need not be made small
    settings.register_profile(
        "mutants", deadline=None, derandomize=True, max_examples=50, phases=phases
    )
    words = ["--hypothesis-profile=mutants", f"--basetemp={copy / 'tmp'}", *words]
    return int(pytest.main([*OPTIONS, *words], plugins=[Recorder(copy)] if record else []))
