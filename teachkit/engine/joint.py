"""What the weights of a set do together: the pushes of a step on the outputs, and what they cost.

To first order a step δ pushes the outputs f of sample n by p_n = J_n δ, with J = ∂f/∂θ. The
generalised Gauss–Newton matrix G (Schraudolph 2002) charges for the pushes, and for nothing else:

    ½ δᵀGδ = ½ mean over n of p_nᵀ S_n p_n,     S_n = ∂²ℓ/∂f² (under softmax diag(π) − ππᵀ).

So a set's joint cost takes one product Jδ and no matrix. A choice that *minds* the sum takes G as a
whole, once: with v = Gδ for the step so far, removing weight i as well costs −w_i v_i + ½ G_ii w_i²
more, and a removal changes v by one column of G. That is n² numbers and one column a removal.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, vjp
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.copies import caller, still_copy
from teachkit.core.objective import measured, refuse_sum_of
from teachkit.core.types import Batch, Loss, Params, Scores
from teachkit.core.weights import prunable, split
from teachkit.engine.dense import curvature

LIMIT = 8000  # weights; G takes 512 MB in float64
SAMPLES = 400  # of the batch; G of as many has rank 400 times the outputs less one


def pushes(model: nn.Module, x: Tensor, delta: Params) -> Tensor:
    """J δ: by how much a step pushes each output of each sample, to first order, like the outputs.

    By reverse mode twice, u ↦ uᵀJ being linear in u, so that whatever runs backwards runs here.

    >>> layer = nn.Linear(2, 1)
    >>> pushes(layer, torch.tensor([[1.0, 3.0]]), {"weight": torch.tensor([[0.0, -2.0]])})
    tensor([[-6.]])
    """
    return _pushed(*_outputs(model, x), delta)[1]


def joint_curvature(
    model: nn.Module, batch: Batch, delta: Params, loss: Loss = cross_entropy
) -> float:
    """½ δᵀGδ of a step, from its pushes."""
    x, y = checks.batch(batch)
    refuse_sum_of(model, batch, loss)
    output, p = _pushed(*_outputs(model, x), delta)

    def at(z: Tensor) -> Tensor:
        return measured(loss, z, y)

    bend = vjp(grad(at), output)[1]
    return 0.5 * float((p * bend(p)[0]).sum())


def greedy(G: Tensor, w: Tensor, g: Tensor | None = None, *, at_once: int = 1) -> Tensor:
    """The order in which weights go when each time those go that cost the sum least, (n,) positions.

    Args:
        G: the curvature (n, n), symmetric.
        w: the weights (n,); zeros go first.
        g: the gradient (n,), or None to leave it out.
        at_once: how many are chosen from one set of costs before the costs are computed anew.

    """
    first = torch.zeros_like(w) if g is None else -g * w
    own, v = first + 0.5 * G.diagonal() * w**2, torch.zeros_like(w)
    cost, order = own.masked_fill(w == 0, -torch.inf), list[Tensor]()
    for start in range(0, len(w), at_once):
        chosen = cost.topk(min(at_once, len(w) - start), largest=False).indices
        v -= G[:, chosen] @ w[chosen]
        order.append(chosen)
        own[chosen] = torch.inf
        cost = own - w * v
    return torch.cat(order)


def removal_order(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, at_once: int = 1
) -> Scores:
    """The step of :func:`greedy` at which each prunable weight goes, from G over the batch's first samples.

    Raises:
        ValueError: more than ``LIMIT`` weights.

    """
    weights = prunable(checks.model(model, checks.batch(batch)[0]))
    if not weights:
        return {}
    few = (batch[0][:SAMPLES], batch[1][:SAMPLES])
    G = curvature(model, few, loss, kind="gauss-newton", limit=LIMIT)
    w = torch.cat([w.detach().reshape(-1) for w in weights.values()])
    order = greedy(G, w, at_once=at_once)
    place = torch.empty_like(w)
    place[order] = torch.arange(len(w), device=w.device).to(w)
    return split(place, weights)


def _outputs(model: nn.Module, x: Tensor) -> tuple[Callable[[Params], Tensor], Params]:
    """The outputs as a function of the parameters, of a copy that no graph holds, and its parameters."""
    frozen = still_copy(checks.model(model, x))
    run = caller(frozen, x, model)
    return lambda given: run(given, x), {n: p.detach() for n, p in frozen.named_parameters()}


def _pushed(
    run: Callable[[Params], Tensor], params: Params, delta: Params
) -> tuple[Tensor, Tensor]:
    """The outputs, and J δ beside them."""
    given = checks.entries("delta", delta, params)
    step = {name: d.to(params[name]) for name, d in given.items()}
    moving = {name: params[name] for name in step}
    output, pull = vjp(lambda part: run({**params, **part}), moving)[:2]
    pushed: Tensor = vjp(lambda u: pull(u)[0], torch.zeros_like(output))[1](step)[0]
    return output, pushed
