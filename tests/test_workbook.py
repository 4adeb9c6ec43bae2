"""The learner's copies of the notebooks: renewed, laid beside, brought back, and never lost."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from teachkit.core import files, places
from teachkit.course import jupyter, manifest, workbook
from teachkit.course.setup import ROOT
from teachkit.course.workbook import Workbook, WorkError


def book(text):
    """A notebook, as bytes."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="a")])
    return nbformat.writes(made).encode()


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of three lessons, and the learner's folder in it."""
    monkeypatch.delenv("TEACHKIT_WORK")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    for name in ("00_start", "02_taylor", "05_obs"):
        publish(tmp_path, name, book(f"{name} one"))
    (tmp_path / "environment.yml").touch()
    return tmp_path


def publish(course, name, content):
    files.replace(course / "notebooks" / f"{name}.ipynb", content)


def update(course):
    it = Workbook(course / "work", course / "notebooks")
    it.update()
    return it.said


def reset(course, *numbers):
    it = Workbook(course / "work", course / "notebooks")
    it.reset(numbers)
    return it.said


def there(course):
    """What a learner finds in the folder: the notebooks by name."""
    paths = sorted((course / "work").glob("*.ipynb"))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


MINE = b'{"mine": 1}'
ONE, TWO, THREE = (book(f"02_taylor {word}") for word in ("one", "two", "three"))
TAYLOR, NEW = "02_taylor.ipynb", "02_taylor-new.ipynb"


def write(course, content=MINE, name=TAYLOR):
    (course / "work" / name).write_bytes(content)


def dated(course):
    return [name for name in there(course) if name.startswith("02_taylor-20")]


# Copies ----------------------------------------------------------------------------------------


def test_each_lesson_is_copied_once_and_nothing_else(course):
    (course / "notebooks" / "notes.txt").write_text("not a lesson")
    (course / "notebooks" / ".ipynb_checkpoints").mkdir()
    assert update(course) == []
    assert list(there(course)) == ["00_start.ipynb", "02_taylor.ipynb", "05_obs.ipynb"]
    assert there(course)[TAYLOR] == ONE
    hidden = {path.name for path in (course / "work").iterdir()} - set(there(course))
    assert hidden == {".course.json", ".course.lock"}
    write(course)
    assert update(course) == []
    assert there(course)[TAYLOR] == MINE


def test_an_untouched_copy_is_renewed(course):
    update(course)
    publish(course, "02_taylor", TWO)
    assert update(course) == []
    assert there(course)[TAYLOR] == TWO
    assert len(there(course)) == 3


def test_beside_the_learners_own_the_new_version_is_laid_once(course):
    update(course)
    write(course)
    publish(course, "02_taylor", TWO)
    (said,) = update(course)
    assert said.startswith(TAYLOR)
    assert NEW in said
    assert (there(course)[TAYLOR], there(course)[NEW]) == (MINE, TWO)
    assert sorted(there(course))[1:3] == [NEW, TAYLOR]  # neighbours in every listing
    assert update(course) == []
    (course / "work" / NEW).unlink()  # they do not want it
    assert update(course) == []
    assert NEW not in there(course)


def test_a_newer_version_takes_the_place_of_an_untouched_new_one_only(course):
    update(course)
    write(course)
    publish(course, "02_taylor", TWO)
    update(course)
    publish(course, "02_taylor", THREE)
    update(course)
    assert there(course)[NEW] == THREE
    write(course, b"mine, too", NEW)
    publish(course, "02_taylor", ONE + b"\n")
    update(course)
    assert there(course)[NEW] == b"mine, too"
    assert there(course)["02_taylor-new-2.ipynb"] == ONE + b"\n"
    assert there(course)[TAYLOR] == MINE


def test_a_new_version_that_is_taken_over_is_renewed_again(course):
    update(course)
    write(course)
    publish(course, "02_taylor", TWO)
    update(course)
    (course / "work" / NEW).rename(course / "work" / TAYLOR)
    assert update(course) == []
    publish(course, "02_taylor", THREE)
    assert update(course) == []
    assert there(course)[TAYLOR] == THREE


