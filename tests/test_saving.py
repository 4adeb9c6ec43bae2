"""A run goes on from its file only if it was given the same, and only if the file is whole."""

import dataclasses
import enum
import functools
import importlib
import itertools
import math
import os
import random
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- as everybody writes it
from torch import nn

from teachkit import lab, magnitude, obd, schedule
from teachkit.core import criteria, files
from teachkit.lab import fingerprint, identity, saving


def described(value):
    return fingerprint.describe(it=value)


def make(power, shift=0):
    return lambda output, target: (F.cross_entropy(output, target) + shift) ** power


def weighted(weight):
    def loss(output, target):
        return F.cross_entropy(output, target, weight)

    return loss


class Criterion:
    """A criterion with a state."""

    def __init__(self, power=1.0, **more):
        self.power, self.more = power, more

    def __call__(self, model, batch, loss):
        return {name: score**self.power for name, score in magnitude.scores(model).items()}


class Slotted:
    __slots__ = ("power",)

    def __init__(self, power):
        self.power = power


@dataclasses.dataclass
class Facts:
    power: int


class Pair(NamedTuple):
    one: int
    other: int


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Signed(Criterion):
    sign = 1


class Listed(list):
    pass


class Head(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.linear, self.act = nn.Linear(3, 3), act

    def forward(self, x):
        return self.act(self.linear(x))


class OtherHead(Head):
    def forward(self, x):
        return self.act(self.linear(x)) + 1


def module_with(text):
    """A file of the user's, as if imported."""
    module = ModuleType("mine")
    exec(text, vars(module))  # noqa: S102 -- a text of ours
    return module


def head(act, kind=Head, freeze=False, train=True):
    torch.manual_seed(0)
    net = kind(act).train(train)
    net.linear.bias.requires_grad_(not freeze)
    return net


def hooked(scale):
    net = head(F.relu)
    net.linear.register_forward_hook(lambda module, given, output: output * scale)
    return net


def forwarded(scale):
    net = head(F.relu)
    net.forward = lambda x: x * scale
    return net


def tied(really):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].load_state_dict(net[0].state_dict())
    if really:
        net[1].weight = net[0].weight
    return net


def reads_global(name, value):
    return module_with(f"{name} = {value!r}\ndef loss(o, t):\n    return o.sum() * {name}").loss


def with_helper(body):
    return module_with(
        f"def helper(o):\n    return {body}\ndef loss(o, t):\n    return helper(o)"
    ).loss


def negated(function):
    """It takes the name of what it wraps."""

    @functools.wraps(function)
    def less(*given):
        return -function(*given)

    return less


def wrapped_reading(name, value):
    module = module_with(
        f"import functools\n__file__ = 'mine.py'\n{name} = {value}\ndef wrap(f):\n"
        f"    @functools.wraps(f)\n    def more(*a):\n        return f(*a) * {name}\n    return more"
    )
    return module.wrap(magnitude.scores)


STRAIGHT = """
import torch
class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()
    @staticmethod
    def backward(ctx, g):
        return {gradient}
def loss(o, t):
    return Straight.apply(o).sum()
"""
LOGGED = """
import logging
log = logging.getLogger("mine")
def loss(o, t):
    {doc!r}
    log.info("called")
    return "called" in str(o)
"""


