"""Tables: the same numbers in HTML and in plain text, in the order given, none ahead of its like."""

import html
import math
import re

import numpy as np
import pandas as pd
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit import show
from teachkit.lab.curves import Interval, interval
from teachkit.show import styles

NUMBER = re.compile(r"(?<![\w.])[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?|infinite|not a number|missing")
WIDE = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
SPAN = st.tuples(*[st.floats(-50, 50)] * 3).map(
    lambda t: Interval(*(sorted(t)[i] for i in (1, 0, 2)))
)


def cells(table):
    """The texts of the HTML's headers and cells, row by row, as someone hears them."""
    rows = re.findall(r"<tr>(.*?)</tr>", table.html)
    hidden = re.compile(r'<span style="visibility: hidden">.*?</span>')
    texts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", hidden.sub("", row)) for row in rows]
    powers = [[re.sub(r" × 10<sup>(.*?)</sup>", r"e\1", text) for text in row] for row in texts]
    return [[html.unescape(re.sub("<[^>]*>", "", text)) for text in row] for row in powers]


def said(text):
    """The numbers of a text, powers of ten written one way."""
    found = NUMBER.findall(text.replace("−", "-"))
    return [re.sub(r"e([-+]?)\+?0*(\d+)", r"e\1\2", each).replace("e+", "e") for each in found]


