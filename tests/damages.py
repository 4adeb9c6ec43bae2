"""Mechanical damages of the right answers, and whether what the check says of each is true.

``python tests/damages.py`` tries all of them on every exercise; ``--show 60`` prints a sample.
"""

import argparse
import copy
import itertools
import random
import re
import sys
import time
from typing import NamedTuple

import numpy as np
import sympy
import torch

from teachkit.show import running
from teachkit.show.exercises import all_tasks, cases
from teachkit.show.verdicts import judged

TASKS = all_tasks()
SHORT = 0.1  # seconds for a function that never ends
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class RudeError(Exception):
    """An error without a text."""

    def __str__(self):
        raise RuntimeError("no")


class Rude:
    """Nothing can be asked of it."""

    def _no(self, *_):
        raise RuntimeError("no")

    __eq__ = __repr__ = __len__ = __array__ = __float__ = __bool__ = __getattr__ = _no
    __hash__ = None


# Values ----------------------------------------------------------------------------------------


def numeric(value):
    """Whether arithmetic with it makes sense."""
    if isinstance(value, torch.Tensor):
        return value.dtype != torch.bool
    if isinstance(value, (list, tuple)):
        return True
    return isinstance(value, (int, float, sympy.Expr, sympy.MatrixBase))


def of_values(change):
    """A damage of numbers; a mask, a word and a set stay as they are."""

    def damaged(value):
        if not numeric(value):
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(change(part) for part in value)
        return change(value)

    return damaged


def of_tensors(change):
    """A damage of tensors, of numbers as tensors without an axis, and of lists as vectors."""

    def damaged(value):
        if isinstance(value, (str, set, sympy.Basic, sympy.MatrixBase)):
            return value
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value).double()
        return change(tensor)

    return damaged


def first(change):
    """A damage of the first entry alone."""

    def damaged(value):
        if isinstance(value, torch.Tensor) and value.dim() and value.dtype != torch.bool:
            value = value.clone()
            value[(0,) * value.dim()] = change(value[(0,) * value.dim()])
            return value
        if isinstance(value, (list, tuple)):
            return type(value)([change(value[0]), *value[1:]])
        if isinstance(value, sympy.MatrixBase):
            return sympy.Matrix(2, 2, [change(value[0]), *value[1:]])
        return of_values(change)(value)

    return damaged


def kind(dtype):
    return of_tensors(lambda t: t if t.dtype == torch.bool else t.to(dtype))


def whole(value):
    return value if isinstance(value, sympy.Basic) else int(value)


def plain(value):
    """As Python's own lists and numbers."""
    return value.tolist() if isinstance(value, torch.Tensor) else value


