"""The glossary and the formula sheet agree with the lessons, with the code and with each other."""

import importlib
import inspect
import re

import nbformat
import pytest

from teachkit.core import places
from teachkit.course import glossary, numbers
from teachkit.course.setup import ROOT

BOOKS = {
    path.stem: nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
}
DOCS = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TERMS, FORMULAS = glossary.terms(), glossary.formulas()
NAMES = {name.lower() for name in TERMS}

# Words that a lesson sets in italics and that stand in the glossary under another name.
UNDER = {
    "column": "granularity",
    "extremum": "critical point",
    "Gauss–Newton": "Gauss-Newton matrix",
    "fine-tune": "fine-tuning",
    "global": "global ranking",
    "Magnitude + refit": "repair",
    "Masked": "mask",
    "order": "rank correlation",
    "restarted": "pruning schedule",
    "row": "granularity",
    "sampled": "sampled Fisher matrix",
    "signed": "signed Taylor criterion",
    "Signed Taylor": "signed Taylor criterion",
    "Random": "random-baseline paradox",
}
# What the lesson that introduces a term says in its place.
OTHER_WORDS = {
    "confidence interval": "interval",
    "Hessian-vector product": "H\\delta",
    "local maximum": "maximum",
    "local minimum": "minimum",
    "structured pruning": "whole units",
}
# Words in italics because the sentence leans on them: no terms.
WORDS = """
absolute agree all and any arrives averaged before bend better biases both byte centred copy
decrease empty every exact exactly help impossible interact interpretable is it lower measures
negative nothing outputs own product push raise rises same samples say second set small sum up
weight what which whole will within worse yes your
"""
STRESSED = {
    *WORDS.split(),
    "as large",
    "barely affects",
    "because the other is there",
    "Error",
    "exclusive or",  # the function of two bits, explained there
    "far worse than random",
    "from the network itself",
    "one layer at a time",
    "one number",
    "one small step",
    "Same",
    "same number of epochs",
    "share of what is left",
    "tenth of the rate",
    "that are left",
    "The best tenth shared",
    "sum of single predictions",
    "very same",
    "without changing the output",
    "without retraining",
    "worse than magnitude",
}


