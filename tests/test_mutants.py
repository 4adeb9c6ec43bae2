"""The command that breaks the code on purpose: in a copy, by the right tests, and it goes on."""

import os
import subprocess
import sys

import pytest

from benchmarks import mutants
from benchmarks.mutation import Mutant
from teachkit.course import cli, processes
from teachkit.course.setup import ROOT, Environment, SetupError

CODE = "LIMIT = 1\n\n\ndef f(x):\n    return x + LIMIT\n\n\ndef g(x):\n    return 2 * x\n"
TESTS = (
    "import subprocess, sys\n"
    "from teachkit.lab.a import f, g\n"
    "def test_f(): assert f(1) == 2\n"
    "def test_g(): assert g(0) == 0\n"
    "def test_that_fails(): assert f(1) == 3\n"
)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one module, with one test that is good, one that is weak, and one that fails."""
    root = tmp_path / "root"
    for name, text in {
        "teachkit/__init__.py": "",
        "teachkit/lab/__init__.py": "",
        "teachkit/lab/a.py": CODE,
        "tests/test_a.py": TESTS,
        "tests/equivalent_mutants.toml": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setattr(mutants, "FOLDER", root / "build")
    monkeypatch.setattr(mutants, "EQUIVALENT", root / "tests" / "equivalent_mutants.toml")
    return root


def mutant(line, after):
    before = CODE.splitlines()[line - 1]
    name = {5: "f", 9: "g"}.get(line, "")
    code = CODE.replace(before, after)
    return Mutant("teachkit/lab/a.py", line, f"teachkit/lab/a.py:{name}", before, after, code)


MUTANTS = {
    "caught": mutant(5, "    return x - LIMIT"),
    "survived": mutant(9, "    return 3 * x"),
    "constant": mutant(1, "LIMIT = 2"),
    "endless": mutant(9, "    while True: pass"),
    "crash": mutant(5, "    import os; os.abort()"),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the command needs os.fork, as it says")
def test_mutants_are_tried_in_forks():
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/forks.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_verdicts_are_kept_and_survivors_tried_again_with_other_tests(course, monkeypatch):
    asked = []

    def verdict(copy, mutant, tests, limit):
        asked.append(mutant.line)
        return {"said": "caught" if mutant.line == 5 else "survived", "tests": 1, "of": 2}

    monkeypatch.setattr(mutants, "verdict", verdict)
    both, tests = [MUTANTS["caught"], MUTANTS["survived"]], {"t": (0.0, [])}
    rows = mutants.attempts(course, both, tests, 9)
    assert mutants.attempts(course, both, tests, 9) == rows
    assert asked == [5, 9]
    mutants.attempts(course, both, tests | {"new": (0.0, [])}, 9)
    assert asked == [5, 9, 9]
    entry = (
        "[[mutant]]\nfile = 'teachkit/lab/a.py'\nbefore = 'return 2 * x'\nafter = 'return  3 * x'\n"
    )
    mutants.EQUIVALENT.write_text(f"{entry}reason = 'x is 0'\n", "utf-8")
    rows = mutants.attempts(course, both, {}, 9)
    assert [row["said"] for row in rows] == ["caught", "equivalent"]
    assert asked == [5, 9, 9]


def test_the_table_counts_and_shows_what_survived():
    rows = [
        {"said": said, "tests": 3, "of": 4, **MUTANTS[name]._asdict()}
        for said, name in (("caught", "caught"), ("survived", "survived"), ("equivalent", "crash"))
    ]
    lines = mutants.table(rows).splitlines()
    assert lines[1].split() == ["teachkit/lab/a.py", "3", "1", "1", "1"]
    assert lines[2].split() == ["all", "3", "1", "1", "1"]
    assert lines[4:] == [
        "teachkit/lab/a.py:9 survives 3 of 4 tests",
        "-     return 2 * x",
        "+     return 3 * x",
    ]


def test_names_stand_for_lessons_rooms_and_modules():
    assert mutants.sources(["obd"]) == ["teachkit/obd.py"]
    assert mutants.sources(["core.losses", "obd"]) == ["teachkit/core/losses.py", "teachkit/obd.py"]
    lab = mutants.sources(["lab"])
    assert "teachkit/lab/rounds.py" in lab
    assert all(path.startswith("teachkit/lab/") for path in lab)
    rooms = {path.split("/")[1] for path in mutants.sources([])}
    assert rooms >= {"core", "engine", "lab", "obd.py", "paradox.py"}
    assert not rooms & {"show", "course", "experiments", "__init__.py"}
    for name in ("ob", "show", "core.loss", "../tests", ""):
        with pytest.raises(ValueError, match="is no lesson and no module"):
            mutants.sources([name])


def test_each_equivalent_mutant_has_a_reason_and_its_line_stands():
    for (file, before, after), reason in mutants.equivalent().items():
        assert before in " ".join((ROOT / file).read_text("utf-8").split()), f"{file}: {before}"
        assert before != after
        assert len(reason.split()) > 3, f"{file}: {before}"


def test_the_command_fetches_its_tool_and_hands_on_its_words(monkeypatch, capsys):
    calls, asked = [], []
    monkeypatch.setattr(Environment, "ensure", lambda self: None)
    monkeypatch.setattr(Environment, "ensure_extra", lambda self, extra: asked.append(extra))
    monkeypatch.setattr(processes, "call", lambda *words: calls.append(words) or 0)
    assert cli.main(["mutants", "obd", "--sample", "3"]) == 0
    assert asked == ["mutants"]
    assert calls[0][0][1:] == ["-m", "benchmarks.mutants", "obd", "--sample", "3"]

    def fails(self, extra):
        raise SetupError(f"no network for {extra}")

    monkeypatch.setattr(Environment, "ensure_extra", fails)
    assert cli.main(["mutants"]) == 1
    assert "no network for mutants" in capsys.readouterr().err


def test_the_command_refuses_an_unknown_name():
    words = [sys.executable, "-m", "benchmarks.mutants", "nothing"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'nothing' is no lesson" in done.stderr
