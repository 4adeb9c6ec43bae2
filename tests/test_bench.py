"""The benchmark command: fair timing, honest gaps, a report that is written whole."""

import importlib
import importlib.metadata
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench, cases, layers, report, second_order
from benchmarks.cases import Case, Competitor, Section, Table
from teachkit import lab, masks, obs
from teachkit.course import cli, processes, setup
from teachkit.course.setup import Environment, SetupError
from teachkit.lab import timing


class Clock:
    """Time that passes only when someone works."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.log = []
        monkeypatch.setattr(timing, "clock", lambda: lambda: self.now)

    def work(self, name, cost):
        def run():
            self.log.append(name)
            self.now += cost() if callable(cost) else cost
            return {"w": torch.tensor([1.0, 2.0])}

        return run


def test_ratios_are_medians_of_rounds_and_parts_are_scaled_up(monkeypatch):
    clock = Clock(monkeypatch)
    slow = iter([1.0] * 2 + [2.0, 2.0, 2.0, 50.0, 2.0, 2.0, 2.0])  # warm-up, memory, 7 rounds
    case = Case(
        "c",
        "base",
        {
            "base": Competitor(clock.work("base", 0.5)),
            "slow": Competitor(clock.work("slow", lambda: next(slow))),
            "part": Competitor(clock.work("part", 0.1), factor=30.0, note="1 of 30"),
        },
        truth="base",
    )
    base, mid, part = cases.measure(case)
    assert (base.ratio, mid.ratio, part.ratio) == pytest.approx((1, 4, 6))
    assert mid.seconds == pytest.approx(2)
    assert part.seconds == pytest.approx(3)
    assert part.note == "1 of 30"
    assert base.difference == 0
    rounds = clock.log[-21:]
    assert rounds[:6] == ["base", "slow", "part", "part", "slow", "base"]


def test_short_work_is_repeated(monkeypatch):
    clock = Clock(monkeypatch)
    case = Case("c", "base", {"base": Competitor(clock.work("base", 0.001))})
    cases.measure(case)
    assert len(clock.log) == 2 + 30 * cases.ROUNDS
    clock.log.clear()
    cases.measure(case, quick=True)
    assert len(clock.log) == 3


def test_rounds_stop_when_the_time_is_spent(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(cases, "BUDGET", 0.0)
    cases.measure(Case("c", "base", {"base": Competitor(clock.work("base", 1.0))}))
    assert len(clock.log) == 2 + 3


def test_a_slow_part_runs_in_one_round_only(monkeypatch):
    clock = Clock(monkeypatch)
    runs = {"base": Competitor(clock.work("base", 1.0))}
    runs["part"] = Competitor(clock.work("part", cases.SLOW + 1), factor=10.0)
    _, part = cases.measure(Case("c", "base", runs))
    assert clock.log.count("part") == 3
    assert part.ratio == pytest.approx(10 * (cases.SLOW + 1))
    assert clock.log.count("base") == 2 + cases.ROUNDS


def test_who_fails_is_reported_and_the_others_are_measured():
    def broken():
        raise NotImplementedError("no GELU\nsecond line")

    case = Case("c", "ok", {"ok": Competitor(dict), "broken": Competitor(broken)})
    ok, bad = cases.measure(case, quick=True)
    assert ok.ratio == pytest.approx(1)
    assert bad.ratio is None
    assert bad.note == "not measured: NotImplementedError: no GELU"
    alone = cases.measure(case._replace(reference="broken"), quick=True)
    assert [row.ratio for row in alone] == [None, None]


def test_peak_sees_what_a_run_holds_and_gives_back():
    if not Path("/proc/self/clear_refs").exists():
        assert cases.peak(dict) is None
        return
    size = 40_000_000
    found = cases.peak(lambda: torch.ones(size // 8, dtype=torch.float64).sum())
    assert size / 1e6 * 0.9 < found < size / 1e6 * 1.5
    assert cases.peak(dict) < 5


def test_peak_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(cases, "_status", lambda name: (_ for _ in ()).throw(OSError()))
    done = []
    assert cases.peak(lambda: done.append(1)) is None
    assert done == [1]
    row = cases.Row("c", "x", 1.0, 1.0, 1.0, 0.1, None, None, "")
    assert "not available" in report._cells(row)


def test_difference_is_relative_to_the_largest_and_skips_what_was_not_computed():
    truth = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([10.0])}
    found = {"a": torch.tensor([1.5, math.nan]), "b": torch.tensor([10.0])}
    assert cases.difference(found, truth) == pytest.approx(0.125)
    assert cases.difference(3, truth) is None


def test_unknown_suites_are_refused_with_the_list(capsys):
    with pytest.raises(SystemExit):
        bench.main(["third-order"])
    assert "'third-order' (choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["second-order", "--only", "first"])
    assert "'first' (choose from" in capsys.readouterr().err
    for words in (["lessons", "--quick"], ["obd"]):
        with pytest.raises(SystemExit):
            bench.main([*words, "--write"])
        assert "--write" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        bench.main(["--help"])
    assert stop.value.code == 0
    assert "second-order" in capsys.readouterr().out


def test_the_command_writes_table_numbers_and_pictures(tmp_path):
    words = ["second-order", "--quick", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "second-order.md").read_text("utf-8")
    assert done.stdout == text + "\n"
    assert "| teachkit | " in text
    assert "exact OBS, global" in text
    content = json.loads((tmp_path / "second-order.json").read_text("utf-8"))
    first = content["sections"][0]["rows"]
    assert {row["competitor"] for row in first} >= {"teachkit", "BackPACK", "curvlinops"}
    for row in first:
        assert row["difference"] is None or row["difference"] < 1e-10
    ours = [row for row in first if row["competitor"] == "torch.func, vmap"]
    assert all(row["difference"] is not None for row in ours)
    names = sorted(path.name for path in tmp_path.iterdir())
    drawn = [s["name"] for s in content["sections"] if s["rows"]]
    pictures = [f"second-order-{name}.png" for name in drawn[1:]] + ["second-order.png"]
    assert names == sorted(["second-order.json", "second-order.md", *pictures])
    assert all((tmp_path / n).read_bytes()[:4] == b"\x89PNG" for n in names if n.endswith("png"))


def test_without_peers_their_rows_say_so(monkeypatch, capsys):
    real = importlib.import_module

    def absent(name, *rest):
        if name.split(".")[0] in ("backpack", "curvlinops"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    rows = cases.measure(second_order.cases(True)[0], quick=True)
    missing = {row.competitor: row.note for row in rows if row.ratio is None}
    assert set(missing) == {"BackPACK", "curvlinops"}
    assert missing["BackPACK"] == "not measured: ModuleNotFoundError: No module named 'backpack'"

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert set(report.missing_peers()) == set(report.PEERS)
    assert report.machine()["backpack-for-pytorch"] == "absent"
    monkeypatch.setattr(bench, "sections", lambda *_, **__: [])
    monkeypatch.setattr(report, "save", lambda *_, **__: "done")
    assert bench.main(["second-order", "--quick"]) == 0
    out = capsys.readouterr()
    assert "backpack-for-pytorch is not installed" in out.err
    assert out.out == "done\n"


def test_a_module_of_a_suite_may_be_absent(monkeypatch):
    monkeypatch.setitem(bench.SUITES, "second-order", ("nothing_of_this_name",))
    assert bench.sections("second-order", quick=True, progress=False) == []


def test_a_report_is_written_whole(tmp_path):
    row = cases.Row("a|b", "x", 1234.5, 1000.0, 2000.0, 0.5, 12.0, 1e-16, "")
    section = Section("s", "Title", [row], [Table("t", ["", "n"], [["a", "1"]], "words")])
    text = report.save("suite", [section], tmp_path)
    assert "| x | 1,230 [1,000, 2,000] | 0.5 | 12 | 1e-16 |  |" in text
    assert "### a|b" in text
    assert "words" in text
    before = (tmp_path / "suite.png").read_bytes()
    report.save("suite", [section], tmp_path)
    assert (tmp_path / "suite.png").read_bytes() == before
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".md", ".png"]


def test_slow_relatives_choose_what_the_trace_chooses():
    generator = torch.Generator().manual_seed(0)
    X, w = torch.randn(80, 12, generator=generator), torch.randn(12, generator=generator)
    H = X.T @ X
    order = obs.trace_layer(w[None], X).order[0]
    assert layers.downdates(w, H).tolist() == order.tolist()
    left = torch.ones(12, dtype=torch.bool).index_fill(0, order[:5], False)
    want = obs.refit(w[None], X, left[None])[0, left]
    torch.testing.assert_close(layers.inverses(w, H, 5), want)
    assert layers._cubes(12, 12) == 1
    assert layers._cubes(2, 1) == pytest.approx(9 / 8)


def test_wanda_keeps_the_largest_of_each_row():
    net, data = lab.models.mlp(hidden=(9,), seed=1), lab.data.digits().train
    kept = layers.wanda(net, data, 0.7)
    assert all(int(m.sum(1).float().std()) == 0 for m in kept.values())
    norm = data[0].flatten(1).norm(dim=0)
    score = net[1].weight.detach().abs() * norm
    k = 64 - masks.removed(64, 0.7)
    assert torch.equal(kept["1.weight"].sum(1), torch.full((9,), k))
    worst = score.masked_fill(~kept["1.weight"], math.inf).min(1).values
    best = score.masked_fill(kept["1.weight"], -1.0).max(1).values
    assert (worst >= best).all()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    text = "dependencies:\n  - pip:\n      - torch==2.13.0\n      - six==1.17\n      - -e .\n"
    (tmp_path / "environment.yml").write_text(text, "utf-8")
    (tmp_path / "pyproject.toml").write_text("", "utf-8")
    asked = []
    monkeypatch.setattr(Environment, "pip", lambda self, *words: asked.append(words))
    monkeypatch.setattr(Environment, "_index_for", lambda self, torch: ["--extra", *torch])
    made = Environment(tmp_path)
    made.venv.mkdir()
    return made, asked


def test_an_optional_group_is_installed_once_beside_the_pinned_packages(environment):
    made, asked = environment
    made.ensure_extra("bench")
    made.ensure_extra("bench")
    pinned = ("--extra", "torch==2.13.0", "torch==2.13.0", "six==1.17")
    assert asked == [("install", *pinned, "-e", ".[bench]")]
    (made.root / "pyproject.toml").write_text("# other", "utf-8")
    made.ensure_extra("bench")
    assert len(asked) == 2


def test_bench_goes_on_where_the_peers_cannot_be_fetched(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(Environment, "ensure", lambda self: None)
    monkeypatch.setattr(processes, "call", lambda *words: calls.append(words) or 0)

    def fails(self, extra):
        raise SetupError(f"no network for {extra}")

    monkeypatch.setattr(Environment, "ensure_extra", fails)
    assert cli.main(["bench", "second-order", "--quick"]) == 0
    said = capsys.readouterr().err
    assert "no network for bench" in said
    assert "Going on without" in said
    assert calls[0][0][1:] == ["-m", "benchmarks.bench", "second-order", "--quick"]
    for words in (["test"], ["bench", "lessons"], ["bench", "explorers"]):  # they ask for no peer
        assert cli.main(words) == 0
    assert "no network" not in capsys.readouterr().err


def test_the_group_names_the_peers_with_ranges():
    text = (setup.ROOT / "pyproject.toml").read_text("utf-8")
    for name in report.PEERS:
        assert f'"{name}>=' in text