@given(
    st.lists(st.tuples(WIDE, SPAN, st.integers(-(10**6), 10**6)), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_html_and_plain_text_hold_the_same_numbers_in_the_order_given(rows, digits):
    records = [
        {"arm": f"arm {'abcdef'[i]}", "x": x, "y": y, "n": n} for i, (x, y, n) in enumerate(rows)
    ]
    table = show.table(records, caption="Arms in their order.", digits=digits, best={"y": "max"})
    page, plain = cells(table), repr(table).splitlines()[1:]
    for row, line in zip(page, plain, strict=False):
        assert said(" ".join(row)) == said(line)
        assert row[0] in line
    assert [row[0] for row in page[1:]] == [record["arm"] for record in records]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(1, 6))
def test_a_column_has_one_number_of_decimals_and_enough_digits(values, digits):
    table = show.table({"i": ["x"] * len(values), "v": values}, caption="c", digits=digits)
    texts = table.shown[1].texts
    assert len({len(text.partition(".")[2].partition("e")[0]) for text in texts}) == 1
    largest = max(range(len(values)), key=lambda i: abs(values[i]))
    assert float(texts[largest].replace(",", "")) == pytest.approx(
        values[largest], rel=0.5001 * 10.0 ** (1 - digits)
    )


@given(st.lists(SPAN, min_size=1, max_size=8), st.sampled_from(["max", "min"]))
def test_all_arms_whose_intervals_overlap_the_best_are_marked(spans, want):
    table = show.table({"arm": ["x"] * len(spans), "y": spans}, caption="c", best=want, digits=12)
    best = (max if want == "max" else min)(span.mean for span in spans)
    top = next(span for span in spans if span.mean == best)
    overlap = [span.low <= top.high and span.high >= top.low for span in spans]
    same = [text == table.shown[1].texts[spans.index(top)] for text in table.shown[1].texts]
    assert table.shown[1].stars == [a or b for a, b in zip(overlap, same, strict=True)]
    assert styles.BRACKETS in repr(table)
    assert repr(table).count(" *") == sum(table.shown[1].stars)


def test_numbers_that_are_written_the_same_are_marked_together():
    table = show.table(
        {"arm": ["a", "b", "c"], "y": [0.9001, 0.9002, 0.8]}, caption="c", best="max"
    )
    assert table.shown[1].stars == [True, True, False]
    assert show.table({"a": [1], "b": [math.nan]}, caption="c", best="max").shown[1].stars == [
        False
    ]


def test_every_kind_of_cell():
    table = show.table(
        {
            "what": ["one", "two"],
            "tensor": [torch.tensor([3.25]), np.float64(2)],
            "exact": [sympy.Rational(2, 5), sympy.pi],
            "term": [sympy.Symbol("x") ** 2, "word"],
            "yes": [True, np.bool_(False)],
            "seeds": [[0.1, -0.25], torch.tensor([1.0, 2.0]).tolist()],
            "counts": [[1, 2000], [3, 4]],
            "small": [1.7e-9, 2],
            "tiny": [1.7e-9, 0],
            "gap": [1.5, None],
            "whole": [12345, -3],
            "spread": interval([[0.5, 0.25], [0.7, -0.25]]),
        },
        caption="All kinds < 3 & more.",
        units={"gap": "s"},
        signed=["seeds"],
    )
    by_name = {column.name: column.texts for column in table.shown}
    assert by_name["tensor"] == ["3.25", "2.00"]
    assert by_name["exact"] == ["0.40", "3.14"]
    assert by_name["term"] == ["x**2", "word"]
    assert by_name["yes"] == ["yes", "no"]
    assert by_name["seeds"] == ["+0.10  -0.25", "+1.00  +2.00"]
    assert by_name["counts"] == ["    1  2,000", "3  4"]
    assert by_name["small"] == ["0.00", "2.00"]
    assert by_name["tiny"] == ["1.70e-09", "0.00e+00"]
    assert by_name["gap (s)"] == ["1.50", "missing"]
    assert by_name["whole"] == ["12,345", "-3"]
    assert by_name["spread"] == ["0.60 (-0.67 to 1.87)", "0.00 (-3.18 to 3.18)"]
    assert "All kinds &lt; 3 &amp; more.</caption>" in table.html
    assert table.html.count('scope="col"') == 12
    assert table.html.count('scope="row"') == 2


def test_the_first_column_names_the_rows():
    table = show.table({"damping": [0.0001, 0.1, 5], "y": [1, 2, 3]}, caption="c", decimals=2)
    assert table.shown[0].texts == ["0.0001", "0.1", "5"]
    assert repr(table).splitlines()[2] == " 0.0001  1"
    names = [1234567, 1234567.0, 0.12345678, 0.1 + 0.2, torch.tensor(0.1)]
    table = show.table({"a": names, "y": names}, caption="c")
    assert table.shown[0].texts == ["1234567", "1234567", "0.12345678", "0.3", "0.1"]


def test_a_hyphen_in_a_word_is_no_minus():
    table = show.table({"a": [1, 2, 3], "y": [-0.5, -math.inf, "one-shot"]}, caption="c")
    assert [row[1] for row in cells(table)[1:]] == ["−0.500", "−infinite", "one-shot"]


def test_a_frame_records_and_columns_give_the_same_table():
    columns = {"arm": ["a", "b"], "y": [0.5, None], "n": [1, 2]}
    records = [{"arm": "a", "y": 0.5, "n": 1}, {"arm": "b", "n": 2}]
    one, two = (repr(show.table(data, caption="c")) for data in (columns, records))
    assert one == two
    frame = repr(show.table(pd.DataFrame(columns), caption="c"))  # pandas has NaN for None
    assert frame.replace("not a number", "missing").split() == one.split()


def test_records_of_arms():
    found = {"OBD": interval([[1, 2], [3, 4]]), "random": [0.5, 0.25]}
    rows = show.records("method", found, [0.5, 0.9], only=[0.9])
    assert rows[1] == {"method": "random", "0.9": 0.25}
    assert list(rows[0]) == ["method", "0.9"]
    assert float(rows[0]["0.9"].mean) == 3


WRONG = {
    "data must be records .a list of dicts., a dict of columns or a DataFrame, got 3": {"data": 3},
    "data must be records": {"data": []},
    "same number of rows, at least 1, got {'a': 1, 'b': 2}": {"data": {"a": [1], "b": [1, 2]}},
    "at least 1, got {'a': 0}": {"data": {"a": []}},
    "a column must be a list, got 'word'": {"data": {"a": "word"}},
    "column 'b', row 2 must be a number, .*got {'x': 1}": {
        "data": {"a": [1, 2], "b": [1, {"x": 1}]}
    },
    r"column 'b', row 1 must be .*got a float64 tensor \(2,\)": {
        "data": {"a": [1], "b": [torch.ones(2, dtype=torch.float64)]}
    },
    "column 'b', row 1 must be .*got 1j": {"data": {"a": [1], "b": [1j]}},
    "column 'b', row 1 is an empty list": {"data": {"a": [1], "b": [[]]}},
    "caption must say what the table shows": {"caption": " "},
    "units names the column 'z'; there are a, b": {"units": {"z": "s"}},
    "digits names the column 'z'": {"digits": {"z": 3}},
    "decimals names the column 'z'": {"decimals": {"z": 3}},
    "signed names the column 'z'": {"signed": ["z"]},
    "best names the column 'z'": {"best": {"z": "max"}},
    "best of 'b' must be 'max' or 'min', got 'most'": {"best": "most"},
    "column 'b' holds words or lists": {"data": {"a": [1], "b": ["x"]}, "best": {"b": "max"}},
    "digits must be a whole number from 1 to 17, got 0": {"digits": 0},
    "column needs a name of its own, got 1, 1": {"data": {1: [1], "1": [2]}},
    "column needs a name of its own, got 2, 2": {"data": [{2: 1, "2": 2}]},
    "column needs a name of its own, got a, a": {
        "data": pd.DataFrame([[1, 2]], columns=["a", "a"])
    },
    r"got Index\(\['OBD'\].*use reset_index": {"data": pd.DataFrame({"a": [1]}, index=["OBD"])},
    "decimals must be a whole number from 0 to 17, got -1": {"decimals": -1},
}


@pytest.mark.parametrize("says", WRONG)
def test_what_cannot_be_shown_is_refused_by_name(says):
    good = {"data": {"a": [1, 2], "b": [0.5, 0.25]}, "caption": "c"}
    given_ = good | WRONG[says]
    with pytest.raises((TypeError, ValueError), match=says):
        show.table(given_.pop("data"), **given_)


def test_arms_without_a_value_for_each_place_are_refused():
    with pytest.raises(ValueError, match="'OBD' has 1 values for 2 columns"):
        show.records("method", {"OBD": [1]}, [1, 2])
    with pytest.raises(ValueError, match="a name of its own, got method, 1, 1"):
        show.records("method", {"OBD": [1, 2]}, [1, 1])
    with pytest.raises(ValueError, match=r"only names 0.3; there are 0.5, 0.9"):
        show.records("method", {"OBD": [1, 2]}, [0.5, 0.9], only=[0.3])