def test_a_version_that_is_taken_back_is_no_news(course):
    update(course)
    write(course)
    for content in (TWO, ONE, TWO):
        publish(course, "02_taylor", content)
        update(course)
    assert list(there(course)) == ["00_start.ipynb", NEW, TAYLOR, "05_obs.ipynb"]


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[1]", '{"02_taylor.ipynb": 3}', '{"02_taylor.ipynb": {"copied": 1}}', "[" * 10**5,
     '{"02_taylor.ipynb": {"copied": "", "offered": "", "beside": "../notebooks/05_obs.ipynb"}}'],
)  # fmt: skip
def test_without_a_manifest_everything_is_the_learners(damage, course):
    update(course)
    file = course / "work" / manifest.NAME
    file.write_text(damage)
    assert update(course) == []  # what is equal to the course's own is known to be untouched
    file.write_text(damage)
    publish(course, "02_taylor", TWO)
    assert len(update(course)) == 1
    assert (there(course)[TAYLOR], there(course)[NEW]) == (ONE, TWO)
    assert json.loads(file.read_text())["05_obs.ipynb"]["copied"]


def test_what_is_no_file_stays_and_is_said(course):
    update(course)
    work = course / "work"
    (work / TAYLOR).unlink()
    (work / TAYLOR).mkdir()
    (work / "05_obs.ipynb").rename(work / "elsewhere")
    (work / "05_obs.ipynb").symlink_to("elsewhere")
    publish(course, "05_obs", TWO)
    folder, link = update(course)
    assert "02_taylor.ipynb is no notebook" in folder
    assert "05_obs-new.ipynb" in link
    assert (work / "elsewhere").read_bytes() == book("05_obs one")
    reset(course, "02", "05")
    assert (work / "elsewhere").read_bytes() == book("05_obs one")
    assert (there(course)[TAYLOR], there(course)["05_obs.ipynb"]) == (ONE, TWO)
    assert update(course) == []


def test_the_course_itself_is_only_read(course):
    update(course)
    write(course)
    reset(course, "02")
    before = {p.name: p.stat() for p in (course / "notebooks").iterdir()}
    publish(course, "02_taylor", TWO)
    update(course)
    assert set(before) == {p.name for p in (course / "notebooks").iterdir()}
    assert (course / "notebooks" / "05_obs.ipynb").stat().st_nlink == 1


# Back to the course's own ----------------------------------------------------------------------


def test_reset_keeps_the_old_one_under_a_name_of_its_own(course):
    update(course)
    for content in (MINE, b"later"):
        write(course, content)
        (said,) = reset(course, "02")
        assert TAYLOR in said
        assert there(course)[TAYLOR] == ONE
    first, second = sorted(dated(course), key=len)
    assert second == first.replace(".ipynb", "-2.ipynb")
    assert (there(course)[first], there(course)[second]) == (MINE, b"later")
    assert first in reset(course, "2")[0] or "already" in reset(course, "2")[0]
    assert len(dated(course)) == 2


def test_reset_takes_the_new_version_and_tidies_its_twin(course):
    update(course)
    write(course)
    write(course, b"mine", "05_obs.ipynb")
    publish(course, "02_taylor", TWO)
    update(course)
    assert len(reset(course, "02_taylor", "05")) == 2
    assert there(course)[TAYLOR] == TWO
    assert NEW not in there(course)
    assert there(course)["05_obs.ipynb"] == book("05_obs one")
    publish(course, "02_taylor", THREE)
    assert update(course) == []
    assert there(course)[TAYLOR] == THREE


def test_reset_keeps_what_a_save_that_was_cut_off_has_put_aside(course):
    update(course)
    write(course, MINE[:4])
    write(course, MINE, f".~{TAYLOR}")
    assert len(reset(course, "02")) == 2
    assert there(course)[TAYLOR] == ONE
    assert {there(course)[name] for name in dated(course)} == {MINE, MINE[:4]}
    assert not (course / "work" / f".~{TAYLOR}").exists()


