"""Real removal against Torch-Pruning, and what sparse and shrunk layers take.

Both cut the same channels out of the same network; the weights that are left are compared.
"""

import copy
import importlib
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import lazily
from teachkit import lab, masks, structured

IMAGE, DIGIT = (1, 28, 28), (1, 8, 8)
Keep = dict[str, Tensor]


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "VGG-like, conv, norm, linear": (partial(lab.models.vgg_like, IMAGE), IMAGE),
    "LeNet-5": (partial(lab.models.lenet5, IMAGE), IMAGE),
    "LeNet-300-100": (partial(lab.models.lenet_300_100, IMAGE), IMAGE),
    "residual, 8 blocks of 64": (partial(lab.models.residual, 64, 8), IMAGE),
}
TINY: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "VGG-like on digits": (partial(lab.models.vgg_like, DIGIT), DIGIT)
}


def cases(quick: bool) -> list[Case]:
    """Remove half of the units of every layer."""
    made = []
    for title, (build, shape) in (TINY if quick else NETS).items():
        net = build().eval()
        keep = structured.keep_groups(structured.unit_scores(net), 0.5)
        x = torch.rand(1, *shape)
        competitors = {
            "teachkit": Competitor(partial(ours, net, keep)),
            "Torch-Pruning": Competitor(
                lazily(torch_pruning, net, keep, x), note="graph and removal"
            ),
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
    sizes: Sequence[tuple[int, int]] = ((40, 32),)
    batches: Sequence[int] = (4,)
    rounds = 1
    if not quick:
        sizes, batches, rounds = ((104, 304), (304, 784), (1000, 1000)), (1, 32, 256), 15
    return [sparse(sizes, batches, rounds), passes(quick, rounds)]


def sparse(sizes: Sequence[tuple[int, int]], batches: Sequence[int], rounds: int) -> Table:
    """From which sparsity on CSR and blocks beat dense, float32."""
    rows = []
    kinds = {"CSR": None, "blocks of 4": 4, "blocks of 8": 8}
    for (outputs, inputs), (kind, block) in itertools.product(sizes, kinds.items()):
        for batch in batches:
            found = structured.break_even(outputs, inputs, batch, block=block, rounds=rounds)
            by = dict(zip(found.sparsities, found.speedup, strict=True))
            level = "never" if found.sparsity is None else f"{found.sparsity:.2f}"
            rows.append([f"{outputs}x{inputs}", kind, str(batch), level, f"{by[0.9]:.2f}"])
    head = ["layer", "format", "batch", "breaks even at sparsity", "speed-up at 0.9"]
    text = "Sparse W with 4-byte indices times Xᵀ, against a dense product; float32."
    return Table("Where sparse formats break even", head, rows, text)


def passes(quick: bool, rounds: int) -> Table:
    """One forward pass of a network with 90 % removed: dense, masked, shrunk."""
    rows = []
    for title, (build, shape) in (TINY if quick else NETS).items():
        net = build().float().eval()
        keep = structured.keep_groups(structured.unit_scores(net), 0.5 if quick else 0.9)
        models = {
            "dense": net,
            "masked": structured.silence(net, keep),
            "shrunk": structured.shrink(net, keep),
        }
        for batch in (1, 64):
            took = structured.latencies(models, torch.rand(batch, *shape).float(), rounds)
            one = torch.rand(1, *shape).float()
            work = {n: masks.total(masks.operations(m, one))[0] for n, m in models.items()}
            rows.append(
                [title, str(batch)]
                + [f"{took['dense'] / took[n]:.1f}" for n in ("masked", "shrunk")]
                + [f"{work['dense'] / work['shrunk']:.1f}"]
            )
    head = ["network", "batch", "masked: times as fast", "shrunk: times as fast", "fewer products"]
    share = "half" if quick else "90 %"
    text = f"{share} of the units of every hidden layer removed; float32, one thread."
    return Table("One forward pass: dense, masked, shrunk", head, rows, text)


def _floats(net: nn.Module) -> dict[str, Tensor]:
    """What a network stores, without counters."""
    return {n: t.detach() for n, t in net.state_dict().items() if t.is_floating_point()}
