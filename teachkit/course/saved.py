"""What JupyterLab saves of a notebook's widgets: none without the state that shows it again.

After a restart of the kernel JupyterLab forgets its widgets, and saves their outputs without what
they hold. Opened again, each would be "model not found". Without the widget, its static HTML stands.

Standard library only: JupyterLab's server runs it.
"""

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
HOOK = f"{__name__}.before_saving"


def before_saving(model: dict[str, Any], **_rest: Any) -> None:
    """Drop the widgets that have no state from a notebook that is about to be saved."""
    if model.get("type") == "notebook" and isinstance(model.get("content"), dict):
        drop_lost(model["content"])


def drop_lost(notebook: dict[str, Any]) -> int:
    """Leave to each widget without a state its HTML or text; how many there were.

    >>> bundle = {VIEW: {"model_id": "a"}, "text/html": "<p>Run this cell.</p>"}
    >>> drop_lost({"metadata": {}, "cells": [{"outputs": [{"data": bundle}]}]}), bundle
    (1, {'text/html': '<p>Run this cell.</p>'})
    """
    held = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    lost = [
        data
        for data in _shown_as_widgets(notebook)
        if data[VIEW].get("model_id") not in held and len(data) > 1
    ]
    for data in lost:
        del data[VIEW]
    return len(lost)


def _shown_as_widgets(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of all outputs that are widgets, by MIME type."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if VIEW in output.get("data", {})]