def test_reset_brings_a_deleted_lesson_back(course):
    assert reset(course, "02") == ["02_taylor.ipynb is there again."]
    assert there(course) == {TAYLOR: ONE}


@pytest.mark.parametrize("number", ["99", "", "0", "taylor", "../02_taylor", "²"])
def test_unknown_lessons_are_refused_by_name_before_anything_is_done(number, course, capsys):
    update(course)
    write(course)
    if number == "0":
        publish(course, "00_start", TWO)
        reset(course, number)
        assert there(course)["00_start.ipynb"] == TWO
        return
    with pytest.raises(WorkError, match="no lesson .* to reset; there are 00_start, 02_taylor, 05"):
        reset(course, "02", number)
    assert there(course)[TAYLOR] == MINE
    assert not workbook.prepare(course, ["02", number])
    assert "no lesson" in capsys.readouterr().err


# Crashes ---------------------------------------------------------------------------------------

STEPS = [(os, "link"), (os, "replace"), (os, "fsync"), (os, "unlink"), (os, "symlink")]
STEPS += [(Path, "write_bytes"), (Path, "unlink"), (Path, "mkdir"), (Path, "rename")]


class Killed(BaseException):
    """The program ends here."""


def counted(monkeypatch, fail, error):
    """Let the call of this number to anything that changes the disk raise, before or after it.

    Who is killed does not tidy up: all later calls raise too.
    """
    count, killed = [0], isinstance(error, Killed)

    def wrapped(real, after):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] < fail or (count[0] > fail and not killed):
                return real(*args, **kwargs)
            if after and count[0] == fail:
                real(*args, **kwargs)
            raise error

        return call

    for owner, name in STEPS:
        after = killed and error.args[0] == "after"
        monkeypatch.setattr(owner, name, wrapped(getattr(owner, name), after))
    return count


def mess(course):
    """A folder in which everything is to be done: copy, renew, lay beside, renew beside."""
    publish(course, "07_magnitude", book("07_magnitude one"))
    update(course)
    write(course)
    publish(course, "02_taylor", TWO)
    update(course)
    (course / "work" / "00_start.ipynb").unlink()
    write(course, b"obs is mine", "05_obs.ipynb")
    for name in ("02_taylor", "05_obs", "07_magnitude"):
        publish(course, name, book(f"{name} three"))


