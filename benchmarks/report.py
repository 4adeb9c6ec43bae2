"""The report of a benchmark: tables in Markdown, the numbers in JSON, a picture, each written whole."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import Row, Section
from teachkit import show
from teachkit.core.files import replace
from teachkit.lab import timing
from teachkit.lab.session import COLOURS

PEERS = ("backpack-for-pytorch", "curvlinops-for-pytorch", "torch-pruning")
MARKS = "oXsD^vP*<>"


def missing_peers() -> list[str]:
    """The packages of the optional group ``bench`` that are not there."""
    return [name for name in PEERS if _version(name) == "absent"]


def save(suite: str, sections: Sequence[Section], folder: Path, *, quick: bool = False) -> str:
    """Write SUITE.md, SUITE.json and a picture for each section; return the Markdown."""
    text = markdown(suite, sections, quick=quick)
    for section in sections:
        if any(row.ratio for row in section.rows):
            name = f"{suite}.png" if section is sections[0] else f"{suite}-{section.name}.png"
            shown = picture(section)
            replace(folder / name, shown.png)
            text += f"\n![{shown.alt}]({name})\n"
    replace(folder / f"{suite}.md", text)
    content = {"suite": suite, "quick": quick, "machine": machine(), "sections": _plain(sections)}
    replace(folder / f"{suite}.json", json.dumps(content, indent=1))
    return text


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
        "clock": timing.clock().__name__,
        **{name: _version(name) for name in PEERS},
    }


def markdown(suite: str, sections: Sequence[Section], *, quick: bool = False) -> str:
    """All tables, under the machine they were measured on."""
    lines = [f"# Benchmark {suite}", ""]
    if quick:
        lines += ["Tiny sizes, one round: shows that everything runs, not how fast.", ""]
    lines += ["; ".join(f"{key} {value}" for key, value in machine().items()) + ".", ""]
    lines += [
        "`ratio` is the median over the rounds of the time divided by the reference's time in the "
        "same round (quartiles in brackets). `peak` is the memory above what the process held "
        "before. `difference` is the largest deviation from our values, relative to the largest.",
        "",
    ]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for case in dict.fromkeys(row.case for row in section.rows):
            rows = [_cells(row) for row in section.rows if row.case == case]
            head = ["", "ratio", "seconds", "peak MB", "difference", "note"]
            lines += [f"### {case}", "", *_table(head, rows), ""]
        for table in section.tables:
            lines += [f"### {table.title}", "", *_table(table.head, table.rows), "", table.text, ""]
    return "\n".join(lines)


def picture(section: Section) -> show.Picture:
    """Each case a line, each competitor a mark at its ratio, on a logarithmic axis."""
    rows = [row for row in section.rows if row.ratio]
    cases = list(dict.fromkeys(row.case for row in rows))[::-1]
    names = list(dict.fromkeys(row.competitor for row in rows))
    figure, (axes,) = show.plots.canvas(width=8.0, height=1.4 + 0.5 * len(cases))
    for name, marker, colour in zip(names, cycle(MARKS), cycle(COLOURS), strict=False):
        mine = [row for row in rows if row.competitor == name]
        x, y = [row.ratio or 0.0 for row in mine], [cases.index(row.case) for row in mine]
        axes.scatter(x, y, s=60, marker=marker, color=colour, label=name, zorder=3)
    axes.set_yticks(np.arange(len(cases)), cases)
    axes.set(xscale="log", xlabel="time in units of the reference", ylim=(-0.6, len(cases) - 0.4))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    ratios = [row.ratio or 0.0 for row in rows]
    alt = (
        f"{section.title}: the time of {len(names)} competitors, case by case, as a multiple of "
        f"the reference, from {min(ratios):.2g} to {max(ratios):.2g}, logarithmic."
    )
    return show.figure(figure, alt)


def _cells(row: Row) -> list[str]:
    if row.ratio is None:
        return [row.competitor, "–", "–", "–", "–", row.note]
    spread = f" [{_number(row.low)}, {_number(row.high)}]" if row.low != row.high else ""
    off = "–" if row.difference is None else f"{row.difference:.0e}"
    memory = "not available" if row.memory is None else f"{row.memory:.0f}"
    ratio, seconds = f"{_number(row.ratio)}{spread}", _number(row.seconds)
    return [row.competitor, ratio, seconds, memory, off, row.note]


def _number(value: float | None) -> str:
    """Three significant digits, thousands with a comma.

    >>> _number(1.2345), _number(123456.0), _number(0.00123)
    ('1.23', '123,000', '0.00123')
    """
    if value is None:
        return "–"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    clean = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *clean]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _plain(sections: Sequence[Section]) -> list[dict[str, object]]:
    return [
        section._asdict()
        | {part: [one._asdict() for one in getattr(section, part)] for part in ("rows", "tables")}
        for section in sections
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
