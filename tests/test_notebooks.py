"""What nbval cannot see in a stored notebook; each check is shown to be able to fail."""

import ast
import base64
import copy
import io
import re
import statistics
import symtable
import urllib.parse

import matplotlib.image
import nbformat
import numpy as np
import pytest

from teachkit.core.bars import NOTE
from teachkit.course.notebooks import FOLDER, canonical

BOOKS = sorted(FOLDER.glob("*.ipynb"))
TAGS = {"exercise", "check", "solution", "nbval-ignore-output", "show-input", "appendix"}
SLIDES = {"slide", "subslide", "fragment", "skip", "notes"}
MACHINE = re.compile(r"0x[0-9a-f]{8,}|/tmp/|/home/|/root/|/work/|[A-Z]:\\\\")
DIGITS = re.compile(r"(?<![\w.])\d+\.\d{7,}")
TABLED = ["02_taylor", "05_obs", "11_paradox"]  # lessons whose cells format no number by hand
LONGEST = 12  # lines of a code cell of theirs
ANATOMY = [
    "**The question**: ",
    "**You will**",
    "**You will be able to**",
    "**You need**",
    "## In practice",
    "## Exercises",
    "## Further reading",
]


def read(path):
    return nbformat.read(path, as_version=4)


def blank(data):
    """A picture with (nearly) no ink."""
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))[..., :3]
    return float((np.abs(image - image[0, 0]).max(-1) > 0.05).mean()) < 0.01


def problems(book, folder=FOLDER):
    """Everything that is wrong with a notebook, a line each."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        for problem in code_problems(cell, count):
            yield f"{cell.id}: {problem}"
    for cell in book.cells:
        tags = set(cell.metadata.get("tags", []))
        slide = cell.metadata.get("slideshow", {}).get("slide_type")
        if tags - TAGS or (slide and slide not in SLIDES):
            yield f"{cell.id}: unknown tag or slide type {sorted(tags - TAGS)} {slide}"
        if cell.cell_type == "markdown":
            yield from (f"{cell.id}: {p}" for p in text_problems(cell.source, folder))
    yield from book_problems(book, code)


def code_problems(cell, count):
    tags = set(cell.metadata.get("tags", []))
    if cell.execution_count != count:
        yield f"execution count {cell.execution_count}, not {count}: nbval would check nothing"
    if cell.source.rstrip().endswith(";"):
        yield "a trailing ';' does not hide output under nbval"
    if len(cell.source.splitlines()) > 20:
        yield "more than 20 lines"
    if re.search(r"^\s*class |^def |lambda .*:", cell.source, re.M) and not tags & {
        "exercise",
        "solution",
    }:
        yield "a function or class outside an exercise: it belongs into teachkit"
    if "solution" in tags and not cell.metadata.get("jupyter", {}).get("source_hidden"):
        yield "the solution is not folded"
    for output in cell.outputs:
        yield from output_problems(output)


def output_problems(output):
    data = output.get("data", {})
    plain = str(output.get("text", "")) + str(data.get("text/plain", ""))
    if output.output_type == "error":
        yield f"a stored error: {output.ename}"
    if output.get("name") == "stderr":
        yield "text on stderr"
    if MACHINE.search(plain) or DIGITS.search(plain):
        yield f"an address, a path or too many digits: {plain[:80]!r}"
    if any(mime.startswith("image/") for mime in data):
        yield "a picture without alt text: use teachkit.show"
    page = data.get("text/html", "")
    if re.search(r"https?://", page):
        yield "the output loads from the network"
    for image in re.findall(r"<img[^>]*>", page):
        found = re.search(r'src="data:image/png;base64,([^"]+)" alt="[^"]{20,}"', image)
        if not found:
            yield "an <img> without alt text or with a foreign source"
        elif blank(found.group(1)):
            yield "a blank picture"


def text_problems(source, folder):
    for target in re.findall(r"\]\(([^)\s]+)\)", source):
        link = urllib.parse.urlsplit(target)
        if not link.scheme and not (folder / urllib.parse.unquote(link.path)).exists():
            yield f"dead link {target}"
    if re.search(r"!\[\]\(", source):
        yield "an image without alt text"


def names(source):
    """The global names that a cell binds, and those that it reads without binding them."""
    top = symtable.symtable(re.sub(r"^%.*$", "pass", source, flags=re.M), "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    return bound, reads(top) - bound


def reads(scope):
    """The global names that a scope and the scopes inside it read."""
    outermost = scope.get_type() == "module"
    here = {s.get_name() for s in scope.get_symbols() if s.is_referenced()}
    if not outermost:
        here = {name for name in here if scope.lookup(name).is_global()}
    return here.union(*map(reads, scope.get_children()))


def rebound(code):
    """Names that a cell takes from an earlier cell and that a later one binds to something else."""
    of = [(cell.id, *names(cell.source)) for cell in code if cell.source.strip()]
    for k, (cell, _, free) in enumerate(of):
        before = set().union(*(bound for _, bound, _ in of[:k]))
        for later, bound, _ in of[k + 1 :]:
            yield from (f"{cell}: {later} binds {n} anew" for n in free & before & bound)


def book_problems(book, code):
    yield from rebound([c for c in code if "solution" not in c.metadata.get("tags", [])])
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    yield from (f"the anatomy lacks {part}" for part in ANATOMY if part not in text)
    if not re.match(r"# \w+", book.cells[0].source) or "minutes" not in book.cells[0].source:
        yield "no title or no minutes"
    lengths = [len(NOTE.sub("", cell.source).strip().splitlines()) for cell in code]
    if statistics.median(lengths) > 4:
        yield "code cells are longer than 4 lines in the median"
    if not any("show.explore(" in cell.source for cell in code):
        yield "no explorer"
    slides = [c for c in book.cells if c.metadata.get("slideshow", {}).get("slide_type") == "slide"]
    if not 5 <= len(slides) <= 20:
        yield f"{len(slides)} slides"


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_hygiene(path):
    assert list(problems(read(path))) == []


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_stored_form_is_canonical(path):
    text = path.read_text("utf-8")
    assert canonical(nbformat.reads(text, as_version=4)) == text
    assert len({cell.id for cell in read(path).cells}) == len(read(path).cells)


def by_hand(source):
    """What a cell writes by hand that ``show.table`` writes the same way everywhere."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    loops = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
    if any(isinstance(n, ast.FormattedValue) and n.format_spec for n in nodes):
        yield "a format in an f-string"
    shares = [n.left for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod)]
    if any(isinstance(left, ast.Constant) and isinstance(left.value, str) for left in shares):
        yield "a % format"
    if any(isinstance(f, ast.Name) and f.id in ("round", "format") for f in calls):
        yield "a rounded number"
    if any(isinstance(f, ast.Attribute) and f.attr in ("format", "rjust", "ljust") for f in calls):
        yield "a formatted text"
    if any(printed(inner) for n in nodes if isinstance(n, loops) for inner in ast.walk(n)):
        yield "lines printed in a loop"
    if sum(map(printed, nodes)) > 2:
        yield "more than two lines printed"


