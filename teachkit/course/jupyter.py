"""How JupyterLab opens the course: its settings, its first layout, its command line.

Standard library only, because the set-up uses it before anything is installed.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from teachkit.core import files, places
from teachkit.course import saved

START = "00_start.ipynb"
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    # Each cell is there from the start, so that Run All draws what is out of sight, too.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "contentVisibility"},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
}
# No setting opens the table of contents; the layout of a workspace does, and it has this file's name.
WORKSPACE = "default-37a8.jupyterlab-workspace"
CONTENTS = "@jupyterlab/toc:plugin"
SIDE = ["filebrowser", "running-sessions", CONTENTS, "extensionmanager.main-view"]
LEFT = {"collapsed": False, "visible": True, "current": CONTENTS, "widgets": SIDE}
LAYOUT = {"data": {"layout-restorer:data": {"left": LEFT}}, "metadata": {"id": "default"}}


def settle(venv: Path) -> None:
    """Put our settings into the environment, where they say otherwise; without the right to, go on."""
    file, text = venv / "share/jupyter/lab/settings/overrides.json", json.dumps(SETTINGS, indent=1)
    with suppress(OSError):
        if not file.is_file() or file.read_bytes() != text.encode():
            files.replace(file, text)


def workspaces(work: Path) -> Path:
    """The folder of the course's own layouts, apart from those of the learner's other work."""
    return work / ".jupyterlab"


def lay_out(work: Path) -> None:
    """Open the table of contents at the first start; from then on the layout is the learner's."""
    with suppress(OSError):
        workspaces(work).mkdir(exist_ok=True)
        files.create(workspaces(work) / WORKSPACE, json.dumps(LAYOUT).encode())


def command(root: Path, rest: Sequence[str]) -> list[str]:
    """The arguments of Python that open the learner's copy of the first lesson.

    >>> command(Path("/course"), [])[1]
    'jupyterlab'
    """
    work = places.work(root)
    folder = root / "notebooks" if work is None else work
    top = root if places.within(root, folder) else folder
    address = "/".join(["/lab/tree", *map(quote, (folder / START).relative_to(top).parts)])
    options = [f"--LabApp.default_url={address}", f"--ServerApp.root_dir={top}"]
    options.append(f"--ContentsManager.pre_save_hook={saved.HOOK}")
    may_be_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return ["-m", "jupyterlab", *options, *may_be_root, *rest]


def variables(root: Path) -> dict[str, str]:
    """What JupyterLab finds in its environment, unless the learner has set it."""
    work = places.work(root)
    return {} if work is None else {"JUPYTERLAB_WORKSPACES_DIR": str(workspaces(work))}
