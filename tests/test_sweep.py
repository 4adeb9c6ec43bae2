"""Sweeps: same table whatever runs them, nothing lost, nothing computed twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweep_cells
import torch

from teachkit import lab
from teachkit.lab import sweep

GRID = {"seed": [3, 1, 2], "power": [1, 2]}


@pytest.fixture(autouse=True)
def session():
    lab.setup()


def test_rows_come_in_the_order_of_the_grid():
    rows = sweep.run(sweep_cells.draw, GRID, progress=False)
    assert [(r["seed"], r["power"]) for r in rows] == [(s, p) for s in (3, 1, 2) for p in (1, 2)]
    assert rows[1]["value"] == pytest.approx(rows[0]["value"] ** 2)


def test_processes_give_the_same_table(tmp_path):
    want = sweep.run(sweep_cells.draw, GRID, progress=False)
    assert sweep.run(sweep_cells.draw, GRID, workers=2, progress=False) == want
    file = tmp_path / "new" / "rows.jsonl"
    assert sweep.run(sweep_cells.draw, GRID, workers=2, file=file, progress=False) == want
    assert len(file.read_text("utf-8").splitlines()) == 6


def test_what_is_in_the_file_is_not_run_again(tmp_path):
    file, grid = tmp_path / "rows.jsonl", {"seed": [1, 2, 3], "folder": [str(tmp_path / "marks")]}
    Path(grid["folder"][0]).mkdir()
    rows = sweep.run(sweep_cells.slow, grid, file=file, progress=False)
    again = sweep.run(sweep_cells.slow, grid | {"seed": [3, 4, 1]}, file=file, progress=False)
    assert [r["square"] for r in again] == [9, 16, 1]
    assert again[0] == rows[2]
    assert len(list((tmp_path / "marks").iterdir())) == 4


@pytest.mark.parametrize("cut", [1, 5, 30, 44])
def test_a_damaged_line_is_computed_anew(tmp_path, cut):
    """The file ends in the middle of a line, as when the power fails."""
    file = tmp_path / "rows.jsonl"
    want = sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want
    assert sweep.run(sweep_cells.draw, GRID, file=file, progress=False) == want
    assert sorted(r["value"] for r in sweep.load(file, list(GRID)).values()) == sorted(
        r["value"] for r in want
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def marks(folder):
    return [name.name.split("-")[0] for name in folder.iterdir()]


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="a process cannot be killed outright here"
)
def test_a_killed_client_goes_on_with_the_rest(tmp_path):
    folder, file = tmp_path / "marks", tmp_path / "rows.jsonl"
    folder.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sweep_cells; from teachkit.lab import sweep\n"
        "sweep.run(sweep_cells.slow, {'seed': list(range(12)), 'folder': [sys.argv[2]]}, file=sys.argv[3])"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), str(file)]
    client = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(marks(folder)) >= 4)
    client.kill()
    client.wait()
    finished = len(sweep.load(file, ["seed", "folder"]))
    assert 3 <= finished < 12
    grid = {"seed": list(range(12)), "folder": [str(folder)]}
    rows = sweep.run(sweep_cells.slow, grid, file=file, progress=False)
    assert [r["square"] for r in rows] == [s**2 for s in range(12)]
    assert len(marks(folder)) <= 12 + 1  # at most the one that was running is run twice


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="a process cannot be killed outright here"
)
def test_on_dask_a_killed_worker_loses_nothing(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    folder = tmp_path / "marks"
    folder.mkdir()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(host="127.0.0.1", **options) as cluster:
        monkeypatch.setenv(sweep.DASK, cluster.scheduler_address)
        want = sweep.run(sweep_cells.draw, GRID, workers=2, progress=False)
        victim = next(iter(cluster.workers.values())).pid
        killer = subprocess.Popen(
            [sys.executable, "-c", WAIT_AND_KILL, str(folder), str(victim)], stderr=subprocess.PIPE
        )
        grid = {"seed": list(range(20)), "folder": [str(folder)]}
        rows = sweep.run(sweep_cells.slow, grid, file=tmp_path / "rows.jsonl", progress=False)
        assert killer.wait(60) == 0, killer.stderr.read()
    monkeypatch.delenv(sweep.DASK)
    assert want == sweep.run(sweep_cells.draw, GRID, progress=False)
    assert [r["square"] for r in rows] == [s**2 for s in range(20)]
    assert {name.name.split("-")[1] for name in folder.iterdir()} != {str(os.getpid())}


WAIT_AND_KILL = """
import os, signal, sys, time
while not any(f"-{sys.argv[2]}-" in name for name in os.listdir(sys.argv[1])):
    time.sleep(0.02)
