"""The progress bar: only where it takes long, one place in a cell, and nothing of it is left."""

import json
import os
import signal

import nbformat
import pytest
from nbclient import NotebookClient

from teachkit.core import bars
from teachkit.course import notebooks

SETUP = "from teachkit import lab\nfrom teachkit.core import bars\nimport time, torch"
WORK = "for _ in bars.bar(range(30), 'naps'): time.sleep(0.05)"


@pytest.fixture
def run(monkeypatch):
    """Run cells on a kernel as a learner does: what was shown meanwhile, and the cells after."""
    monkeypatch.delenv("TQDM_DISABLE")

    def go(*sources, interrupt=None):
        cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *sources)]
        book = nbformat.v4.new_notebook(cells=cells)
        client = NotebookClient(book, kernel_name="python3", allow_errors=True, timeout=120)
        shown, process = [], client.process_message

        def watch(message, cell, index):
            if "display_data" in message["msg_type"]:
                shown.append(message["content"]["data"])
                if interrupt is not None and index == interrupt and len(shown) == 2:
                    os.kill(client.km.provisioner.pid, signal.SIGINT)
            return process(message, cell, index)

        client.process_message = watch
        client.execute()
        return shown, book.cells[1:]

    return go


def test_a_bar_says_what_is_done_and_is_gone_when_the_cell_ends(run):
    shown, (cell,) = run(f"print('before')\n{WORK}\nprint('after')")
    *pictures, last = shown
    assert "naps: " in pictures[0]["text/plain"]
    assert "of 30, about " in pictures[0]["text/plain"]
    assert 'aria-label="naps: ' in pictures[0]["text/html"]
    assert 2 <= len(pictures) <= 5
    assert last == {}
    assert [o.get("text") or o.data for o in cell.outputs] == ["before\n", {}, "after\n"]
    cell.execution_count = 1
    stored = notebooks.canonical(nbformat.v4.new_notebook(cells=[cell]))
    kept = json.loads(stored)["cells"][0]["outputs"]
    assert [o["output_type"] for o in kept] == ["stream"]


def test_quick_work_shows_nothing_and_many_quick_loops_share_one_place(run):
    quick = "for _ in bars.bar(range(3), 'naps'): time.sleep(0.1)"
    shown, (once, often) = run(quick, f"for _ in range(6):\n    {quick}")
    assert once.outputs == []
    assert len(often.outputs) == 1
    assert shown[-1] == {}


def test_the_note_of_a_cell_becomes_a_line(run):
    shown, _ = run(f"# takes about 2 s\n{WORK}")
    assert shown[0]["text/plain"].startswith("this cell: 1 s of about 2 s; naps: ")
    assert shown[0]["text/html"].count("<progress") == 2


def test_training_and_its_rounds_show_their_bars(run):
    cell = (
        "lab.setup(); data = lab.data.digits(); net = lab.models.mlp()\n"
        "slow = {'after_step': lambda net, step: time.sleep(0.01)}\n"
        "from teachkit.lab import rounds\n"
        "from teachkit import magnitude\n"
        "choose = rounds.by_criterion(lambda *_: magnitude.scores(_[0]))\n"
        "run = rounds.retrain(net, data, choose, [0.2, 0.4], epochs=4, **slow)"
    )
    shown, (cell,) = run(cell)
    assert [o.data for o in cell.outputs] == [{}]
    assert any("rounds: " in s["text/plain"] and "epochs: " in s["text/plain"] for s in shown[:-1])


def test_an_interrupt_leaves_no_bar_and_the_cell_runs_again(run):
    long = WORK.replace("30", "100")
    shown, (cut, again) = run(long, WORK, interrupt=1)
    assert [o.output_type for o in cut.outputs] == ["display_data", "error"]
    assert cut.outputs[0].data == {}
    assert cut.outputs[1].ename == "KeyboardInterrupt"
    assert [o.data for o in again.outputs] == [{}]
    assert "naps: 2" in shown[-2]["text/plain"]
    assert all("100" not in s.get("text/plain", "") for s in shown[-3:])


def test_stored_and_compared_notebooks_have_no_bar(tmp_path):
    assert os.environ["TQDM_DISABLE"] == "1"  # in every test, and so under nbval
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, WORK)]
    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert '"display_data"' not in notebooks.execute(path)


def test_in_a_terminal_it_is_that_of_tqdm_and_in_a_file_none(monkeypatch, bars_at_once, capsys):
    assert list(bars.bar([1, 2], "counts")) == [1, 2]
    assert "counts" in capsys.readouterr().err
    assert list(bars.bar([1, 2], "counts", show=False)) == [1, 2]
    monkeypatch.setattr(bars, "_terminal", lambda: False)
    assert list(bars.bar([1, 2], "counts")) == [1, 2]
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(bars, "_terminal", lambda: True)
    assert list(bars.bar([1, 2], "counts")) == [1, 2]
    assert capsys.readouterr().err == ""