def different():
    return {
        "an option of a loss": [nn.CrossEntropyLoss(ignore_index=k) for k in (-100, 0, 1)],
        "another option": [nn.CrossEntropyLoss(label_smoothing=s) for s in (0.0, 0.1)],
        "a tensor option": [nn.CrossEntropyLoss(weight=torch.ones(3) * k) for k in (1, 2)],
        "the reduction": [nn.MSELoss(), nn.MSELoss(reduction="sum"), nn.L1Loss()],
        "closures of one factory": [make(1), make(2), make(1, 1)],
        "tensors in closures": [weighted(torch.ones(3)), weighted(torch.arange(3.0))],
        "lambdas": [lambda o, t: (o - t).sum(), lambda o, t: (o + t).sum()],
        "constants": [lambda o, t: o * 1.0, lambda o, t: o * 1.5, lambda o, t: o * -1.5],
        "constants in sets": [lambda o: o in {1, 2}, lambda o: o in {1, 3}],
        "inner functions": [lambda o: (lambda x: x + 1)(o), lambda o: (lambda x: x + 2)(o)],
        "defaults": [module_with(f"def f(o, k={k}): return o").f for k in (1, 2)],
        "keyword defaults": [module_with(f"def f(o, *, k={k}): return o").f for k in (1, 2)],
        "globals": [reads_global("scale", k) for k in (1, 2)],
        "functions of a file": [with_helper(body) for body in ("o", "-o")],
        "partials": [functools.partial(F.cross_entropy, **o) for o in ({}, {"reduction": "sum"})],
        "positions": [functools.partial(make, k) for k in (1, 2)],
        "methods": [Criterion(1.0).__call__, Criterion(2.0).__call__],
        "states": [Criterion(1.0), Criterion(2.0), Criterion(1.0, deep=[1, {"a": 2}]), Signed(1.0)],
        "deep states": [Criterion(deep=[1, {"a": k}]) for k in (1, 2)],
        "slots": [Slotted(1), Slotted(2)],
        "lists": [Listed([1]), Listed([2]), [1], (1,), [1, 1]],
        "data classes": [Facts(1), Facts(2)],
        "named tuples": [Pair(1, 2), Pair(2, 1), (1, 2)],
        "words of a list": [Colour.RED, Colour.BLUE],
        "sets": [{1}, {2}, {1, 2}, frozenset({1})],
        "dicts": [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}, {"b": 1, "a": 1}],
        "numbers": [0.1, 0.1 + 2**-56, 1, True, None, "1", b"1", -0.0, 0.0, math.nan, 1e400],
        "long words": ["a" * 1000, "a" * 999 + "b"],
        "made by others": [Decimal(1), Decimal(2), SimpleNamespace(a=1), SimpleNamespace(a=2)],
        "arrays": [np.ones(3), np.zeros(3), np.ones((3, 1)), np.ones(3, np.float32)],
        "tensors": [torch.ones(3), torch.zeros(3), torch.ones(3, 1), torch.ones(3).float()],
        "functions of torch": [
            F.cross_entropy,
            F.nll_loss,
            F.linear,
            F.conv2d,
            torch.relu,
            torch.tanh,
        ],
        "methods of torch": [torch.Tensor.relu, torch.Tensor.tanh],
        "classes": [Criterion, Signed, torch.optim.SGD, torch.optim.Adam],
        "architecture": [
            nn.Sequential(nn.ReLU()),
            nn.Sequential(nn.Tanh()),
            nn.Sequential(nn.ELU(0.5)),
            nn.Sequential(nn.ELU(0.6)),
            nn.Sequential(nn.ReLU(), nn.Identity()),
        ],
        "stride": [nn.Sequential(nn.MaxPool2d(2, stride=s)) for s in (1, 2)],
        "forward": [
            head(F.relu),
            head(torch.tanh),
            head(F.relu, OtherHead),
            forwarded(1),
            forwarded(2),
        ],
        "frozen or in another mode": [
            head(F.relu),
            head(F.relu, freeze=True),
            head(F.relu, train=False),
        ],
        "hooks": [head(F.relu), hooked(1), hooked(2)],
        "ties": [tied(False), tied(True)],
        "order of modules": [
            nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()}),
            nn.ModuleDict({"b": nn.Tanh(), "a": nn.ReLU()}),
        ],
        "cached": [functools.cache(make(k)) for k in (1, 2)],
        "what wraps a function of the course or of torch": [
            magnitude.scores,
            negated(magnitude.scores),
            wrapped_reading("POWER", 1),
            wrapped_reading("POWER", 2),
            F.cross_entropy,
            negated(F.cross_entropy),
        ],
        "torch's functions with a gradient": [
            module_with(STRAIGHT.format(gradient=k)).loss for k in ("g", "2 * g")
        ],
    }


@pytest.mark.parametrize("kind", different())
def test_what_differs_is_told_apart(kind):
    words = [described(value) for value in different()[kind]]
    for one, other in itertools.combinations(words, 2):
        assert one != other


