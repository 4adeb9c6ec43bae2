"""What a table is given, as cells by column: records, columns, a DataFrame, or the arms of a comparison."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from teachkit.core import door
from teachkit.core.contract import quoted
from teachkit.lab.curves import Interval
from teachkit.show import columns
from teachkit.show.columns import Cell


def records(
    name: str, found: Mapping[Any, Any], at: Sequence[Any], *, only: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """One record for each arm: its name, and its interval or number at each of the places.

    Args:
        name: what the arms are, e.g. "method"; the header of the first column.
        found: by arm an Interval of arrays (n,), or n values.
        at: what stands above the n columns.
        only: which of them to show, all by default.

    >>> records("method", {"OBD": [0.9, 0.8, 0.4]}, [0.5, 0.7, 0.9], only=[0.5, 0.9])
    [{'method': 'OBD', '0.5': 0.9, '0.9': 0.4}]

    """
    _apart([name, *at])
    for place in only or []:
        if place not in at:
            raise ValueError(f"only names {place!r}; there are {', '.join(map(str, at))}")
    chosen = [i for i, place in enumerate(at) if only is None or place in only]
    rows = []
    for arm, values in found.items():
        cells = _cells(values)
        if len(cells) != len(at):
            raise ValueError(f"{arm!r} has {len(cells)} values for {len(at)} columns")
        rows.append({name: arm} | {str(at[i]): cells[i] for i in chosen})
    return rows


def _cells(values: Any) -> list[Any]:
    """The cells of a column: an Interval of arrays has one interval in each."""
    if isinstance(values, Interval) and np.ndim(values.mean) == 1:
        return [Interval(*parts) for parts in zip(*values, strict=True)]
    if isinstance(values, (str, Interval)) or not hasattr(values, "__len__"):
        raise TypeError(f"a column must be a list, got {quoted(values)}")
    return list(values)


def _apart(names: Collection[Any]) -> None:
    """Names that are written the same would be one column."""
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"each column needs a name of its own, got {', '.join(map(str, names))}")


def _columns(frame: Any) -> dict[Any, list[Any]]:
    """The columns of a DataFrame; names of rows are not among them."""
    _apart(list(frame.columns))
    if list(getattr(frame, "index", range(len(frame)))) != list(range(len(frame))):
        raise ValueError(
            f"the rows of a DataFrame must have no names of their own, got {quoted(frame.index)}; "
            "use reset_index(), which makes a column of them"
        )
    return {name: frame[name].tolist() for name in frame.columns}


def read(data: Any) -> dict[str, list[Cell]]:
    """Cells by column, whatever they are given as."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a DataFrame, without an import
        data = _columns(data)
    if isinstance(data, Mapping):
        _apart(data)
        raw = {str(name): _cells(values) for name, values in data.items()}
    elif isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        keys = dict.fromkeys(key for row in data for key in row)
        _apart(keys)
        raw = {str(key): [row.get(key) for row in data] for key in keys}
    else:
        must = "records (a list of dicts), a dict of columns or a DataFrame"
        raise TypeError(f"data must be {must}, got {quoted(data)}")
    lengths = {name: len(values) for name, values in raw.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"columns must have the same number of rows, at least 1, got {lengths}")
    return {
        name: [
            columns.cell(f"column {name!r}, row {i}", value) for i, value in enumerate(values, 1)
        ]
        for name, values in raw.items()
    }


door.hold(globals())
