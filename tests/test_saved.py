"""What JupyterLab's server leaves out when it saves a notebook."""

from teachkit.course import saved


def bundle(name):
    return {saved.VIEW: {"model_id": name}, "text/html": "<p>Run this cell.</p>"}


def test_a_widget_with_its_state_stays_and_one_without_leaves_its_html():
    cells = [{"outputs": [{"data": bundle("a")}, {"data": bundle("b")}]}, {"source": "text"}]
    state = {"widgets": {saved.STATE: {"state": {"a": {}}}}}
    saved.before_saving(
        model={"type": "notebook", "content": {"metadata": state, "cells": cells}}, path="x"
    )
    kept, lost = cells[0]["outputs"]
    assert kept["data"] == bundle("a")
    assert lost["data"] == {"text/html": "<p>Run this cell.</p>"}


def test_a_widget_that_has_nothing_else_stays_and_other_files_are_left_alone():
    data = {saved.VIEW: {"model_id": "a"}}
    assert saved.drop_lost({"metadata": {}, "cells": [{"outputs": [{"data": data}]}]}) == 0
    assert saved.VIEW in data
    for model in ({"type": "file", "content": "text"}, {"type": "notebook", "content": None}):
        before = dict(model)
        saved.before_saving(model=model)
        assert model == before