VALUES = {
    "same": lambda v: v,
    "sign": of_values(lambda v: -v),
    "absolute": of_values(abs),
    "twice": of_values(lambda v: 2 * v),
    "half": of_values(lambda v: v / 2),
    "three times": of_values(lambda v: 3 * v),
    "per cent": of_values(lambda v: 100 * v),
    "natural": of_values(lambda v: v * 2.302585092994046),
    "minus twice": of_values(lambda v: -2 * v),
    "plus one": of_values(lambda v: v + (sympy.eye(2) if isinstance(v, sympy.MatrixBase) else 1)),
    "minus tenth": of_values(lambda v: v if isinstance(v, sympy.MatrixBase) else v - 0.1),
    "nearly": of_values(lambda v: v * (1 + 1e-6)),
    "rounding": of_values(lambda v: v * (1 + 1e-14)),
    "a bit": of_values(lambda v: v * 1.001),
    "square": of_values(lambda v: v**2),
    "first sign": first(lambda v: -v),
    "first off": first(lambda v: v + 1),
    "zero": of_values(lambda v: v * 0),
    "nan": of_values(lambda v: v * float("nan")),
    "inf": of_values(lambda v: v * float("inf")),
    "rounded": of_tensors(lambda t: t if t.dtype == torch.bool else t.round(decimals=2)),
    "cut": of_tensors(lambda t: t if t.dtype == torch.bool else t.trunc()),
    "float32": kind(torch.float32),
    "float16": kind(torch.float16),
    "bfloat16": kind(torch.bfloat16),
    "int": kind(torch.int64),
    "bool": kind(torch.bool),
    "mask as float": of_tensors(lambda t: t.double()),
    "numpy": of_tensors(lambda t: t.numpy()),
    "numpy float32": of_tensors(
        lambda t: t.numpy() if t.dtype == torch.bool else t.float().numpy()
    ),
    "list": plain,
    "list of tensors": of_tensors(lambda t: list(t) if t.dim() else t),
    "tuple": lambda v: tuple(plain(v)) if isinstance(plain(v), (list, set)) else (v,),
    "complex": of_tensors(lambda t: t.to(torch.complex128)),
    "sparse": of_tensors(lambda t: t.to_sparse()),
    "by way of float32": of_tensors(lambda t: t if t.dtype == torch.bool else plain(t.float())),
    "with gradient": of_tensors(
        lambda t: t if t.dtype == torch.bool else t.double().requires_grad_() * 1
    ),
    "transpose": of_tensors(lambda t: t.T if t.dim() == 2 else t),
    "one axis more": of_tensors(lambda t: t[None]),
    "one axis at the end": of_tensors(lambda t: t[..., None]),
    "one axis less": of_tensors(lambda t: t[0] if t.dim() else t),
    "flat": of_tensors(lambda t: t.reshape(-1)),
    "total": of_tensors(lambda t: t.double().sum()),
    "sorted": of_tensors(lambda t: t.sort().values if t.dim() else t),
    "turned": of_tensors(lambda t: t.flip(0) if t.dim() else t),
    "shifted": of_tensors(lambda t: t.roll(1, 0) if t.dim() else t),
    "inverted": of_tensors(lambda t: ~t if t.dtype == torch.bool else -t),
    "all True": of_tensors(lambda t: torch.ones_like(t)),
    "first entry": of_tensors(lambda t: t.reshape(-1)[:1]),
    "text": str,
    "capital": lambda v: v.capitalize() if isinstance(v, str) else v,
    "in a dict": lambda v: {"answer": v},
    "generator": lambda v: (x for x in [v]),
    "iterator": lambda v: iter([v]),
    "function": lambda v: lambda: v,
    "type": type,
    "nothing": lambda v: None,
    "rude": lambda v: Rude(),
    "ragged": lambda v: [[1.0], [1.0, 2.0]],
    "huge": lambda v: torch.zeros(1).expand(1001, 1001),
    "huge number": lambda v: 10**400,
    "endless list": lambda v: (x := [], x.append(x))[0],
}


# Behaviour: each makes a function of the right one, and the word that it must be told --------------


def raising(error):
    def make(right):
        def function(*inputs):
            right(*inputs)
            raise error

        return function

    return make


def silent(right):
    def function(*inputs):
        right(*inputs)

    return function


def printing(right):
    def function(*inputs):
        print(right(*inputs))

    return function


def chatty(right):
    def function(*inputs):
        print("so far", "x" * 99999)
        return right(*inputs)

    return function


def counting(right):
    calls = itertools.count()

    def function(*inputs):
        made = right(*inputs)
        return made if next(calls) == 0 else VALUES["text"](next(calls))

    return function


def growing(right):
    seen = []

    def function(*inputs):
        seen.append(right(*inputs))
        return seen

    return function


def reused(right):
    """The same list each time, filled anew: right."""
    box = []

    def function(*inputs):
        made = right(*inputs)
        if not isinstance(made, list):
            return made
        box[:] = made
        return box

    return function


def endless(right):
    def function(*inputs):
        while True:
            pass

    return function


def stubborn(right):
    def function(*inputs):
        while True:
            try:
                sum(range(1000))
            except Exception:
                return "stopped by itself"

    return function


def sleepy(right):
    def function(*inputs):
        time.sleep(60)

    return function


def in_place(right):
    """Right, but with the first tensor it is given at zero afterwards."""

    def function(*inputs):
        made = copy.deepcopy(right(*inputs))
        for value in inputs:
            if isinstance(value, torch.Tensor):
                value.zero_()
                break
        return made

    return function


def deep(right):
    def function(*inputs):
        return function(*inputs)

    return function


def coroutine(right):
    async def function(*inputs):
        return right(*inputs)

    return function


def yielding(right):
    def function(*inputs):
        yield right(*inputs)

    return function


def some_nothing(right):
    calls = itertools.count(1)

    def function(*inputs):
        return right(*inputs) if next(calls) % 3 else None

    return function


