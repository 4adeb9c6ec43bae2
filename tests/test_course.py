"""The commands: set-up that repairs itself, notebooks in canonical form."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from teachkit.core.files import replace
from teachkit.course import cli, jupyter, notebooks, pictures, processes, setup
from teachkit.course.setup import Environment, SetupError, explain, requirements


@pytest.fixture
def checkout(tmp_path):
    """A course without packages: its set-up makes a .venv and installs nothing."""
    text = "name: x\ndependencies:\n  - pip:\n      - --extra-index-url https://x  # why\n      - six\n"
    (tmp_path / "environment.yml").write_text(text, "utf-8")
    (tmp_path / "pyproject.toml").write_text("", "utf-8")
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """Record what pip is asked for instead of running it."""
    asked = []
    monkeypatch.setattr(Environment, "pip", lambda self, *words: asked.append(words))
    monkeypatch.setattr(Environment, "_index_for", lambda self, torch: [])
    monkeypatch.setattr(Environment, "_verify", lambda self: None)
    return asked


def test_set_up_is_made_once_and_completed_when_half_made(checkout, offline):
    environment = Environment(checkout)
    assert not environment.ready()
    environment.ensure()
    assert environment.ready()
    assert offline == [("install",), ("install", "six")]
    overrides = environment.venv / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    assert json.loads(overrides.read_text("utf-8")) == jupyter.SETTINGS
    overrides.write_text("{}", "utf-8")  # of an older version
    environment.ensure()
    assert len(offline) == 2  # the second time nothing is installed
    assert json.loads(overrides.read_text("utf-8")) == jupyter.SETTINGS

    environment.stamp.unlink()  # interrupted before the end
    environment.ensure()
    assert len(offline) == 4

    environment.python.unlink()  # interrupted early: the environment has no Python
    assert not environment.ready()
    environment.ensure()
    assert environment.ready()


@pytest.mark.parametrize("file", ["environment.yml", "pyproject.toml"])
def test_a_changed_file_renews_the_set_up(file, checkout, offline):
    Environment(checkout).ensure()
    with (checkout / file).open("a", encoding="utf-8") as text:
        text.write("      - tqdm\n" if file == "environment.yml" else "# new\n")
    assert not Environment(checkout).ready()


def test_a_moved_folder_renews_the_set_up(checkout, offline, tmp_path_factory):
    Environment(checkout).ensure()
    moved = tmp_path_factory.mktemp("moved") / "course"
    shutil.copytree(checkout, moved, symlinks=True)
    assert not Environment(moved).ready()


def test_no_disk_no_venv_no_right_are_said_in_words(checkout, offline, monkeypatch):
    import venv

    with monkeypatch.context() as m:
        m.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10**8))
        with pytest.raises(
            SetupError, match="needs about 3 GB of disk.*0.1 GB free. Free some space"
        ):
            Environment(checkout).ensure()

    def fails(error):
        def create(*_, **__):
            raise error

        return create

    with monkeypatch.context() as m:
        m.setattr(venv, "create", fails(subprocess.CalledProcessError(1, ["ensurepip"])))
        with pytest.raises(SetupError, match="sudo apt install python3-venv"):
            Environment(checkout).ensure()
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "venv", None)
        with pytest.raises(SetupError, match="cannot make a virtual environment"):
            Environment(checkout).ensure()
    with monkeypatch.context() as m:
        m.setattr(venv, "create", fails(PermissionError(13, "Permission denied")))
        with pytest.raises(SetupError, match="cannot be written.*Permission denied.*permissions"):
            Environment(checkout).ensure()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk filled up"),
        ("Temporary failure in name resolution", "Check the network"),
        ("ERROR: Could not find a version that satisfies", "no package index"),
        ("error: subprocess-exited-with-error", "delete the folder .venv"),
    ],
)
def test_pip_failures_are_explained(said, advice):
    assert advice in explain(said)
    assert "run the same command again" in explain(said).lower()


def test_a_registry_out_of_reach_is_said_and_the_next_run_repairs(checkout, monkeypatch, capfd):
    """A real pip, pointed at a closed port."""
    monkeypatch.setattr(Environment, "_index_for", lambda self, torch: [])
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    (checkout / "environment.yml").write_text("  - pip:\n    - torch==2.13.0\n", "utf-8")
    environment = Environment(checkout)
    with pytest.raises(SetupError, match="Check the network"):
        environment.ensure()
    assert "ERROR" in capfd.readouterr().err
    assert not environment.ready()
    monkeypatch.setattr(Environment, "pip", lambda self, *words: None)
    monkeypatch.setattr(Environment, "_verify", lambda self: None)
    environment.ensure()
    assert environment.ready()


def test_the_extra_index_is_used_only_where_torch_would_bring_cuda(monkeypatch, checkout):
    answers = iter(["2.13.0+cpu", "2.13.0", None])

    def run(command, **_):
        answer = next(answers)
        if answer is None:
            return subprocess.CompletedProcess(command, 1)
        report = {"install": [{"metadata": {"version": answer}}]}
        Path(command[command.index("--report") + 1]).write_text(json.dumps(report), "utf-8")
        return subprocess.CompletedProcess(command, 0)

    environment = Environment(checkout)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "platform", "linux")
    assert environment._index_for(["torch"]) == []
    assert environment._index_for(["torch"]) == ["--extra-index-url", "https://x"]
    assert environment._index_for(["torch"]) == ["--extra-index-url", "https://x"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert environment._index_for(["torch"]) == []


def test_an_environment_without_pip_list_is_refused():
    with pytest.raises(SetupError, match="git checkout"):
        requirements("name: x\n")


def test_commands_are_handed_on(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    lab = cli.command("lab", ["--no-browser"])
    assert lab[:2] == ["-m", "jupyterlab"]
    assert lab[-2:] == ["--allow-root", "--no-browser"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert "--allow-root" not in cli.command("lab", [])
    test = cli.command("test", ["-k", "masks"])
    assert test[:2] == ["-m", "pytest"]
    assert test[-2:] == ["-k", "masks"]


@pytest.mark.parametrize(
    "words", [["--help"], ["lab", "--help"], ["test", "-h"], ["notebooks", "--help"]]
)
def test_help_everywhere(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    assert "python -m teachkit" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["slide"]])
def test_unknown_commands_name_the_known(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "lab" in capsys.readouterr().err or not words


def test_main_sets_up_runs_and_returns_the_status(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(Environment, "ensure", lambda self: None)
    monkeypatch.setattr(processes, "call", lambda *args: calls.append(args) or 7)
    monkeypatch.setenv("PYTHONPATH", "/foreign")
    assert cli.main(["test", "-x"]) == 7
    words, _, env = calls[0]
    assert words[0].endswith(("python", "python.exe"))
    assert words[-1] == "-x"
    assert cli.main(["lab", "--reset", "02", "--no-browser"]) == 7
    assert calls[1][0][-4:] == ["-m", "teachkit.course.workbook", "--reset", "02"]
    monkeypatch.setattr(processes, "call", lambda *args: calls.append(args) or 0)
    assert cli.main(["lab", "--no-browser", "--port=9"]) == 0
    assert calls[2][0][-1] == "teachkit.course.workbook"
    assert calls[3][0][-2:] == ["--no-browser", "--port=9"]
    assert len(calls) == 4  # no JupyterLab where the learner's folder is not ready
    assert env["OMP_NUM_THREADS"]
    assert "PYTHONPATH" not in env
    assert "Ignoring PYTHONPATH=/foreign: the course runs on" in capsys.readouterr().out

    def stop(error):
        def ensure(self):
            raise error

        return ensure

    monkeypatch.setattr(Environment, "ensure", stop(SetupError("do this")))
    assert cli.main(["lab"]) == 1
    assert "do this" in capsys.readouterr().err
    monkeypatch.setattr(Environment, "ensure", stop(KeyboardInterrupt()))
    assert cli.main(["lab"]) == 130
    assert "it goes on from here" in capsys.readouterr().err


def test_call_waits_for_the_child_through_an_interrupt(monkeypatch, tmp_path):
    words = [sys.executable, "-c", "raise SystemExit(3)"]
    assert processes.call(words, tmp_path, dict(os.environ)) == 3

    class Child:
        stderr = None
        answers = iter([KeyboardInterrupt, 5])

        def wait(self):
            answer = next(self.answers)
            if answer is KeyboardInterrupt:
                raise answer
            return answer

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Child())
    assert processes.call([], tmp_path, {}) == 5


PLACES = [Path("/usr/bin").glob("python*"), Path.home().glob(".pyenv/versions/*/bin/python")]
OLD = [
    str(p)
    for place in PLACES
    for p in place
    if re.search(r"python2|python3\.\d$|/(2|3\.\d)\.", str(p))
]


@pytest.mark.skipif(not OLD, reason="no Python older than 3.11 is installed here to try it with")
@pytest.mark.parametrize("python", OLD)
def test_an_old_python_is_told_what_to_do(python):
    done = subprocess.run(
        [python, "-m", "teachkit", "lab"], capture_output=True, text=True, cwd=setup.ROOT
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


# --- notebooks ---------------------------------------------------------------------------------

CELLS = ["from teachkit import lab\nlab.setup()", "import torch\ntorch.rand(2)"]


def book(folder, *sources, name="77_x"):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    path = folder / f"{name}.ipynb"
    path.write_text(nbformat.writes(made), "utf-8")
    return path


def test_a_second_run_changes_no_byte_even_with_widgets(tmp_path):
    widget = "import ipywidgets\nipywidgets.IntSlider()"
    figure = (
        "from teachkit import show\n"
        "show.plots.histogram([1, 2, 2], xlabel='x', ylabel='y', alt='two bars of which one is higher')"
    )
    path = book(
        tmp_path,
        *CELLS,
        widget,
        figure,
        "from teachkit.show.lessons import hessian as scenes\n"
        "show.explore(scenes.quadratic, a=(0, 1, 1), b=(0, 1, 1), c=(0, 1, 1))",
    )
    assert notebooks.write(path)
    first = path.read_bytes()
    assert not notebooks.write(path)
    assert path.read_bytes() == first
    stored = nbformat.reads(first.decode(), as_version=4)
    assert [c.execution_count for c in stored.cells] == [1, 2, 3, 4, 5]
    assert b"widget-view" not in first
    assert "widgets" not in stored.metadata


def test_a_notebook_that_raises_is_not_written(tmp_path, monkeypatch, capsys):
    path = book(tmp_path, "1 / 0")
    before = path.read_bytes()
    monkeypatch.setattr(notebooks, "select", lambda names: [path])
    assert notebooks.main([]) == 1
    assert (
        "77_x.ipynb was not written, because a cell raised ZeroDivisionError"
        in capsys.readouterr().err
    )
    assert path.read_bytes() == before
    path = book(tmp_path, "import os\nos._exit(1)")
    before = path.read_bytes()
    assert notebooks.main([]) == 1
    assert "its kernel died" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["77_x.ipynb"]


def test_main_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    path = book(tmp_path, "1 + 1")
    monkeypatch.setattr(notebooks, "select", lambda names: [path])
    assert notebooks.main([]) == 0
    assert notebooks.main(["77"]) == 0
    assert capsys.readouterr().out == "77_x.ipynb … written\n77_x.ipynb … unchanged\n"


def test_notebooks_are_named_by_their_beginning():
    assert [p.stem for p in notebooks.select(["01", "03"])] == ["01_hessian", "03_masks"]
    assert len(notebooks.select([])) >= 4
    with pytest.raises(
        notebooks.NotebookError, match="no notebook begins with '99'; there are 00_start,"
    ):
        notebooks.select(["99"])


def test_printed_text_is_stored_in_one_piece():
    piece = [
        nbformat.v4.new_output("stream", name=n, text=t)
        for n, t in (("stdout", "a"), ("stdout", "b"), ("stderr", "c"))
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=piece)
    text = notebooks.canonical(nbformat.v4.new_notebook(cells=[cell]))
    assert [o.text for o in nbformat.reads(text, as_version=4).cells[0].outputs] == ["ab", "c"]


def test_too_large_a_notebook_is_refused():
    cell = nbformat.v4.new_code_cell(
        "1", outputs=[nbformat.v4.new_output("stream", text="x" * 500_000)]
    )
    with pytest.raises(notebooks.NotebookError, match="500,.* bytes; at most 400,000"):
        notebooks.canonical(nbformat.v4.new_notebook(cells=[cell]))


def test_replace_leaves_no_part_behind(tmp_path):
    path = tmp_path / "x"
    replace(path, "one")
    replace(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert list(tmp_path.iterdir()) == [path]


def nbval(path, *more):
    words = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-o", "addopts="]
    words += ["-p", "conftest", "-p", "no:cov"]  # ours, of the checkout: it watches the kernel
    words += [f"--nbval-sanitize-with={setup.ROOT / 'tests' / 'nbval.cfg'}", "-q", *more, str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        capture_output=True,
        text=True,
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": str(setup.ROOT)},
    )
    failed = re.findall(r"^FAILED .*::(Cell \d+)", done.stdout, re.MULTILINE)
    return done.returncode, failed, done.stdout + done.stderr


def test_no_message_is_lost_and_a_dead_kernel_is_said_at_once(tmp_path):
    """nbval alone drops some of 30 MB of messages, and waits 2000 seconds for the dead."""
    talk = (
        "from IPython.display import display\n"
        "for i in range(3_000):\n    display({'text/plain': 10_000 * 'x'}, raw=True)"
    )
    path = book(tmp_path, talk, "import os\nos._exit(1)", "2 + 2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata["tags"] = ["nbval-ignore-output"]
    for count, cell in enumerate(notebook.cells, 1):
        cell.execution_count = count
    nbformat.write(notebook, path)
    start = time.monotonic()
    code, failed, report = nbval(path, "--nbval-cell-timeout=600")
    assert time.monotonic() - start < 300
    assert (code, failed) == (1, ["Cell 1", "Cell 2"]), report
    assert "the kernel died while it ran this cell" in report


def drawing(column):
    return (
        f"show.plots.histogram([1, 2, 2, {column}], xlabel='x', ylabel='y', "
        "alt='bars of which one is higher than the others')"
    )


def test_nbval_notices_a_number_and_a_line_that_are_not_there(tmp_path):
    """What is drawn is compared as words and as pixels."""
    path = book(
        tmp_path, "from teachkit import lab, show\nlab.setup()", "print('loss', 0.25)", drawing(3)
    )
    notebooks.write(path)
    assert nbval(path)[:2] == (0, [])
    text = path.read_text("utf-8")
    path.write_text(text.replace("loss 0.25", "loss 0.26").replace("40 × bar", "41 × bar"), "utf-8")
    assert nbval(path)[:2] == (1, ["Cell 1", "Cell 2"])


def test_nbval_notices_a_picture_that_the_cell_does_not_draw(tmp_path):
    """Another cell's picture, a mirrored one, none that can be read, one more than is drawn."""
    cells = [drawing(column) for column in range(3, 9)]
    path = book(tmp_path, "from teachkit import lab, show\nlab.setup()", *cells)
    notebooks.write(path)
    notebook = nbformat.read(path, as_version=4)
    pages = [cell.outputs[0]["data"] for cell in notebook.cells[1:]]
    (first,) = pictures.drawn(notebook.cells[1].outputs)
    (fourth,) = pictures.drawn(notebook.cells[4].outputs)
    file = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(fourth)))
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file, format="png")
    mirrored = base64.b64encode(file.getvalue()).decode()
    for page, picture in zip(pages[2:], (first, mirrored, "AAAA", first), strict=True):
        page["text/html"] = re.sub("base64,[A-Za-z0-9+/=]+", f"base64,{picture}", page["text/html"])
    notebook.cells[1].outputs.append(nbformat.v4.new_output("display_data", {"image/png": first}))
    notebook.cells[6].metadata["tags"] = ["nbval-ignore-output"]
    nbformat.write(notebook, path)
    code, failed, report = nbval(path)
    assert (code, failed) == (1, ["Cell 1", "Cell 3", "Cell 4", "Cell 5"])
    assert "the notebook holds 2 pictures here, the cell draws 1" in report
    assert "the picture is not the one drawn now" in report
    assert "a picture of 4 characters cannot be read" in report