def printed(node):
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


@pytest.mark.parametrize("stem", TABLED)
def test_no_cell_formats_numbers_by_hand(stem):
    code = [cell for cell in read(FOLDER / f"{stem}.ipynb").cells if cell.cell_type == "code"]
    assert [(cell.id, problem) for cell in code for problem in by_hand(cell.source)] == []
    assert [cell.id for cell in code if len(cell.source.splitlines()) > LONGEST] == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("print(f'{x:.3f}')", "a format in an f-string"),
        ("print('%.3f' % x)", "a % format"),
        ("print([round(v, 3) for v in x])", "a rounded number"),
        ("print('{:.3f}'.format(x))", "a formatted text"),
        ("for v in x:\n    print(v)", "lines printed in a loop"),
        ("print(1)\nprint(2)\nprint(3)", "more than two lines printed"),
    ],
)
def test_numbers_formatted_by_hand_are_noticed(source, says):
    assert list(by_hand(source)) == [says]
    assert list(by_hand("print(weights)\nname = f'lesson {n}'")) == []


def picture_cell(book):
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if "<img" in output.get("data", {}).get("text/html", ""):
                return output
    raise AssertionError("no picture in the notebook")


def whiten(book):
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    plt.imsave(file, np.ones((40, 60, 3)), format="png")
    white = base64.b64encode(file.getvalue()).decode()
    output = picture_cell(book)
    page = output["data"]["text/html"]
    output["data"]["text/html"] = re.sub(r"base64,[^\"]+", f"base64,{white}", page)


def first_code(book):
    return next(cell for cell in book.cells if cell.cell_type == "code")


DAMAGE = {
    "nbval would check nothing": lambda b: first_code(b).update(execution_count=None),
    "trailing ';'": lambda b: first_code(b).update(source=first_code(b).source + ";"),
    "more than 20 lines": lambda b: first_code(b).update(source="x = 1\n" * 21),
    "outside an exercise": lambda b: first_code(b).update(source="def f():\n    pass"),
    "unknown tag": lambda b: first_code(b).metadata.update(tags=["nbval-skip"]),
    "dead link": lambda b: b.cells[0].update(source=b.cells[0].source + "[x](nowhere.ipynb)"),
    "blank picture": whiten,
    "without alt text or": lambda b: picture_cell(b)["data"].update(
        {"text/html": '<img src="a.png">'}
    ),
    "without alt text:": lambda b: picture_cell(b)["data"].update({"image/png": "x"}),
    "from the network": lambda b: picture_cell(b)["data"].update({"text/html": "https://x"}),
    "too many digits": lambda b: picture_cell(b)["data"].update(
        {"text/plain": "loss 0.12345678901"}
    ),
    "a path": lambda b: picture_cell(b)["data"].update({"text/plain": "/home/me"}),
    "anatomy lacks ## Exercises": lambda b: [
        c.update(source="x") for c in b.cells if "## Exercises" in c.source
    ],
    "no title": lambda b: b.cells[0].update(source="title"),
    "is not folded": lambda b: [c.metadata.pop("jupyter", None) for c in b.cells],
    "binds setup anew": lambda b: b.cells.extend(
        nbformat.v4.new_code_cell(source) for source in ("setup = 1", "print(setup)", "setup = 2")
    ),
    "no explorer": lambda b: [c.update(source="x") for c in b.cells if "show.explore" in c.source],
    "stderr": lambda b: first_code(b).outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="w")
    ),
    "stored error": lambda b: first_code(b).outputs.append(
        nbformat.v4.new_output("error", ename="E")
    ),
}


@pytest.mark.parametrize("says", DAMAGE)
def test_each_damage_is_noticed(says):
    book = copy.deepcopy(read(BOOKS[2]))
    DAMAGE[says](book)
    assert says in "\n".join(problems(book))
