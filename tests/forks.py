"""Run by test_mutants.py in an interpreter of its own: a fork of one with threads may wait for ever."""

import time

import pytest
from test_mutants import CODE, MUTANTS, TESTS, course

from benchmarks import mutants, mutation

__all__ = ["course"]  # a fixture


def test_mutants_are_tried_in_a_copy_by_the_tests_that_run_the_function(
    course, tmp_path, monkeypatch
):
    copy = mutants.copied(tmp_path / "work")
    tests = mutants.chart(copy, False)
    assert {name: runs for name, (_, runs) in tests.items()} == {
        "tests/test_a.py::test_f": ["teachkit/lab/a.py:f"],
        "tests/test_a.py::test_g": ["teachkit/lab/a.py:g"],
    }
    for name in ("caught", "survived", "constant", "crash"):
        made = mutants.verdict(copy, MUTANTS[name], tests, 60)
        assert made["said"] == ("survived" if name == "survived" else "caught")
        assert made["tests"] == made["of"] == (2 if name == "constant" else 1)
        assert (copy / "teachkit/lab/a.py").read_text("utf-8") == CODE
    assert mutants.verdict(copy, MUTANTS["caught"], tests, 0.0)["tests"] == 0  # and none is run
    assert (course / "teachkit/lab/a.py").read_text("utf-8") == CODE
    monkeypatch.setattr(mutation, "recorded", lambda *_: pytest.fail("recorded before"))
    assert mutants.chart(copy, False).keys() == tests.keys()
    (copy / "tests/test_a.py").write_text(f"{TESTS}# more", "utf-8")
    with pytest.raises(pytest.fail.Exception, match="recorded before"):
        mutants.chart(copy, False)


def test_a_mutant_that_runs_for_ever_is_stopped_and_counts_as_caught(course, tmp_path):
    copy = mutants.copied(tmp_path / "work")
    (copy / "teachkit/lab/a.py").write_text(MUTANTS["endless"].code, "utf-8")
    begin = time.monotonic()
    assert mutation.tried(copy, ["tests/test_a.py::test_g"], 3) == "caught"
    assert time.monotonic() - begin < 30