SAME = {
    "closures": lambda: make(2),
    "lambdas": lambda: lambda o, t: (o - t).sum(),
    "modules": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "partials": lambda: functools.partial(torch.optim.SGD, momentum=0.9, lr=0.1),
    "objects": lambda: Criterion(2.0, deep=[1, {"a": torch.ones(2)}]),
    "networks": lambda: head(F.relu),
    "hooked networks": lambda: hooked(2),
    "criteria": lambda: obd.scores,
    "recipes": lambda: lab.rounds.by_criterion(Criterion(2.0), make(3), "layer"),
    "sets": lambda: {3, "a", 1.5, *map(str, range(50))},
    "numbers": lambda: np.float64(0.1),
    "torch's functions with a gradient": lambda: module_with(STRAIGHT.format(gradient="g")).loss,
    "what logs, and its docstring": lambda: module_with(LOGGED.format(doc=str(object()))).loss,
    "wrapped functions of the course": lambda: negated(magnitude.scores),
    "classes": lambda: type("Own", (Criterion,), {"f": lambda self: 3}),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_made_anew_alike_is_the_same(kind):
    assert described(SAME[kind]()) == described(SAME[kind]())


def test_a_file_of_the_users_may_have_the_name_of_one_of_pythons(tmp_path, monkeypatch):
    (tmp_path / "xdrlib.py").write_text("def loss(o, t):\n    return o.sum()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "xdrlib", None)  # so that the end takes it away again
    del sys.modules["xdrlib"]
    mine = importlib.import_module("xdrlib")
    assert not identity.library("xdrlib")
    assert identity.library("json.decoder")
    assert identity.library("_json")
    assert described(mine.loss) == described(
        module_with("def loss(o, t):\n    return o.sum()").loss
    )


def test_another_process_says_the_same():
    """Also with other hashes of words, other addresses, other ids of hooks."""
    code = (
        "import sys, torch; torch.set_default_dtype(torch.float64)\n"
        "sys.path.insert(0, sys.argv[1]); import test_saving; print(test_saving.everything())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )
    assert there.stdout.strip() == everything(), there.stderr


def everything():
    """A digest of descriptions."""
    words = [described(way()) for name, way in SAME.items()]
    words += [described(v) for name, values in different().items() for v in values]
    return identity.digest(repr(words).encode())


def test_every_criterion_of_the_course_can_be_told():
    entries = [*criteria.SCORES.values(), *criteria.PRUNES.values()]
    words = {str(described(entry.function)) for entry in entries}
    assert len(words) == len({entry.function for entry in entries}) > 5


def test_running_code_does_not_change_it():
    def loss(output):
        return sum(output * k for k in range(3))

    before = identity.code(loss.__code__)
    for k in range(2000):  # the interpreter rewrites what runs often
        loss(k)
    assert identity.code(loss.__code__) == before


UNKNOWN = {
    "torch.Generator": torch.Generator(),
    "numpy.random._generator.Generator": np.random.default_rng(0),
    "random.Random": random.Random(1),
    "builtins.generator": (k for k in range(3)),
    "itertools.count": itertools.count(),
    "_thread.lock": threading.Lock(),
    "set": {(1, 2)},
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.ones(2, device="meta"),
    "scripted": torch.jit.script(nn.ReLU()),
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize(
    "deep", [lambda it: it, lambda it: Criterion(of=[it]), lambda it: lambda: it]
)
def test_what_cannot_be_told_is_refused_by_name(name, deep):
    with pytest.raises(ValueError, match=r"a file cannot tell whether it.* is the same in a later"):
        described(deep(UNKNOWN[name]))


def test_circles_end():
    one, other = Criterion(), Criterion()
    one.friend, other.friend = other, one
    one.self, one.all = one, [one, other]

    def again(k):
        return again(k - 1) if k else one

    one.again = again
    assert described(one)


# The file -----------------------------------------------------------------------------------------


def small():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 4, generator=generator), torch.arange(24) % 3
    return lab.data.Data((x, y), (x[:9], y[:9])), net(nn.ReLU())


def net(act, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), act, nn.Linear(5, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def by_magnitude(model, batch, loss):
    return magnitude.scores(model)


def gradual(file, model=None, data=None, criterion=by_magnitude, **options):
    mine, there = small()
    given = {"steps": 2, "epochs": 2, "progress": False, "file": file, **options}
    rule = schedule.linear(0, 0.6, 0, 2)
    return schedule.gradual(model or there, data or mine, criterion, rule, **given)


OTHER_RUNS = {
    "loss.ignore_index was -100 and is 2": {"loss": nn.CrossEntropyLoss(ignore_index=2)},
    "loss.label_smoothing was 0.0 and is 0.1": {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
    r"model.1 was torch.nn.modules.activation.ReLU of \[\] and is \S*Tanh": {
        "model": lambda: net(nn.Tanh())
    },
    r"model.1 was \S+ReLU of \[\] and is \S+ELU of": {"model": lambda: net(nn.ELU(0.5))},
    r"model.0.weight was torch.float64 \(5, 4\)": {"model": lambda: net(nn.ReLU(), seed=1)},
    r"optimizer.lr was not there and is 0.1|optimizer.lr was 0.001 and is 0.1": {
        "optimizer": functools.partial(torch.optim.Adam, lr=0.1)
    },
    "batch_size was 64 and is 12": {"batch_size": 12},
    "threshold was 0.5 and is 0.25": {"threshold": 0.25},
    r"epochs\[1\] was 1 and is 2": {"epochs": 3},
    "choose.scope was 'global' and is 'layer'": {"scope": "layer"},
    "choose.criterion was by_magnitude": {"criterion": lambda *given: by_magnitude(*given)},
}


@pytest.mark.parametrize("says", OTHER_RUNS)
def test_a_file_of_another_run_is_refused_by_the_difference(tmp_path, says):
    given = {"loss": nn.CrossEntropyLoss()}
    gradual(tmp_path / "run.pt", **given)
    assert gradual(tmp_path / "run.pt", **given).steps == gradual(None, **given).steps
    change = OTHER_RUNS[says]
    change = {"model": change["model"]()} if "model" in change else change
    with pytest.raises(ValueError, match=f"run.pt is of another run: {says}") as error:
        gradual(tmp_path / "run.pt", **given | change)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("makes", [make, lambda k: Criterion(k).__call__])
def test_objects_and_closures_of_one_factory_are_other_runs(tmp_path, makes):
    name = "loss" if makes is make else "criterion"
    gradual(tmp_path / "run.pt", **{name: makes(1)})
    gradual(tmp_path / "run.pt", **{name: makes(1)})
    with pytest.raises(ValueError, match=r"of another run: \S+power was 1 and is 2"):
        gradual(tmp_path / "run.pt", **{name: makes(2)})


def test_a_default_said_aloud_is_the_same_run(tmp_path):
    want = gradual(tmp_path / "run.pt")
    same = {"batch_size": np.int64(64), "optimizer": lab.training.Adam, "loss": F.cross_entropy}
    assert gradual(tmp_path / "run.pt", **same).steps == want.steps


def test_a_recipe_knows_its_rule(tmp_path):
    """Han's, which gives the loop no criterion but a function of its own."""
    data, model = small()
    given = {"epochs": 0, "progress": False, "file": tmp_path / "run.pt"}
    magnitude.han(model, data, [0.5], factors={"0.weight": 1.0}, **given)
    with pytest.raises(ValueError, match=r"choose.factors.*0.weight.* was 1.0 and is 2.0"):
        magnitude.han(model, data, [0.5], factors={"0.weight": 2.0}, **given)


def test_a_state_that_has_moved_on_since_the_last_round_is_another_one(tmp_path):
    class Counting(Criterion):
        def __call__(self, *given):
            self.power += 1
            return super().__call__(*given)

    used = Counting()
    done = gradual(tmp_path / "run.pt", criterion=used)
    assert gradual(tmp_path / "run.pt", criterion=used).steps == done.steps
    with pytest.raises(ValueError, match=r"choose.criterion.power was 3.0 and is 1.0"):
        gradual(tmp_path / "run.pt", criterion=Counting())


def test_a_run_that_no_file_can_know_does_not_begin(tmp_path):
    criterion = Criterion(generator=torch.Generator())
    with pytest.raises(
        ValueError, match=r"criterion.more\['generator'\], a torch._C.Generator, is"
    ):
        gradual(tmp_path / "run.pt", criterion=criterion)
    assert list(tmp_path.iterdir()) == []
    assert len(gradual(None, criterion=criterion).steps) == 2


def test_every_single_flipped_bit_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    gradual(file)
    whole = bytearray(file.read_bytes())
    dice = random.Random(0)
    head = range(8 * (len(saving.FORMAT) + 70))
    for bit in [*head, *dice.sample(range(8 * len(whole)), 400)]:
        whole[bit // 8] ^= 1 << bit % 8
        file.write_bytes(whole)
        with pytest.raises(ValueError, match="run.pt is not a run of gradual"):
            saving.load(file)
        whole[bit // 8] ^= 1 << bit % 8
    for length in [0, 1, 40, 100, len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="run.pt is not a run of gradual"):
            gradual(file)
    file.write_bytes(whole)
    assert len(gradual(file).steps) == 2


@pytest.mark.parametrize("part", ["weights", "masks", "steps", "known"])
def test_a_file_without_a_part_is_refused_in_words(tmp_path, part):
    file = tmp_path / "run.pt"
    gradual(file)
    state = saving.load(file)
    saving.save(file, {name: value for name, value in state.items() if name != part})
    with pytest.raises(ValueError, match=f"not a run of gradual .it lacks '{part}'.; name another"):
        gradual(file)


@pytest.mark.parametrize("part", ["weights", "masks"])
def test_a_file_with_other_tensors_is_refused_in_words(tmp_path, part):
    file = tmp_path / "run.pt"
    gradual(file)
    state = saving.load(file)
    for change in ({}, {"0.weight": torch.ones(2)}, {"other": torch.ones(1)}):
        saving.save(file, state | {part: change})
        with pytest.raises(ValueError, match="not a run of gradual"):
            gradual(file)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    file = tmp_path / "run.pt"
    gradual(file)
    state = saving.load(file)
    state["weights"]["0.weight"][1, 2] = math.nan
    saving.save(file, state)
    with pytest.raises(ValueError, match=r"not a run of gradual \('0.weight' has 1 NaN"):
        gradual(file)


def test_an_interrupted_write_loses_nothing(tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    want = gradual(file)
    before = file.read_bytes()

    def half(path, content):
        with files.writing(path) as part:
            part.write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "replace", half)
    with pytest.raises(KeyboardInterrupt):
        saving.save(file, saving.load(file))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert gradual(file).steps == want.steps