os.kill(int(sys.argv[2]), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({}, "the grid needs a list of values for each argument"),
        ({"seed": []}, "the grid needs a list"),
        ({"seed": "abc"}, r"grid\['seed'\] must be a list"),
        ({"seed": [1, 1]}, "names a value twice"),
        ({"seed": [object()]}, "may hold numbers and words only"),
        ({"seed": [float("nan")]}, "may hold numbers and words only"),
    ],
)
def test_bad_grids_are_refused(grid, says):
    with pytest.raises((TypeError, ValueError), match=says):
        sweep.run(sweep_cells.draw, grid, progress=False)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (3, "a cell must return a dict, got int at {'seed': 1}"),
        ({"seed": 2}, r"the cell returns \['seed'\], which are arguments"),
        ({"y": float("nan")}, "a row must hold finite numbers and words only"),
    ],
)
def test_bad_results_are_refused(result, says):
    with pytest.raises(ValueError, match=says):
        sweep.run(lambda seed: result, {"seed": [1]}, progress=False)


def test_a_file_of_another_experiment_is_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(ValueError, match=r"not of this experiment: it has the row \{'other': 1\}"):
        sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    file.write_text("3\n")
    with pytest.raises(ValueError, match="not of this experiment: it has the row 3"):
        sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    file.unlink()
    sweep.run(sweep_cells.draw, GRID, file=file, progress=False)
    with pytest.raises(ValueError, match='two rows for {"seed": 3}'):
        sweep.run(sweep_cells.word, {"seed": GRID["seed"]}, file=file, progress=False)


def test_each_cell_starts_from_the_set_up_with_or_without_processes():
    torch.set_default_dtype(torch.float32)
    rows = sweep.run(sweep_cells.luck, {"seed": [1, 2]}, progress=False)
    assert rows == sweep.run(sweep_cells.luck, {"seed": [1, 2]}, workers=2, progress=False)
    assert rows[0]["value"] == rows[1]["value"]
    assert torch.get_default_dtype() == torch.float64


def test_words_of_any_kind_come_back_from_the_file_as_they_went(tmp_path):
    file, grid = tmp_path / "rows.jsonl", {"seed": [1, 2]}
    rows = sweep.run(sweep_cells.word, grid, file=file, progress=False)
    assert rows == sweep.run(sweep_cells.word, grid, file=file, progress=False)
    assert rows[0]["pair"] == [1, 2]
    assert len(file.read_bytes().split(b"\n")) == 3
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex("é".encode()) + 1])  # cut inside a letter
    assert rows == sweep.run(sweep_cells.word, grid, file=file, progress=False)


def test_tables_are_cut_and_written_whole(tmp_path):
    rows = sweep.run(sweep_cells.draw, GRID, progress=False)
    values = sweep.column(rows, "value", by="power", over="seed")
    assert values[2][1] == sweep.select(rows, seed=2, power=2)[0]["value"]
    with pytest.raises(ValueError, match="select first"):
        sweep.column(rows, "value", by="power", over="power")
    sweep.tidy(tmp_path / "a" / "t.jsonl", rows)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert list(sweep.load(tmp_path / "a" / "t.jsonl", list(GRID)).values()) == rows != shuffled
    with pytest.raises(ValueError, match="finite numbers and words only"):
        sweep.tidy(tmp_path / "a" / "t.jsonl", [{"x": float("inf")}])
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["t.jsonl"]
