"""How Sphinx makes the website: its settings, and what this extension adds to a page."""

import ast
import inspect
import re
import textwrap
from typing import Any

from sphinx.application import Sphinx

from teachkit.course.site_pages import WEB
from teachkit.show import predictions

TITLE = "Neural network pruning"
SETTINGS: dict[str, Any] = {
    "project": TITLE,
    "author": "teachkit",
    "copyright": "CC BY 4.0",
    "language": "en",
    "extensions": [
        "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax",
        "sphinx.ext.githubpages", "teachkit.course.site_sphinx",
    ],
    "exclude_patterns": ["downloads"],
    "html_theme": "sphinx_book_theme",
    "html_title": TITLE,
    "html_static_path": [str(WEB / "static"), str(WEB.parent / "vendor" / "mathjax" / "es5")],
    "html_favicon": str(WEB / "static" / "icon.svg"),
    "html_context": {"default_mode": "auto"},
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_sphinx": False,
    "html_theme_options": {
        "use_download_button": False,
        "use_fullscreen_button": False,
        "navbar_persistent": [],  # else the search stands there twice
        "show_toc_level": 2,
    },
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "gfm",
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide it",
    "myst_enable_extensions": ["amsmath", "attrs_block", "deflist", "dollarmath"],
    "myst_heading_anchors": 4,
    "mathjax_path": "tex-svg.js",
    "mathjax3_config": {"tex": {"inlineMath": [["\\(", "\\)"]]}, "options": {"enableMenu": False}},
    "autodoc_typehints": "signature",
    "autodoc_member_order": "bysource",
    "add_module_names": False,
}  # fmt: skip
ALIAS = "Alias for field number"
BASE, SHORT = r"(?<![\w.])([A-Za-z\u0370-\u03ff])", r"[A-Za-z0-9\u0370-\u03ff]"
INDEX = re.compile(rf"{BASE}_(?:\{{([^}}]+)\}}|({SHORT}{{1,3}}))(?![A-Za-z0-9_(])")
POWER = re.compile(rf"\^(?:\{{([^}}]+)\}}|({SHORT}))(?![A-Za-z0-9_])")
ALIVE = re.compile(r'class="[^"]*\bteachkit-(question|reveal|explorer)\b')


def formulas(line: str) -> str:
    r"""A line of a docstring as reStructuredText: |w| is an absolute value, w_i has an index.

    >>> print(formulas("Σ_j |w_ij|², ``|w_i|``, keep_top, a^k."))
    Σ\ :sub:`j`\  \|w\ :sub:`ij`\ \|², ``|w_i|``, keep_top, a\ :sup:`k`\ .
    """
    parts = re.split(r"(`+.*?`+)", line)
    return "".join(part if part.startswith("`") else _formula(part) for part in parts)


def _formula(text: str) -> str:
    text = INDEX.sub(lambda m: rf"{m[1]}\ :sub:`{m[2] or m[3]}`\ ", text.replace("|", r"\|"))
    return POWER.sub(lambda m: rf"\ :sup:`{m[1] or m[2]}`\ ", text)


def docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Write the formulas of a docstring as such; its examples stay as they are."""
    code = False
    for i, line in enumerate(lines):
        code = line.lstrip().startswith(">>>") or (code and bool(line.strip()))
        lines[i] = line if code else formulas(line)


def signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: str | None, back: str | None
) -> tuple[str, str] | None:
    """A function's parameters as its source has them: ``Batch`` and ``cross_entropy``, not what they are."""
    thing = inspect.unwrap(thing)
    if not inspect.isfunction(thing) or thing.__name__ == "<lambda>":
        return None
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    except (OSError, TypeError):
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    arguments = ast.unparse(tree.args)
    if what == "method":
        arguments = re.sub(r"^(self|cls)(, |$)", "", arguments)
    return f"({arguments})", ast.unparse(tree.returns) if tree.returns else ""


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple: the line above them lists them already."""
    return True if (getattr(thing, "__doc__", "") or "").startswith(ALIAS) else None


def enliven(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Give a page with questions, covers or explorers the script that brings them to life, once."""
    if ALIVE.search(context.get("body", "")):
        context["body"] += predictions.page_script()


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what this extension does."""
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("html-page-context", enliven)
    app.add_css_file("site.css")
    app.add_js_file("site.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
