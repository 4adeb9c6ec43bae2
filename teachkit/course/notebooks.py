"""Re-execute notebooks and write the canonical form: the same bytes every time.

``python -m teachkit notebooks [NN …]``; a notebook that raises is not written.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from teachkit.core import files, places
from teachkit.course.setup import ROOT

FOLDER = ROOT / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
KEPT = ("jupyter", "slideshow", "tags")
MAX_BYTES = 400_000
QUIET = {"TQDM_DISABLE": "1"}  # no progress bar gets into what is stored


class NotebookError(Exception):
    """A notebook cannot be written; the message says which one and why."""


def canonical(notebook: NotebookNode) -> str:
    """The text of a notebook in canonical form.

    Kept are sources, cell ids, outputs, and the metadata ``jupyter``, ``slideshow`` and ``tags``;
    gone are widget state and views, timings, and empty cells. More than 400 kB is a NotebookError.
    """
    made = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": LANGUAGE})
    made.nbformat_minor = 5
    made.cells = [_cell(cell) for cell in notebook.cells if cell.source.strip()]
    nbformat.validate(made)
    text: str = nbformat.writes(made)
    if len(text.encode()) > MAX_BYTES:
        raise NotebookError(
            f"the notebook has {len(text.encode()):,} bytes; at most {MAX_BYTES:,} are allowed: "
            "make its figures smaller or fewer"
        )
    return text + "\n"


def _cell(cell: NotebookNode) -> NotebookNode:
    metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
    kept = NotebookNode(id=cell.id, cell_type=cell.cell_type, metadata=metadata)
    kept.source = cell.source.rstrip()
    if cell.cell_type == "code":
        kept.execution_count = cell.execution_count
        kept.outputs = _outputs(cell.outputs)
    return kept


def _outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Without widgets, printed text in one piece: where the kernel cuts it depends on the clock."""
    joined: list[NotebookNode] = []
    for output in map(NotebookNode, outputs):
        if output.get("data") == {}:
            continue  # where a progress bar was
        if "data" in output:
            output.data = {mime: x for mime, x in output.data.items() if mime != WIDGET_VIEW}
            output.metadata = {}
        if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def execute(path: Path) -> str:
    """Run a notebook top to bottom on a fresh kernel; its canonical text, or a NotebookError."""
    return canonical(run(path, nbformat.read(path, as_version=4)))


def run(path: Path, notebook: NotebookNode, **variables: str) -> NotebookNode:
    """Run the cells of a notebook, in its folder, on a fresh kernel; a NotebookError if one raises."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        timeout=600,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(env={**os.environ, **QUIET, **variables})
    except CellExecutionError as error:
        raise NotebookError(
            f"{path.name} was not written, because a cell raised {error.ename}: {error.evalue}\n{error}"
        ) from error
    except DeadKernelError as error:
        raise NotebookError(f"{path.name} was not written, because its kernel died") from error
    return notebook


def write(path: Path) -> bool:
    """Re-execute a notebook in place; True when a byte changed."""
    before = path.read_text("utf-8")
    after = execute(path)
    if after != before:
        files.replace(path, after)
    return after != before


def select(names: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks that these names begin, all without names.

    >>> [path.stem for path in select(["03"])]
    ['03_masks']
    """
    books = sorted(folder.glob("*.ipynb"))
    stems = [book.stem for book in books]
    unknown = [name for name in names if not any(stem.startswith(name) for stem in stems)]
    if unknown:
        raise NotebookError(f"no notebook begins with {unknown[0]!r}; there are {', '.join(stems)}")
    return [book for book in books if book.stem.startswith(tuple(names) or "")]


def main(arguments: Iterable[str]) -> int:
    """The command ``python -m teachkit notebooks``."""
    parser = argparse.ArgumentParser("python -m teachkit notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NN", help="e.g. 01 03; all without a name")
    given = parser.parse_args(list(arguments))
    # As under nbval: one thread, the notebook's own folder, and nobody's progress.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[places.VARIABLE] = ""
    try:
        for path in select(given.names):
            print(f"{path.name} …", end=" ", flush=True)
            print("written" if write(path) else "unchanged", flush=True)
    except NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
