"""Real removal against Torch-Pruning, and what sparse and shrunk layers take.

Both cut the same channels out of the same network; the weights that are left are compared.
"""

import copy
import importlib
import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import lazily
from teachkit import lab, masks, structured

IMAGE, DIGIT = (1, 28, 28), (1, 8, 8)
Keep = dict[str, Tensor]
Nets = dict[str, tuple[nn.Module, tuple[int, int, int]]]


def networks(quick: bool) -> Nets:
    """By title a network and the shape of an image."""
    if quick:
        return {"VGG-like on digits": (lab.models.vgg_like(DIGIT).eval(), DIGIT)}
    return {
        "VGG-like, conv, norm, linear": (lab.models.vgg_like(IMAGE).eval(), IMAGE),
        "LeNet-5": (lab.models.lenet5(IMAGE).eval(), IMAGE),
        "LeNet-300-100": (lab.models.lenet_300_100(IMAGE).eval(), IMAGE),
        "residual, 8 blocks of 64": (lab.models.residual(64, 8).eval(), IMAGE),
    }


def cases(quick: bool) -> list[Case]:
    """Remove half of the units of every layer."""
    made = []
    for title, (net, shape) in networks(quick).items():
        keep = structured.keep_groups(structured.unit_scores(net), 0.5)
        peer = lazily(torch_pruning, net, keep, torch.rand(1, *shape))
        competitors = {
            "teachkit": Competitor(partial(ours, net, keep)),
            "Torch-Pruning": Competitor(peer, note="graph and removal"),
            "copy": Competitor(partial(copy.deepcopy, net), note="copies the network only"),
        }
        made.append(Case(f"{title}, half of all units", "teachkit", competitors, truth="teachkit"))
    return made


def ours(net: nn.Module, keep: Keep) -> dict[str, Tensor]:
    """Trace, cut and copy."""
    return _floats(structured.shrink(net, keep))


def torch_pruning(net: nn.Module, keep: Keep, x: Tensor) -> Callable[[], dict[str, Tensor]]:
    """Torch-Pruning (Fang et al. 2023): copy, build the dependency graph, prune its groups."""
    peer = importlib.import_module("torch_pruning")

    def run() -> dict[str, Tensor]:
        own = copy.deepcopy(net)
        graph = peer.DependencyGraph().build_dependency(own, example_inputs=x)
        for name, mask in keep.items():
            layer = own.get_submodule(name)
            linear = isinstance(layer, nn.Linear)
            way = peer.prune_linear_out_channels if linear else peer.prune_conv_out_channels
            gone = (~mask).nonzero().reshape(-1).tolist()
            graph.get_pruning_group(layer, way, idxs=gone).prune()
        return _floats(own)

    return run


def tables(quick: bool) -> list[Table]:
    """Break-even sparsities of CSR, and forward passes with the operations counted."""
    return [sparse(quick), passes(quick)]


def sparse(quick: bool) -> Table:
    """From which sparsity on CSR and blocks beat dense, float32."""
    rows = []
    sizes = [(40, 32)] if quick else [(104, 304), (304, 784), (1000, 1000)]
    kinds = {"CSR": None, "blocks of 4": 4, "blocks of 8": 8}
    cells = itertools.product(sizes, kinds.items(), [4] if quick else [1, 32, 256])
    for (outputs, inputs), (kind, block), batch in cells:
        at = structured.break_even(outputs, inputs, batch, block=block, rounds=1 if quick else 15)
        level = "never" if at.sparsity is None else f"{at.sparsity:.2f}"
        faster = at.speedup[at.sparsities.index(0.9)]
        rows.append([f"{outputs}x{inputs}", kind, str(batch), level, f"{faster:.2f}"])
    head = ["layer", "format", "batch", "breaks even at sparsity", "speed-up at 0.9"]
    text = "Sparse W with 4-byte indices times Xᵀ, against a dense product; float32."
    return Table("Where sparse formats break even", head, rows, text)


def passes(quick: bool) -> Table:
    """One forward pass of a network with 90 % removed: dense, masked, shrunk."""
    rows = []
    for title, (net, shape) in networks(quick).items():
        keep = structured.keep_groups(structured.unit_scores(net.float()), 0.5 if quick else 0.9)
        ways = {"masked": structured.silence, "shrunk": structured.shrink}
        models = {"dense": net} | {name: way(net, keep) for name, way in ways.items()}
        one = torch.rand(1, *shape).float()
        work = {n: masks.total(masks.operations(m, one))[0] for n, m in models.items()}
        for batch in (1, 64):
            x = torch.rand(batch, *shape).float()
            took = structured.latencies(models, x, 1 if quick else 15)
            times = [f"{took['dense'] / took[name]:.1f}" for name in ways]
            rows.append([title, str(batch), *times, f"{work['dense'] / work['shrunk']:.1f}"])
    head = ["network", "batch", "masked: times as fast", "shrunk: times as fast", "fewer products"]
    share = "half" if quick else "90 %"
    text = f"{share} of the units of every hidden layer removed; float32, one thread."
    return Table("One forward pass: dense, masked, shrunk", head, rows, text)


def _floats(net: nn.Module) -> dict[str, Tensor]:
    """What a network stores, without counters."""
    return {n: t.detach() for n, t in net.state_dict().items() if t.is_floating_point()}