ERRORS = {
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "refused": PermissionError(errno.EACCES, "Permission denied"),
    "killed": Killed("before"),
    "killed after": Killed("after"),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("what", ["update", "reset"])
def test_an_end_at_any_step_loses_nothing_and_the_next_run_completes(
    what, kind, course, monkeypatch
):
    monkeypatch.setattr(os, "fsync", lambda stream: None)  # slow, and no power fails here
    monkeypatch.setattr(workbook, "trust", lambda content: None)
    mess(course)
    saved = course / "saved"
    shutil.copytree(course / "work", saved)
    for fail in range(1, 200):
        shutil.rmtree(course / "work")
        shutil.copytree(saved, course / "work")
        with monkeypatch.context() as m:
            count = counted(m, fail, ERRORS[kind])
            with contextlib.suppress(Killed, WorkError):
                update(course) if what == "update" else reset(course, "02", "05")
        if count[0] < fail:
            break
        assert {MINE, b"obs is mine"} <= set(there(course).values()), fail
        if what == "update":
            assert there(course)[TAYLOR] == MINE
            assert there(course)["05_obs.ipynb"] == b"obs is mine"
        else:
            reset(course, "02", "05")
            assert there(course)[TAYLOR] == book("02_taylor three")
        update(course)
        assert {MINE, b"obs is mine"} <= set(there(course).values()), fail
        assert there(course)["07_magnitude.ipynb"] == book("07_magnitude three")
        assert there(course)["00_start.ipynb"] == book("00_start one")
        three = book("02_taylor three")
        assert three in (there(course)[TAYLOR], there(course).get(NEW)), fail
        assert not [p for p in (course / "work").iterdir() if p.name.endswith(".part")]
    assert fail > 10


@pytest.fixture
def linkless(monkeypatch):
    """A disk that knows no second names."""

    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("kind", ["full", "killed after"])
@pytest.mark.parametrize("what", ["update", "reset"])
@pytest.mark.usefixtures("linkless")
def test_no_end_on_such_a_disk_leaves_half_a_notebook(what, kind, course, monkeypatch):
    test_an_end_at_any_step_loses_nothing_and_the_next_run_completes(
        what, kind, course, monkeypatch
    )


@pytest.mark.usefixtures("linkless")
def test_a_disk_without_second_names_is_served_too(course):
    test_reset_keeps_the_old_one_under_a_name_of_its_own(course)
    publish(course, "02_taylor", TWO)
    update(course)
    assert there(course)[TAYLOR] == TWO


def test_a_save_in_the_very_moment_of_renewal_is_kept(course, monkeypatch):
    """JupyterLab writes into the file itself: what it writes while we replace it must stay."""
    update(course)
    publish(course, "02_taylor", TWO)
    real = os.replace

    def meanwhile(part, target):
        if Path(target).name == TAYLOR:
            write(course)
        real(part, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    (said,) = update(course)
    (name,) = dated(course)
    assert name in said
    assert there(course)[name] == MINE
    assert there(course)[TAYLOR] == TWO


def test_a_name_that_appears_in_the_very_moment_is_not_overwritten(course, monkeypatch):
    real = os.link

    def meanwhile(part, target):
        if Path(target).name == TAYLOR and not Path(target).exists():
            write(course)
        real(part, target)

    monkeypatch.setattr(os, "link", meanwhile)
    with pytest.raises(WorkError, match="File exists"):
        update(course)
    assert there(course)[TAYLOR] == MINE


def start(course, *words):
    code = (
        "import sys, pathlib\nfrom teachkit.course import workbook\n"
        "sys.exit(not workbook.prepare(pathlib.Path(sys.argv[1]), sys.argv[2:]))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, str(course), *words], env=env)


def test_programs_that_come_together_take_turns(course):
    mess(course)
    running = [start(course) for _ in range(4)]
    assert [it.wait() for it in running] == [0] * 4
    assert len(there(course)) == 6  # 00, 02, 02-new, 05, 05-new, 07
    assert there(course)[TAYLOR] == MINE


def test_a_real_kill_at_any_moment_loses_nothing(course):
    mess(course)
    for wait in (0.05, 0.1, 0.15, 0.2, 0.3):
        it = start(course, "02")
        time.sleep(wait)
        it.kill()
        it.wait()
        assert {MINE, b"obs is mine"} <= set(there(course).values())
    update(course)
    assert {MINE, b"obs is mine"} <= set(there(course).values())


# Where the folder cannot be used ---------------------------------------------------------------


def test_a_folder_that_is_none_is_said(course, capsys):
    (course / "work").write_text("mine")
    assert not workbook.prepare(course)
    said = capsys.readouterr().err
    assert "is no folder, but your notebooks belong there" in said
    assert "TEACHKIT_WORK" in said
    assert (course / "work").read_text() == "mine"
    (course / "work").unlink()
    (course / "work").symlink_to("nowhere")
    assert not workbook.prepare(course)
    assert "is no folder" in capsys.readouterr().err
    (course / "work").unlink()
    (course / "else where").mkdir()
    (course / "work").symlink_to("else where")
    assert workbook.prepare(course)
    assert len(there(course)) == 3


def test_a_full_disk_is_said_and_what_is_there_can_be_opened(course, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Path, "write_bytes", full)
        assert not workbook.prepare(course)
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "Nothing of yours is lost" in said
    assert there(course) == {}
    assert workbook.prepare(course)
    write(course)
    publish(course, "02_taylor", TWO)
    with monkeypatch.context() as m:
        m.setattr(Path, "write_bytes", full)
        assert workbook.prepare(course)  # their own can be opened
        assert not workbook.prepare(course, ["02"])  # but this was not done
    assert there(course)[TAYLOR] == MINE


def test_another_program_that_does_not_end_is_said(course, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(workbook, "WAIT", 0.1)
    (course / "work").mkdir()
    with (
        FileLock(course / "work" / ".course.lock"),
        pytest.raises(WorkError, match="Another program"),
    ):
        update(course)


def test_nothing_is_kept_where_nothing_is_wanted(course, monkeypatch, capsys):
    monkeypatch.setenv("TEACHKIT_WORK", "")
    assert workbook.prepare(course)
    assert not workbook.prepare(course, ["02"])
    assert "TEACHKIT_WORK is empty" in capsys.readouterr().err
    assert not (course / "work").exists()


def test_main_prepares_the_course_of_the_package(course, monkeypatch, capsys):
    monkeypatch.setattr(places, "root", lambda: course)
    assert workbook.main([]) == 0
    write(course)
    assert workbook.main(["--reset", "02", "05", "--reset", "00"]) == 0
    assert "yours is kept as" in capsys.readouterr().out
    assert workbook.main(["--reset", "03"]) == 1
    monkeypatch.setattr(places, "root", lambda: None)
    capsys.readouterr()
    assert workbook.main([]) == 1
    assert "There is no course here" in capsys.readouterr().err


def test_what_a_kernel_is_writing_stays_and_what_we_have_left_goes(course):
    (course / "work").mkdir()
    left = [f".{name}.{'0' * 32}.part" for name in (NEW, manifest.NAME, "table.ckpt", "02_x.csv")]
    for name in left:
        write(course, b"half", name)
    update(course)
    assert [(course / "work" / name).exists() for name in left] == [False, False, True, True]


def test_a_folder_that_may_not_be_read_is_said(course, monkeypatch, capsys):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(Path, "is_file", refused)
    assert not workbook.prepare(course)
    assert "Permission denied" in capsys.readouterr().err


# Trust, layout, command ------------------------------------------------------------------------


def test_copies_are_trusted_and_the_learners_own_are_not(course):
    update(course)
    read = [nbformat.reads(content.decode(), as_version=4) for content in there(course).values()]
    notary = NotebookNotary()
    assert [notary.check_signature(each) for each in read] == [True] * 3
    assert not notary.check_signature(nbformat.reads(book("mine").decode(), as_version=4))
    write(course, book("mine"))
    publish(course, "02_taylor", TWO)
    update(course)
    assert not notary.check_signature(nbformat.reads(book("mine").decode(), as_version=4))
    assert notary.check_signature(nbformat.reads(TWO.decode(), as_version=4))


def test_without_a_database_of_signatures_it_goes_on(course, monkeypatch, tmp_path):
    (tmp_path / "in the way").touch()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "in the way" / "jupyter"))
    update(course)
    assert len(there(course)) == 3


def test_the_layout_is_written_once(course):
    workbook.prepare(course)
    file = jupyter.workspaces(course / "work") / jupyter.WORKSPACE
    assert "toc" in json.loads(file.read_text())["data"]["layout-restorer:data"]["left"]["current"]
    file.write_text("mine")
    workbook.prepare(course)
    assert file.read_text() == "mine"


def test_the_learners_folder_is_opened_wherever_it_is(course, monkeypatch):
    def opened(folder):
        monkeypatch.setenv("TEACHKIT_WORK", folder)
        return [
            w.partition("=")[2]
            for w in jupyter.command(course, [])
            if w.startswith("--L") or "root_dir" in w
        ]

    assert opened("work") == ["/lab/tree/work/00_start.ipynb", str(course)]
    assert opened("my work/ä") == ["/lab/tree/my%20work/%C3%A4/00_start.ipynb", str(course)]
    assert opened("/elsewhere") == ["/lab/tree/00_start.ipynb", "/elsewhere"]
    assert opened(".hidden") == ["/lab/tree/00_start.ipynb", str(course / ".hidden")]
    assert opened("") == ["/lab/tree/notebooks/00_start.ipynb", str(course)]
    assert jupyter.variables(course) == {}


def test_settings_go_on_where_they_cannot_be_written(tmp_path):
    (tmp_path / "share").write_text("in the way")
    jupyter.settle(tmp_path)
    jupyter.lay_out(tmp_path / "share")
    assert (tmp_path / "share").read_text() == "in the way"
