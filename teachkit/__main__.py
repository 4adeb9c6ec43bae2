"""``python -m teachkit lab | test | notebooks | bench | mutants``: standard library only until set up."""

import sys

if sys.version_info < (3, 11):  # kept free of newer syntax, so that an old Python can say this
    sys.exit(
        "This course needs Python 3.11 or newer; %s is %s.\n"
        "Install a newer Python (https://www.python.org/downloads/) and run the same command with it."
        % (sys.executable, sys.version.split()[0])
    )

from teachkit.course.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