BEHAVIOUR = {
    "value error": (raising(ValueError("a\nb")), "your function raised ValueError: a\n"),
    "division": (lambda right: lambda *i: 1 / 0, "your function raised ZeroDivisionError"),
    "exit": (raising(SystemExit(2)), "your function raised SystemExit: 2"),
    "end": (raising(GeneratorExit()), "your function raised GeneratorExit\n"),
    "rude error": (raising(RudeError()), "your function raised RudeError\n"),
    "recursion": (deep, "your function raised RecursionError"),
    "silent": (silent, "returns nothing"),
    "sometimes silent": (some_nothing, "returns nothing for some inputs"),
    "printed": (printing, "your function prints its answer and returns nothing"),
    "chatty": (chatty, "correct."),
    "counting": (counting, "gives two answers"),
    "growing": (growing, "gives two answers"),
    "reused": (reused, "correct."),
    "endless": (endless, "was stopped: it takes longer than 0.1 seconds"),
    "stubborn": (stubborn, "was stopped: it takes longer than 0.1 seconds"),
    "sleepy": (sleepy, "was stopped: it takes longer than 0.1 seconds"),
    "in place": (in_place, "changes what it is given|correct.$"),
    "async": (coroutine, "leave async out"),
    "yield": (yielding, "returns a generator"),
    "too few": (lambda right: lambda: 1, r"your function takes \(nothing\)"),
    "too many": (lambda right: lambda a, b, c, d, e, f, g: 1, "your function takes"),
    "no function": (lambda right: 3.5, "check needs your function itself, got float"),
    "None": (lambda right: None, "check needs your function itself, got NoneType"),
    "a class": (lambda right: Rude, "your function takes"),
    "returns its input": (lambda right: lambda *i: i[0], "not yet"),
    "constant": (lambda right: lambda *i: 0.5, "not yet"),
    "random": (
        lambda right: lambda *i: torch.rand(3, dtype=torch.float64),
        "gives two answers",
    ),
}
SLOW = {"endless", "stubborn", "sleepy"}
NAMES = [*VALUES, *BEHAVIOUR]


def damaged(name, damage):
    """The right answer of an exercise with a damage."""
    right = solution(name)
    if damage in BEHAVIOUR:
        return BEHAVIOUR[damage][0](right)
    return lambda *inputs: VALUES[damage](right(*inputs))


def solution(name):
    if name == "02.4":
        return lambda f, at, v: torch.func.jvp(torch.func.grad(f), (at,), (v,))[1]
    if name == "03.2":
        return lambda mask: tuple(TASKS[name].answer(mask))
    return TASKS[name].answer


# Truth -----------------------------------------------------------------------------------------


class Tried(NamedTuple):
    """An exercise with a damage, what was said, and what is false in it."""

    name: str
    damage: str
    says: str
    false: list[str]

    def __str__(self):
        return f"[{self.damage}] {self.says}" + "".join(f"\n!! {line}" for line in self.false)


def numbers(value):
    """As an array of floats, None if it is none."""
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().to_dense() if value.is_sparse else value.detach()
            return None if value.is_complex() else value.double().numpy()
        if isinstance(value, (sympy.Expr, sympy.MatrixBase)):
            value = value.subs(
                {s: 1.3 + 0.1 * i for i, s in enumerate(sorted(value.free_symbols, key=str))}
            )
            return np.array(
                sympy.N(value).tolist() if hasattr(value, "tolist") else sympy.N(value), float
            )
        if isinstance(value, (list, tuple)):
            odd = (torch.Tensor, sympy.Basic)
            value = [numbers(part) if isinstance(part, odd) else part for part in value]
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "biuf" else None
    except Exception:
        return None


def coarsest(value):
    if by_way_of_float32(value):
        return TOLERANCE["float32"]
    parts = value[:99] if isinstance(value, (list, tuple)) else [value]
    return max(
        [TOLERANCE.get(str(getattr(p, "dtype", "")).removeprefix("torch."), 1e-8) for p in parts]
        or [1e-8]
    )


def by_way_of_float32(value):
    """Whether numbers in float64 are those of float32, with too many digits for chance."""
    array = numbers(value)
    if array is None or isinstance(value, (sympy.Basic, sympy.MatrixBase)) or not array.size:
        return False
    with np.errstate(all="ignore"):
        short = (array.astype(np.float16) == array) | (array.round() == array)
        return bool((array.astype(np.float32) == array).all() and not short.all())


