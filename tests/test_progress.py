"""A learner's progress: kept line by line, read back through any damage."""

import errno
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit.core import files, places
from teachkit.course import progress as command
from teachkit.lab import progress


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(progress, "_warned", set())
    monkeypatch.setattr(progress, "_shown", set())
    return tmp_path / "work"


def event(n, **facts):
    return {"time": "2026-01-01T00:00:00+00:00", "kind": "exercise", "name": f"02.{n}"} | facts


def lines(events):
    return b"".join(f"\n{json.dumps(each)}\n".encode() for each in events)


def test_what_is_recorded_comes_back_in_order(folder):
    progress.record("prediction", "02.3", answer="it rises", right=False, truth="it falls")
    progress.record("exercise", "05.1", right=True, error=torch.tensor(0.5), seen={1})
    progress.record("lesson", "02")
    first, second, third = progress.events()
    assert (first["kind"], first["name"], first["answer"]) == ("prediction", "02.3", "it rises")
    assert (second["error"], second["seen"]) == (0.5, "{1}")
    assert third["time"].startswith("20")
    assert progress.log().damaged == 0


def test_text_of_any_kind_stays_on_one_line(folder):
    for answer in ("a\nb\r\n\u2028", "\ud800", '"}', 10**400, float("nan"), None):
        progress.record("prediction", "02.1", answer=answer)
    assert len(progress.events()) == 6
    assert progress.events()[0]["answer"] == "a\nb\r\n\u2028"


def test_an_unknown_kind_is_refused(folder):
    with pytest.raises(ValueError, match="kind must be one of .*'lesson'.*, got 'guess'"):
        progress.record("guess", "02.1")
    with pytest.raises(ValueError, match="kind must be 'quiz' or 'check', got 'lesson'"):
        progress.shown("lesson", "02")


# Damage ----------------------------------------------------------------------------------------

EVENTS = [event(n, answer="ä" * n) for n in range(4)]
CONTENT = lines(EVENTS)
NEW = event(9)


def survives(content, whole):
    """The whole lines are read, and so is a line that is added after the damage."""
    got = progress.read(content + lines([NEW])).events
    assert got[-1] == NEW
    assert [each for each in got if each in whole] == whole


@pytest.mark.parametrize("end", range(len(CONTENT) + 1))
def test_a_file_cut_at_any_byte_loses_the_cut_line_alone(end):
    cut = CONTENT[:end]
    whole = [each for n, each in enumerate(EVENTS) if len(lines(EVENTS[: n + 1])) - 1 <= end]
    survives(cut, whole)
    assert progress.read(cut).damaged == (len(cut.strip()) > len(lines(whole).strip()))


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 255)), max_size=4))
def test_flipped_bytes_damage_their_own_lines_alone(flips):
    content = bytearray(CONTENT)
    for at, by in flips:
        content[at] ^= by
    touched, start = set(), 0
    for n, each in enumerate(EVENTS):
        end = start + len(lines([each]))
        touched |= {n for at, _ in flips if start <= at < end}
        start = end
    survives(bytes(content), [each for n, each in enumerate(EVENTS) if n not in touched])


@given(st.binary(max_size=200), st.integers(0, 4))
def test_any_bytes_between_lines_are_passed_over(noise, at):
    content = lines(EVENTS[:at]) + noise + lines(EVENTS[at:])
    survives(content, EVENTS)


def test_damaged_lines_are_counted_and_stay(folder):
    folder.mkdir()
    file = folder / "progress.jsonl"
    before = (
        b'{"kind": "les\n\x00\x00\x00\n[1]\n{"kind": 3, "name": "", "time": ""}\n' + b"[" * 10**5
    )
    file.write_bytes(before)
    progress.record("lesson", "02")
    assert file.read_bytes().startswith(before)
    assert progress.log().damaged == 5
    assert [each["name"] for each in progress.events()] == ["02"]


def test_two_programs_write_at_once(folder):
    code = (
        "import sys\nfrom teachkit.lab import progress\n"
        "for i in range(300): progress.record('exercise', f'{sys.argv[1]}.{i}', text='x' * 500)"
    )
    words = [sys.executable, "-c", code]
    both = [
        subprocess.Popen([*words, name], env=os.environ | {"PYTHONPATH": str(places.root())})
        for name in ("01", "02")
    ]
    assert [each.wait() for each in both] == [0, 0]
    names = [each["name"] for each in progress.events()]
    assert progress.log().damaged == 0
    for lesson in ("01", "02"):
        assert [n for n in names if n[:2] == lesson] == [f"{lesson}.{i}" for i in range(300)]


# Where nothing can be kept ---------------------------------------------------------------------


def test_a_full_disk_is_said_once_and_half_a_line_harms_no_other(folder, monkeypatch, capsys):
    progress.record("lesson", "01")
    real = os.write
    with monkeypatch.context() as m:
        m.setattr(os, "write", lambda stream, text: real(stream, text[:20]))
        progress.record("lesson", "02")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "write", full)
        progress.record("lesson", "03")
        progress.record("lesson", "03")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # one for each reason
    assert all("Your progress is not kept" in each and "No space left" in each for each in said)
    progress.record("lesson", "04")
    assert [each["name"] for each in progress.events()] == ["01", "04"]
    assert progress.log().damaged == 1


