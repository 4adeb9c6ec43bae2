"""Where things lie: the course, its notebooks, and the folder that is the learner's own.

Standard library only, and no import of ours: the commands use it before anything is installed.
"""

import os
from pathlib import Path

VARIABLE = "TEACHKIT_WORK"


def root(package: Path | None = None) -> Path | None:
    """The folder of the course, which holds ``notebooks`` and environment.yml.

    A package that was installed without its course has none.

    >>> (root() / "notebooks").is_dir()
    True
    """
    folder = (package or Path(__file__).resolve().parents[1]).parent
    found = (folder / "notebooks").is_dir() and (folder / "environment.yml").is_file()
    return folder if found else None


def work(course: Path | None = None) -> Path | None:
    """The folder with the learner's notebooks and progress, or None where nothing is kept.

    It is ``work`` in the folder of the course, or what the variable TEACHKIT_WORK names; a name that
    begins at no root is meant from the folder of the course. An empty TEACHKIT_WORK keeps nothing.
    Nor does a package without its course, unless the variable names a folder: the working folder of
    a program that only uses the package is no place for files of ours.

    >>> work(Path("/course")) in (None, Path("/course/work"))
    True
    """
    course = course or root()
    given = os.environ.get(VARIABLE)
    if given is None:
        return course / "work" if course else None
    if not given.strip():
        return None
    return (course or Path.cwd()) / os.path.expanduser(given.strip())


def within(course: Path, folder: Path) -> bool:
    """Whether JupyterLab, opened in the course, shows the folder; it hides what begins with a dot.

    >>> within(Path("/course"), Path("/course/work")), within(Path("/course"), Path("/my/work"))
    (True, False)
    """
    inside = folder.relative_to(course).parts if folder.is_relative_to(course) else (".",)
    return not any(part.startswith(".") for part in inside)
