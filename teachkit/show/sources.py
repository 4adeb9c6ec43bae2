"""Print the tested function where the learner should read it."""

import inspect
from collections.abc import Callable
from typing import Any


class Source:
    """The source text of a function: highlighted as Markdown, plain elsewhere."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"


def source(function: Callable[..., Any], *, docstring: bool = False) -> Source:
    """Show the code of a function or class as it runs and is tested.

    Args:
        function: anything ``inspect`` finds a source for.
        docstring: keep the docstring; without it the code fits on a slide.

    """
    try:
        text = inspect.getsource(function).rstrip()
    except (TypeError, OSError) as error:
        raise TypeError(f"{function!r} has no Python source to show") from error
    found = inspect.getdoc(function)
    if found and not docstring and text.count('"""') >= 2:
        before, _, rest = text.partition('"""')
        text = before.rstrip(" r") + rest.partition('"""')[2].removeprefix("\n")
    return Source(text)