def masked(value):
    array = value if isinstance(value, torch.Tensor) else np.asarray(value)
    return str(array.dtype).endswith("bool")


def equal(given, wanted):
    """Whether an answer is right, written apart from the check."""
    if isinstance(given, Rude):
        return False
    if isinstance(wanted, (str, set)):
        return isinstance(given, type(wanted)) and given == wanted
    if isinstance(wanted, (sympy.Expr, sympy.MatrixBase)) and wanted.free_symbols:
        return isinstance(given, type(wanted)) and sympy.simplify(given - wanted) == wanted * 0
    if isinstance(given, (str, dict)) or (
        isinstance(wanted, sympy.MatrixBase) != isinstance(given, sympy.MatrixBase)
    ):
        return False
    a, b = numbers(given), numbers(wanted)
    if a is None or b is None or a.shape != b.shape or masked_differs(given, wanted):
        return False
    tolerance, scale = coarsest(given), np.abs(b).max(initial=0)
    return np.allclose(
        a, b, rtol=tolerance, atol=tolerance * scale if tolerance > 1e-6 else 1e-12 * max(1, scale)
    )


def masked_differs(given, wanted):
    return not isinstance(wanted, sympy.Basic) and masked(given) != masked(wanted)


def near(a, b, tolerance=1e-5):
    if a is None or b is None or a.shape != b.shape:
        return False
    return np.allclose(
        a, b, rtol=tolerance, atol=max(1e-9, tolerance * np.abs(b).max(initial=0)) * 10
    )


CLAIMS = {  # what is said: whether that is so, of a pair of arrays
    r"transposed|rows and columns are swapped": lambda a, b: near(a.T, b),
    r"the sign is wrong(?! for)": lambda a, b: near(a, -b),
    r"the sign (of some|is wrong for some)": lambda a, b: near(abs(a), abs(b)),
    r"by a factor of 2$": lambda a, b: near(a, 2 * b),
    r"a factor of ½ too much": lambda a, b: near(a, b / 2),
    r"in per cent": lambda a, b: near(a, 100 * b),
    r"factor of ln 10": lambda a, b: near(a, 2.302585092994046 * b),
    r"it is 0 everywhere": lambda a, b: not a.any(),
    r"nearly": lambda a, b: near(a, b, 2e-5),
    r"it is rounded": lambda a, b: any(near(a, b.round(d)) for d in range(7)),
    r"cut off": lambda a, b: near(a, np.trunc(b)),
    r"a mask must be boolean": lambda a, b: True,
    r"the mask is inverted": lambda a, b: (a == 1 - b).all(),
    r"right, but in another order": lambda a, b: near(np.sort(a, None), np.sort(b, None)),
    r"the numbers are right(?!, but)": lambda a, b: near(a.ravel(), b.ravel()),
}


def truths(name, damage, says, seed):
    """The lines of what was said that are not so."""
    task = TASKS[name]
    given = cases(task, random.Random(seed))
    wanted = [task.answer(*copy.deepcopy(inputs)) for inputs in given]
    if damage in BEHAVIOUR:
        yield from behaved(name, damage, says)
        if damage not in ("returns its input", "constant"):
            return
    function = damaged(name, damage)
    answers = [function(*copy.deepcopy(inputs)) for inputs in given]
    right = [equal(a, w) for a, w in zip(answers, wanted, strict=True)]
    if says.startswith("correct.") != all(right):
        yield f"{sum(right)} of {len(right)} answers are right"
    if says.startswith("not attempted"):
        yield "it was attempted"
    head = says.split("\n")[0].removeprefix("not yet: ")
    if head in task.mistakes:
        made = [numbers(task.mistakes[head](*copy.deepcopy(inputs))) for inputs in given]
        pairs = zip(answers, made, given, strict=True)
        if not all(
            near(numbers(a), m, max(1e-5, coarsest(a)))
            or (isinstance(a, (str, set)) and a == task.mistakes[head](*i))
            for a, m, i in pairs
        ):
            yield f"the hint does not explain it: {head}"
        return
    yield from claimed(
        head, [(numbers(a), numbers(w)) for a, w in zip(answers, wanted, strict=True)]
    )
    if "as it was given" in head and damage != "returns its input":
        yield "is it an input?"
    if "the same to every input" in head and any(differ(answers[0], a) for a in answers):
        yield "the answers are not all the same"