def prose(book):
    """The text of a lesson up to its references, without code."""
    text = "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    return re.sub(r"`[^`]*`", "", text.partition("## Further reading")[0])


def maths(text):
    """What stands between dollars."""
    return re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", text, re.S)


def italics(text):
    words = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
    words = re.sub(r"\$[^$]*\$", "n", words)
    return re.findall(r"(?<!\*)\*(?! )([^*\n\"]+)\*(?!\*)", words)


def known(word):
    """Whether the glossary has the word, in the singular or the plural."""
    said = word.lower().replace("–", "-").rstrip(".")
    return any(form in NAMES for form in (said, said.removesuffix("s"), said + " pruning"))


# The terms -------------------------------------------------------------------------------------


def test_terms_are_in_alphabetical_order_and_named_once():
    names = re.findall(r"^## (.+)", DOCS["glossary"], re.M)[:-1]
    assert names == sorted(names, key=str.lower)
    assert len({term.anchor for term in TERMS.values()}) == len(names) == len(TERMS)


@pytest.mark.parametrize("term", TERMS.values(), ids=list(TERMS))
def test_a_term_is_one_to_three_plain_sentences_and_its_lesson_uses_it(term):
    assert 1 <= len(re.findall(r"[.](?:\s|$)", term.text)) <= 3
    assert term.text[0].isupper()
    text = re.sub(r"[–-]", " ", prose(BOOKS[term.lesson])).lower()
    words = re.split(r"[\s-]+", term.name.lower())
    if term.name in OTHER_WORDS:
        words = [OTHER_WORDS[term.name].lower()]
    assert [word for word in words if word[:5] not in text] == []


@pytest.mark.parametrize("stem", BOOKS)
def test_each_lesson_introduces_a_term_and_has_its_terms_in_the_glossary(stem):
    assert any(term.lesson == stem for term in TERMS.values())
    new = [
        word
        for word in italics(prose(BOOKS[stem]))
        if not known(word) and word not in UNDER and word not in STRESSED
    ]
    assert new == [], "explain them in docs/glossary.md, or list them here as no terms"


def test_the_lists_of_other_words_have_none_too_many():
    used = {word for book in BOOKS.values() for word in italics(prose(book))}
    assert {*UNDER} | STRESSED <= used
    assert not any(known(word) for word in {*UNDER} | STRESSED)
    assert set(UNDER.values()) <= set(TERMS)


def test_a_new_term_in_a_lesson_is_noticed():
    text = "A *mask*, a *Gauss–Newton matrix*, *critical points*, a *wombat*: 2 * 3 * 4, **bold**."
    assert [word for word in italics(text) if not known(word)] == ["wombat"]


def test_the_vocabulary_of_the_course_is_that_of_its_code():
    """Sparsity counts zeros, True keeps, a larger score stays: as the functions do it."""
    import torch

    from teachkit import masks

    kept = {"w": torch.tensor([True, True, True, False])}
    assert masks.sparsity(kept) == 0.25
    assert TERMS["sparsity"].text.startswith("The fraction of the weights that are zero")
    assert "`True` where the weight stays" in TERMS["mask"].text
    assert masks.keep_top({"w": torch.tensor([1.0, 2.0])}, 0.5)["w"].tolist() == [False, True]
    assert "A larger score stays" in TERMS["score"].text
    assert "one minus the sparsity" in TERMS["density"].text


def test_the_korean_words_are_in_the_entries_and_in_the_table():
    table = {english: words for english, words, _ in glossary.korean()}
    assert {name: it.korean for name, it in TERMS.items() if it.korean} == {
        name: words for name, words in table.items() if name in TERMS
    }
    assert list(table) == sorted(table)
    assert table["local maximum"] == "극대"
    assert table["local minimum"] == "극소"
    for words in table.values():
        assert re.fullmatch(r"[\d가-힣 ,]+", words)


# The formulas ----------------------------------------------------------------------------------


def test_every_lesson_with_formulas_has_a_section_in_their_order():
    found = list(dict.fromkeys(it.lesson for it in FORMULAS))
    assert found == [stem for stem in BOOKS if stem != "00_start"]


@pytest.mark.parametrize("it", FORMULAS, ids=lambda it: f"{it.lesson[:2]} {it.name}")
def test_a_formula_names_the_function_that_computes_it_and_says_where_it_is_from(it):
    said = ""
    for name in it.code:
        module, _, function = name.rpartition(".")
        home = importlib.import_module(module)
        assert callable(getattr(home, function))
        assert module == f"teachkit.{it.lesson[3:]}"
        said += f"{inspect.getdoc(home)} {inspect.getdoc(getattr(home, function))}"
    for year in re.findall(r"\b[12]\d{3}\b", it.source):
        assert year in said
    for detail in re.findall(r"(?:equation|algorithm|section) \d", it.source):
        assert detail in said.lower()
    for author in re.findall(r"\b[A-Z][a-z]{3,}\b", re.sub(r"\*.*?\*", "", it.source)):
        assert author in said


def token(symbol):
    """A symbol of TeX that is no part of a longer name."""
    before = r"(?<![A-Za-z\\])" if symbol[0] != "\\" else ""
    return re.compile(before + re.escape(symbol) + r"(?![A-Za-z])")


def notation():
    """The symbols of the table with the lesson that has them."""
    table = DOCS["formulas"].partition("Some letters have a second role")[0]
    rows = re.findall(
        r"^\| (\$.+?) \| .+ \| \[\d\d\]\(\.\./notebooks/(\w+)\.ipynb\) \|$", table, re.M
    )
    return [(symbol, stem) for cell, stem in rows for symbol in re.findall(r"\$(.+?)\$", cell)]


@pytest.mark.parametrize(("symbol", "stem"), notation())
def test_a_symbol_of_the_notation_is_used_in_its_lesson(symbol, stem):
    text = "\n".join(cell.source for cell in BOOKS[stem].cells if cell.cell_type == "markdown")
    assert any(token(symbol).search("".join(both)) for both in maths(text))


def test_a_symbol_of_the_glossary_is_used_in_a_lesson():
    text = "\n".join(prose(book) for book in BOOKS.values())
    used = ["".join(both).replace(" ", "") for both in maths(text)]
    for term in TERMS.values():
        for symbol in re.findall(r"\$(.+?)\$", term.symbol):
            assert any(token(symbol.replace(" ", "")).search(tex) for tex in used), term.name


def test_the_notation_lists_each_symbol_once_lesson_by_lesson():
    symbols, stems = zip(*notation(), strict=True)
    assert len(set(symbols)) == len(symbols) > 30
    assert list(stems) == sorted(stems)


def test_a_letter_in_a_second_role_names_lessons_that_use_it():
    rows = re.findall(
        r"^\| \$(\S+)\$ \| (.+) \|$", DOCS["formulas"].split("elsewhere stands for")[1], re.M
    )
    assert len(rows) > 5
    for letter, roles in rows:
        for number in re.findall(r"\b\d\d\b", roles):
            (stem,) = [each for each in BOOKS if each.startswith(number)]
            text = "\n".join(c.source for c in BOOKS[stem].cells if c.cell_type == "markdown")
            assert any(token(letter).search("".join(both)) for both in maths(text)), (letter, stem)


# Both pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCS)
def test_links_of_a_page_resolve(name):
    anchors = {
        glossary.Term(h, "", "", "", "").anchor for h in re.findall(r"^#+ (.+)", DOCS[name], re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", DOCS[name]):
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / "docs" / path).is_file()
        assert not anchor or anchor in anchors


@pytest.mark.parametrize("name", DOCS)
def test_a_page_says_no_number_that_code_can_make(name):
    assert numbers.claims(DOCS[name]) == []


@pytest.mark.parametrize("name", DOCS)
def test_maths_renders_on_github_in_jupyterlab_and_by_mathjax(name):
    """GitHub's Markdown eats a backslash before punctuation; a bar ends a table's cell; < may be a tag."""
    text = DOCS[name]
    assert "```" not in text
    assert text.count("$") % 2 == 0
    for display, inline in maths(text):
        tex = display or inline
        assert "\n" not in tex
        assert not re.search(r"\\[^A-Za-z ]", tex), tex
        assert not re.search(r"[|*%`]|<\S", tex), tex
        assert tex.count("{") == tex.count("}")
        assert len(re.findall(r"\\left\b", tex)) == len(re.findall(r"\\right\b", tex))
    for found in re.finditer(r"\$[^$\n]+\$", re.sub(r"\$\$.+?\$\$", "", text)):
        assert re.match(r"[\s.,;:)|]|$", found.string[found.end() : found.end() + 1])
        assert re.search(r"[\s(|]$|^$", found.string[: found.start()][-1:])


def test_the_pages_know_each_other():
    assert set(DOCS) == {"glossary", "formulas"}
    assert "(formulas.md)" in DOCS["glossary"]
    assert "(glossary.md)" in DOCS["formulas"]


# Reading them ----------------------------------------------------------------------------------

BAD = "# Glossary\n\n## mask\n\nWords.\n\n## English and Korean\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("glossary", BAD, "the entry 'mask' is not a text with a last line"),
        ("glossary", "## mask\n", "does not end with the section 'English and Korean'"),
        ("formulas", "## 01 hessian\n\n### D\n\nno maths\n", "the formula 'D' is not"),
    ],
)
def test_a_damaged_page_is_refused_with_the_entry(name, text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "root", lambda: tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / f"{name}.md").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        (glossary.terms if name == "glossary" else glossary.formulas)()


def test_a_package_without_its_course_has_no_pages(monkeypatch):
    monkeypatch.setattr(places, "root", lambda: None)
    with pytest.raises(FileNotFoundError, match="no page 'glossary': .* folder docs"):
        glossary.terms()
