"""The answers of every quiz, apart from the quizzes: computed where one can, else in words.

``KEY`` maps a question to a function that gives the words by which one knows the right option, and
no other; of several right ones a list of such words, of an order a list of places, each a list of
words, else the number or the numbers of the curve. ``WHY`` has such words for the second steps. A
key computes them from the course's own functions, a saved table or the numbers that a
notebook printed; a question about an idea has its words without a computation.
"""

import math
import re
from functools import cache
from itertools import pairwise

import nbformat
import sympy
import torch

from teachkit import (
    compression,
    experiments,
    hessian,
    masks,
    neurons,
    obs,
    schedule,
    sparse_training,
    taylor,
)
from teachkit.course.notebooks import FOLDER
from teachkit.lab import sweep
from teachkit.lab.curves import interval
from teachkit.show.lessons import paradox_figures

x = sympy.Symbol("x")


@cache
def outputs(stem):
    """Everything that a notebook printed."""
    (path,) = FOLDER.glob(f"??_{stem}.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    shown = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in shown)


def printed(stem, beginning):
    """The numbers of the one printed line that begins so."""
    lines = [line for line in outputs(stem).splitlines() if line.startswith(beginning)]
    assert len(lines) == 1, (stem, beginning, lines)
    numbers = re.findall(r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?", lines[0][len(beginning) :])
    return [float(number) for number in numbers]


def table(stem, caption):
    """The rows of the one table with a caption that begins so: the numbers of each by its name."""
    lines = outputs(stem).splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(caption)]
    found = {}
    for line in lines[at + 2 :]:
        row = re.match(r" *(.+?) {2,}(.+)", line)
        if not row:
            break
        found[row[1]] = [float(n) for n in re.findall(r"[-+]?\d+(?:\.\d+)?", row[2])]
    return found


def first(values):
    """The name of the largest."""
    return max(values, key=values.get)


def order_of_three():
    names = ("random", "magnitude", "signed Taylor")
    kept = {name: printed("start", f"{name} ")[-1] for name in names}
    return ", ".join(sorted(kept, key=kept.get, reverse=True))


def second_derivative_test():
    silent = {hessian.classify(f, x)[0].kind for f in (x**4, x**3)} == {"undecided"}
    return "nothing, in both cases" if silent else "neither"


def saddle_from():
    y = sympy.Symbol("y")
    steps = [sympy.Rational(n, 4) for n in range(-16, 17)]
    kinds = {b: hessian.kind(hessian.hessian(x**2 + b * x * y + y**2, (x, y))) for b in steps}
    return f"|b| > {max(abs(b) for b, kind in kinds.items() if kind != 'saddle')}"


def negative_curvatures():
    share = printed("hessian", "after training: ")[0] / 460
    return "a few per cent" if 0.01 < share < 0.1 else f"{share:.0%}"


def closer():
    f, found = sympy.log(1 + x), []
    for name, at in {"x = −0.5": -0.5, "x = 1": 1, "x = 1.5": 1.5, "x = 2": 2}.items():
        off = [abs((taylor.polynomial(f, x, (0,), k) - f).subs(x, at)) for k in (2, 8)]
        found += [name] * bool(off[1] < off[0])
    return found


def error_of_second_order():
    powers = table("taylor", "From t = 0.003 to 0.03 the error grows like t to this power")
    return 10.0 ** round(powers["second order"][0])


def removed_together():
    changes = table("taylor", "100 weights removed together")  # mean and interval: random, chosen
    promise, rise = (changes[name][3] for name in ("sum of single predictions", "truth"))
    return "it rises" if promise < 0 < rise else "it falls"


def operations_left():
    layer = torch.nn.Linear(2, 2, bias=False)
    batch, kept = torch.ones(2, 2), {"weight": torch.eye(2) == 1}
    m, a = masks.total(masks.operations(layer, batch, kept))
    return f"{m} multiplications, {a} additions"


def spared_layer():
    (shares,) = re.findall(r"^global: .*layer by layer (.*)$", outputs("masks"), re.MULTILINE)
    gone = [float(share) for share in re.findall(r"\d\.\d+", shares)]
    return ("the first", "the middle", "the last")[gone.index(min(gone))]


def better_masks():
    (share,) = re.findall(r"keep  9, global: (\d+\.\d) % of all masks are better", outputs("masks"))
    return "nearly all" if float(share) > 95 else "about half"


def cheaper_weight():
    H, w = torch.tensor([[6.0, 2.0], [2.0, 2.0]]), torch.tensor([1.0, 1.5])
    cost = 0.5 * H.diagonal() * w**2
    return f"w{int(cost.argmin()) + 1}:"


def summed_first():
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    H = torch.tensor([[2.0, 1.0, 0.0], [1.0, 4.0, 3.0], [0.0, 3.0, 6.0]])
    (g,) = torch.autograd.grad(0.5 * w @ H @ w, w, create_graph=True)
    (once,) = torch.autograd.grad(g, w, torch.ones_like(g))
    return "the sum of each row" if torch.equal(once, H.sum(1)) else "something else"


def worst_assumption():
    names = ("gradient", "cross", "higher")
    words = {"gradient": "extremal", "cross": "diagonal", "higher": "quadratic"}
    worst = set()
    for sparsity in (0.7, 0.8, 0.9):
        (line,) = re.findall(rf"^{sparsity}: saliency .*$", outputs("obd"), re.MULTILINE)
        parts = {name: float(re.search(rf"{name} (-?[\d.]+)", line).group(1)) for name in names}
        worst.add(words[first(parts)])
    return " and ".join(worst)


def first_of_three():
    H = torch.tensor([[10.0, 9.0, 0.0], [9.0, 10.0, 0.0], [0.0, 0.0, 1.0]])
    return float(obs.saliencies(torch.tensor([1.0, 1.0, 2.0]), torch.linalg.inv(H))[0])


def xor_spares():
    shares = [row[1] for row in table("obs", "XOR networks, and in how many").values()]
    return "in none" if shares and not any(shares) else "in some"


def after_retraining():
    left = table("obs", "Weights left, with 10 steps of training").values()
    gaps = [max(row[::3]) - min(row[::3]) for row in left]  # each mean with its interval
    return "close together" if len(gaps) == 3 and max(gaps) <= 1 else "keeps its lead"


def order_at_80():
    """The means; those whose intervals overlap are one place of the key."""
    rows = table("obs", "Test accuracy by sparsity, without retraining")  # at 0.5, 0.7 and 0.8
    names = ("OBS, damping 0.1", "OBD", "magnitude", "OBS, damping 0.0001")
    at_80 = {name: rows[name][6:9] for name in names}
    places, low = [], math.inf
    for name in sorted(names, key=lambda name: -at_80[name][0]):
        if at_80[name][2] < low:
            places.append([])
        places[-1].append(name)
        low = at_80[name][1]
    return places


def fisher_shrinks():
    factor = printed("fisher", "factor between F and H with r = 1/2 :")[0]
    later = printed("fisher", "factor between F and H with r = 1/20:")[0]
    return f"F shrinks by {factor / later:.0f}"


def order_survives():
    (order,) = re.findall(
        r"^empirical scale 0\.00.* order ([\d.]+)", outputs("fisher"), re.MULTILINE
    )
    return "above 0.98" if float(order) > 0.98 else "near 0"


def woodfisher():
    one, ten = (printed("fisher", f"Fisher blocks, {n} step{'s' * (n > 1)}  ")[3] for n in (1, 10))
    return f"one step about {one:.1f}, ten steps about {ten:.1f}"


def two_sigma():
    return f"{100 * math.erf(2 / math.sqrt(2)):.0f} %"


def next_round():
    after = printed("magnitude", "sparsity after each round:")
    return "the σ of the survivors is larger" if after == sorted(set(after)) else "nothing"


def most_sensitive():
    rows = {
        "the first": "first, 4096",
        "the middle": "middle, 2048",
        "the last": "last, 320",
    }
    left = {name: printed("magnitude", f"{row} weights:")[4] for name, row in rows.items()}
    return min(left, key=left.get)


def after_one_step():
    rules = {name: getattr(schedule, name) for name in ("linear", "exponential", "cubic")}
    return first({name: rule(0, 0.8, 0, 4)(1) for name, rule in rules.items()})


def where_steps_help():
    rows = experiments.table("schedules")
    by_shape = {
        shape: interval(
            sweep.column(sweep.select(rows, budget=30, shape=shape), "accuracy", "sparsity", "seed")
        ).mean
        for shape in ("cubic", "one-shot")
    }
    gain = by_shape["cubic"] - by_shape["one-shot"]
    sparsities = list(dict.fromkeys(row["sparsity"] for row in rows))
    return f"at {100 * sparsities[int(gain.argmax())]:.0f} %"


def new_weights():
    rows = experiments.table("retraining")
    kept, new = (
        [row["accuracy"] for row in sweep.select(rows, start=start, sparsity=0.95)]
        for start in ("trained, full rate", "new weights")
    )
    clear = min(a - b for a, b in zip(kept, new, strict=True)) > 0.1 and min(new) > 0.2
    return "a clearly lower accuracy" if clear else "the same accuracy"


def what_a_mask_changes():
    counts = re.findall(r"^(?:whole|masked) +(Count\(.*?\))", outputs("structured"), re.MULTILINE)
    return "neither" if len(set(counts)) == 1 else "smaller"


def emptied_layer():
    refused = "nothing is left of '0'" in outputs("structured")
    return "the first convolution" if refused else "a quarter from each"


def units_or_weights():
    units, weights = (
        printed("structured", f"{name} ")[9] for name in ("units          ", "single weights ")
    )
    return "single weights were removed" if weights > units + 0.05 else "no difference"


def at_the_kink():
    rests = float(sparse_training.soft_threshold(torch.tensor(0.6), 1.0)), 0.6 / (1 + 1.0)
    return "at 0 with |v|, at 0.3" if rests == (0.0, 0.3) else "with both"


def subgradient_zeros():
    return 6464 - table("sparse_training", "The 6464 weights of one network")["subgradient"][0]


def scatter_of_a_toss():
    (row,) = sweep.select(
        experiments.table("sparse_estimators"), estimator="score function", spread=0.5
    )
    unbiased = row["bias"] < 2 * row["error"]
    times = row["variance"] ** 0.5 / row["gradient"]
    return "ten times as far" if unbiased and 8 < times < 13 else "about as far"


def whose_noise():
    said = r"median noise: (\S+) of those that stay, (\S+) of those that go"
    stay, go = map(float, re.search(said, outputs("sparse_training")).groups())
    return "those that stay" if stay > 2 * go else "about the same"


def ahead_of_magnitude():
    rows = sweep.select(experiments.table("sparse_matched"), level=3, budget="epochs")
    ahead = []
    for method in ("L1", "L0", "variational dropout", "movement"):
        some = sweep.select(rows, method=method)
        if interval([row["accuracy"] - row["gradual"] for row in some]).low > 0:
            ahead.append(method)
    return "movement alone" if ahead == ["movement"] else "all four"


def by_depth():
    rows = sweep.select(experiments.table("sparse_depth"), kind="noise 0.5")
    return list(interval(sweep.column(rows, "accuracy", by="depth", over="seed")).mean)


def by_width():
    rows = sweep.select(experiments.table("sparse_widths"), kind="noise 0.5")
    narrow, middle, wide, *_ = interval(
        sweep.column(rows, "accuracy", by="width", over="seed")
    ).mean
    return "it gets better" if narrow < middle < wide else "it gets worse"


def both_removed():
    L = sum(sympy.symbols("w1 w2")) - 1
    changes = [(L**2).subs(gone) - 1 for gone in ({"w1": 0}, {"w2": 0}, {"w1": 0, "w2": 0})]
    holds = [change.subs({"w1": 1, "w2": 1}) for change in changes] == [-1, -1, 0]
    return "do not tell" if holds else "it falls"


def truth_as_criterion():
    kept = table("paradox", "Net A: mean test accuracy; leave-one-out")
    lost = kept["leave-one-out"][0] < kept["random"][0] - 0.1
    return "loses to random" if lost else "best"


def re_estimated():
    rows = experiments.table("paradox_steps")
    of = {n: [row["accuracy"] for row in sweep.select(rows, steps=n)] for n in (1, 10, 100, 1000)}
    return [sum(values) / len(values) for values in of.values()]


def stubborn():
    shares = table("paradox", "Without T2's 5 %")
    return "two of the ten" if min(two for _, two in shares.values()) > 0.5 else "it guesses"


def biases_back():
    return table("paradox", "Without 5 % of the weights, and repaired")["T2, biases repaired"][0]


def gradient_elsewhere():
    known = experiments.table("paradox_known")
    unseen = experiments.table("paradox_law") + experiments.table("paradox_law_mnist")
    hits = paradox_figures.hits(
        unseen, "gradient", paradox_figures.best_threshold(known, "gradient")
    )
    lost = [row["T2"] < row["random"] for row in unseen]
    return "some 120" if sum(hits) < sum(lost) and abs(sum(hits) - 120) < 5 else "about as often"


def held_out():
    random, t2, *_ = table("paradox", "Mean test accuracy, by net and images")["D, 200 held out"]
    return "falls below random" if t2 < random - 0.1 else "nothing changes"


def leave_one_out():
    random = re.search(
        r"^random +accuracy [\d.]+ \(([\d.]+) to ([\d.]+)\)", outputs("neurons"), re.MULTILINE
    )
    measured = re.search(r"^leave_one_out +accuracy ([\d.]+) ", outputs("neurons"), re.MULTILINE)
    return "no better" if float(measured.group(1)) <= float(random.group(2)) else "far better"


def repaired():
    line = r"^random +\+ least squares: accuracy ([\d.]+)"
    accuracy = float(re.search(line, outputs("neurons"), re.MULTILINE).group(1))
    return "0.94" if abs(accuracy - 0.94) < 0.02 else f"{accuracy:.2f}"


def coefficient():
    every = neurons.every_mask(3)
    values = torch.tensor([0.0, 1.0, 4.0, 2.0, 8.0, 3.0, 1.0, 6.0])
    worth = neurons.regress(every, values).worth
    same = torch.allclose(worth, neurons.banzhaf(values).to(worth.dtype))
    return "the mean of what the unit adds" if same else "nothing exact"


def times_smaller():
    rows = sweep.select(experiments.table("compression_formats"), sparsity=0.9, numbers="float32")
    factor = sum(row["dense"] / min(row["deep"], row["relative"]) for row in rows) / len(rows)
    return "between 7.5 and 9 times" if 7.5 < factor < 9 else "2 times"


def rounded(way, per="channel"):
    rows = sweep.select(experiments.table("compression_rounding_mnist"), per=per)
    return dict(
        zip(
            (8, 4, 3, 2),
            interval(sweep.column(rows, way, by="bits", over="seed")).mean,
            strict=True,
        )
    )


def by_bits():
    found = rounded("nearest")
    return [found[bits] for bits in (2, 3, 4, 8)]


def the_other_weight():
    H = torch.tensor([[2.0, 1.6], [1.6, 2.0]])
    step = compression.step(torch.tensor([0.55, 0.62]), torch.linalg.inv(H), 0, 1.0)
    return "go down" if step[0] > 0 > step[1] else "go up"


def deep_factors():
    said = table("compression", "LeNet-300-100, 92 % zeros")
    pruned, shared, coded = (row[0] for row in said.values())
    factors = {"pruning": pruned, "shared values": shared / pruned, "Huffman": coded / shared}
    return [[name] for name in sorted(factors, key=factors.get, reverse=True)]


def fastest_product():
    said = table("compression", "Milliseconds to multiply 1 row and 256 rows")
    took = {name: said[name][-1] for name in ("dense", "CSR, 90 % zeros", "8 bits")}
    return min(took, key=took.get)


def taught_or_told():
    rows = sweep.select(experiments.table("distillation_longer"), epochs=30)
    taught, told = (
        interval([r["accuracy"] for r in sweep.select(rows, way=way)])
        for way in ("teacher, T = 4", "labels")
    )
    return "the one with the labels" if taught.high < told.low else "no difference"


def worst_orders():
    rows = sweep.select(experiments.table("compression_orders"), level="hard")
    mean = {
        order: sum(r["accuracy"] for r in sweep.select(rows, order=order)) / 5
        for order in ("PDQ", "PQD", "DPQ", "QPD", "DQP", "QDP")
    }
    late = [mean[o] for o in mean if o.index("P") < o.index("Q")]
    soon = [mean[o] for o in mean if o.index("P") > o.index("Q")]
    return "share values before they prune" if max(soon) < min(late) - 0.1 else "does not matter"


def outlier_inputs():
    large = min(row["most"] for row in experiments.table("smollm2_inputs"))
    small = max(row["most"] for row in experiments.table("scale_inputs"))
    return "dozens of times as large" if large > 24 and small < 8 else "nothing"


def by_wanda():
    rows = sweep.select(experiments.table("smollm2"), way="Wanda", sparsity=0.5)
    return sum(row["python"] for row in rows) / len(rows)


def updates_first():
    rows = sweep.select(experiments.table("scale_methods"), sparsity=0.7)
    ways = ("OBS", "magnitude + least squares", "SparseGPT", "magnitude")
    found = [[row["loss"] for row in sweep.select(rows, way=way)] for way in ways]
    for first, then in pairwise(found):
        assert interval([a - b for a, b in zip(first, then, strict=True)]).high < 0
    return [["OBS"], ["least squares"], ["SparseGPT"], ["magnitude alone"]]


def no_gain():
    rows = sweep.select(experiments.table("scale_methods"), sparsity=0.5)
    wanda, plain = ([r["loss"] for r in sweep.select(rows, way=w)] for w in ("Wanda", "magnitude"))
    less = interval([a - b for a, b in zip(wanda, plain, strict=True)])
    return "not to be told from zero" if less.low < 0 < less.high else "clearly"


def when_stretched():
    rows = sweep.select(experiments.table("scale_methods"), sparsity=0.5, way="magnitude")
    found = [sum(row["loss"] for row in rows) / len(rows)]
    for spread in (0.5, 1.0, 2.0):
        some = sweep.select(experiments.table("scale_spreads"), spread=spread, way="magnitude")
        found.append(sum(row["loss"] for row in some) / len(some))
    return found


def head_or_channels():
    rows = sweep.select(experiments.table("scale_units"), left=0.75)
    heads, channels = (
        [r["loss"] for r in sweep.select(rows, part=part)] for part in ("attention", "mlp")
    )
    dearer = min(h - c for h, c in zip(heads, channels, strict=True)) > 0.05
    return "the head" if dearer else "about the same"


KEY = {
    "00.1": lambda: f"{150 / 200}",
    "00.2": order_of_three,
    "01.1": second_derivative_test,
    "01.2": saddle_from,
    "01.3": negative_curvatures,
    "02.1": closer,
    "02.2": error_of_second_order,
    "02.3": removed_together,
    "03.1": operations_left,
    "03.2": spared_layer,
    "03.3": better_masks,
    "04.1": cheaper_weight,
    "04.2": summed_first,
    "04.3": worst_assumption,
    "05.1": first_of_three,
    "05.2": xor_spares,
    "05.3": after_retraining,
    "05.4": order_at_80,
    "06.1": fisher_shrinks,
    "06.2": order_survives,
    "06.3": woodfisher,
    "07.1": two_sigma,
    "07.2": next_round,
    "07.3": most_sensitive,
    "08.1": after_one_step,
    "08.2": where_steps_help,
    "08.3": new_weights,
    "09.1": what_a_mask_changes,
    "09.2": emptied_layer,
    "09.3": units_or_weights,
    "10.1": at_the_kink,
    "10.2": subgradient_zeros,
    "10.3": scatter_of_a_toss,
    "10.4": lambda: "and still has a slope",
    "10.5": whose_noise,
    "10.6": ahead_of_magnitude,
    "10.7": by_depth,
    "10.8": by_width,
    "11.1": stubborn,
    "11.2": truth_as_criterion,
    "11.3": both_removed,
    "11.4": lambda: 300**0.5,
    "11.5": biases_back,
    "11.6": gradient_elsewhere,
    "11.7": held_out,
    "11.8": re_estimated,
    "12.1": leave_one_out,
    "12.2": repaired,
    "12.3": coefficient,
    "13.1": times_smaller,
    "13.2": by_bits,
    "13.3": the_other_weight,
    "13.4": lambda: rounded("GPTQ")[2],
    "13.5": deep_factors,
    "13.6": fastest_product,
    "13.7": taught_or_told,
    "13.8": worst_orders,
    "14.1": outlier_inputs,
    "14.2": by_wanda,
    "14.3": lambda: "in the same order for all outputs",
    "14.4": updates_first,
    "14.5": no_gain,
    "14.6": when_stretched,
    "14.7": head_or_channels,
    "14.8": lambda: 4 * 28_672**2 / 1e9,
}

WHY = {
    "02.3": "do not add up",
    "05.3": "what the update of OBS does",
    "05.4": "keeps the step short",
    "10.5": "asks only for the ratio",
    "10.7": "each layer multiplies it",
    "11.2": "together",
    "11.5": "the same for every image",
    "11.8": "right for a small step",
    "13.2": "most weights are nearer to 0",
    "13.7": "more epochs",
    "14.5": "no outlier inputs",
    "14.6": "multiplied into the norm",
}