def differ(a, b):
    x, y = numbers(a), numbers(b)
    if x is None or y is None:
        return repr(a)[:200] != repr(b)[:200]
    return x.shape != y.shape or not np.array_equal(x, y, equal_nan=True)


def claimed(head, pairs):
    """The claims on numbers that do not hold."""
    head = re.sub(r" \(\d+ of \d+ inputs (is|are) right\)", "", head)
    pairs = list(pairs)
    whole = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    for pattern, holds in CLAIMS.items():
        said = re.search(pattern, head.split(";")[0] if pattern.endswith("$") else head)
        shaped = [p for p in whole if "the shape differs" in head or p[0].shape == p[1].shape]
        if said and not (shaped and all(holds(*pair) for pair in shaped)):
            yield f"not so: {said.group()}"
    if found := re.search(r"same (amount|factor) everywhere: (\S+)", head):
        number = float(found.group(2).rstrip(";"))
        for a, b in whole:
            moved = b + number if found.group(1) == "amount" else b * number
            if not np.allclose(a, moved, rtol=0.06, atol=0.06 * abs(b).max(initial=1)):
                yield f"not so: {found.group()}"
                break
    counts = [(str(int(a.sum())), str(int(b.sum()))) for a, b in whole if "it keeps" in head]
    found = re.search(r"it keeps (\d+) weights instead of exactly (\d+)", head)
    if found and found.groups() not in counts:
        yield f"not so: {found.group()}"
    if found := re.search(r"the shape differs: (.*?) instead of ([^;]*)", head):
        shapes = [
            tuple(str(x.shape) if x.shape else "a single number" for x in pair) for pair in whole
        ]
        if whole and found.groups() not in shapes and "(2, 2)" not in head:
            yield f"not so: {found.group()}"
    if "the type differs" in head and re.search(r": (\w+) instead of \1\b", head):
        yield "the types are the same"


def behaved(name, damage, says):
    """Whether a way to behave was told what it must be told."""
    word = BEHAVIOUR[damage][1]
    if not re.search(word, says + "\n"):
        yield f"it must be told: {word}"
    if says.startswith("not attempted"):
        yield "it was attempted"
    if damage in ("value error", "division") and not re.search(r"\nline \d+.*: ", says):
        yield "the line is missing"
    tensors = any(
        isinstance(value, torch.Tensor) for value in cases(TASKS[name], random.Random(0))[0]
    )
    if damage == "in place" and tensors:
        ok = "not yet: your function changes" if TASKS[name].pure else "correct. A word of care"
        if not says.startswith(ok):
            yield f"it must be told: {ok}"


def tried(name, damage, seed=0):
    """Check an exercise with a damage; what the check raises is a crash and comes out of here."""
    limit, running.LIMIT = running.LIMIT, SHORT if damage in SLOW else running.LIMIT
    try:
        result = judged(name, damaged(name, damage), seed)
    finally:
        running.LIMIT = limit
    assert repr(result).startswith(f"{name}: ")
    assert result._repr_html_().count("<details>") == result._repr_html_().count("</details>")
    return Tried(name, damage, result.words, list(truths(name, damage, result.words, seed)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", type=int, default=0, help="print so many verdicts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="one exercise or one damage")
    given = parser.parse_args()
    every = [pair for pair in itertools.product(TASKS, NAMES) if given.only in ("", *pair)]
    if given.show:
        every = random.Random(given.seed).sample(every, min(given.show, len(every)))
    crashes, false = 0, 0
    for name, damage in every:
        try:
            one = tried(name, damage, given.seed)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            crashes += 1
            print(f"CRASH {name} [{damage}] {type(error).__name__}: {error}", flush=True)
            continue
        false += bool(one.false)
        if given.show or one.false:
            print(name, one, "\n", flush=True)
    print(
        f"{len(TASKS)} exercises, {len(NAMES)} damages, {len(every)} checks: {crashes} crashes, {false} false"
    )
    return crashes + false > 0


if __name__ == "__main__":
    sys.exit(main())