@pytest.mark.parametrize("state", ["a file", "a folder", "read-only", "dangling", "pipe"])
def test_a_folder_that_cannot_be_written_never_raises(state, folder, monkeypatch, capsys):
    if state == "a file":
        folder.write_text("mine")
    elif state == "a folder":
        (folder / "progress.jsonl").mkdir(parents=True)
    elif state == "dangling":
        folder.symlink_to(folder.with_name("nowhere") / "deep")
        folder.with_name("nowhere").write_text("in the way")
    elif state == "pipe":
        folder.mkdir()
        os.mkfifo(folder / "progress.jsonl")
    else:

        def refused(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", refused)
    progress.record("lesson", "02")
    progress.record("lesson", "02")
    assert progress.events() == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_said(folder, monkeypatch, capsys):
    progress.record("lesson", "02")

    def refused(name, path):
        if path.name == progress.NAME:
            raise PermissionError(errno.EACCES, "Permission denied")
        return name(path)

    for step in ("read_bytes", "is_file"):  # the file, or the folder around it
        progress._warned.clear()
        with monkeypatch.context() as m:
            real = partial(refused, getattr(Path, step))
            m.setattr(Path, step, lambda path, real=real: real(path))
            assert progress.events() == []
            assert command.report().startswith("lesson ")
        assert "cannot be read" in capsys.readouterr().err


def test_a_home_that_nobody_has_is_a_name_like_others(monkeypatch):
    monkeypatch.setenv("TEACHKIT_WORK", "~nobody-has-this/x")
    assert places.work() == places.root() / "~nobody-has-this" / "x"


def test_a_fact_that_is_no_data_is_kept_in_words_or_said(folder, capsys):
    loop = []
    loop.append(loop)
    progress.record("exercise", "02.1", fact=loop)
    assert "Your progress is not kept" in capsys.readouterr().err
    progress.record("exercise", "02.1", fact=torch.zeros(3))
    assert progress.events()[0]["fact"] == "tensor([0., 0., 0.])"


def test_nothing_is_kept_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TEACHKIT_WORK", "")
    progress.record("lesson", "02")
    assert progress.path() is None
    assert progress.events() == []
    monkeypatch.delenv("TEACHKIT_WORK")
    assert places.work() == places.root() / "work"
    monkeypatch.setattr(places, "root", lambda: None)
    assert places.work() is None  # the package alone
    monkeypatch.setenv("TEACHKIT_WORK", "mine")
    monkeypatch.chdir(tmp_path)
    assert places.work() == tmp_path / "mine"
    assert places.work(tmp_path / "course") == tmp_path / "course" / "mine"


def test_the_course_is_known_by_its_files(tmp_path):
    assert places.root(tmp_path / "teachkit") is None
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "environment.yml").touch()
    assert places.root(tmp_path / "teachkit") == tmp_path


def test_append_makes_the_folder_and_leaves_lines_whole(tmp_path):
    files.append(tmp_path / "new" / "a", "one")
    files.append(tmp_path / "new" / "a", "two")
    assert (tmp_path / "new" / "a").read_bytes().split() == [b"one", b"two"]


# What it adds up to ----------------------------------------------------------------------------


def vote(name, right, **facts):
    return {"time": "", "kind": "prediction", "name": name, "right": right} | facts


def test_the_first_vote_is_the_prediction():
    got = progress.summary([vote("02.1", False, answer="up", truth="down"), vote("02.1", True)])
    assert got["02"].predictions == {"02.1": ("up", "down", False, None)}
    assert got["02"].right == 0
    got = progress.summary([vote("02.1", True, reason_right=False), vote("02.2", None)])
    assert (got["02"].right, len(got["02"].predictions)) == (1, 2)
    assert got["02"].predictions["02.1"].reason_right is False


def test_a_reason_belongs_to_its_own_answer():
    first = vote("02.1", True, answer="up")
    other = vote("02.1", False, answer="down", reason="x", reason_right=True)  # of another kernel
    assert progress.summary([first, other])["02"].predictions["02.1"].reason_right is None
    assert (
        progress.summary([first, other | {"answer": "up"}])["02"].predictions["02.1"].reason_right
    )


def test_once_solved_stays_solved():
    got = progress.summary([event(1, right=True), event(1, right=False), event(2, right="yes")])
    assert (got["02"].solved, got["02"].tried) == (["02.1"], ["02.1", "02.2"])
    assert not got["02"].finished


def test_lessons_are_apart_and_unknown_kinds_do_not_count():
    got = progress.summary(
        [
            {"time": "", "kind": "lesson", "name": "05"},
            {"time": "", "kind": "star", "name": "07"},
            {"kind": "lesson"},
            vote("02.1", True),
        ]
    )
    assert list(got) == ["02", "05"]
    assert got["05"].finished
    assert progress.summary([]) == {}


def test_a_kernel_knows_what_it_has_shown(folder):
    assert progress.seen("quiz", [])
    progress.shown("quiz", "02.1")
    assert progress.seen("quiz", ["02.1"])
    assert not progress.seen("quiz", ["02.1", "02.2"])
    assert not progress.seen("check", ["02.1"])
