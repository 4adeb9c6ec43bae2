"""A drawer of networks that read their weights in odd ways, and the truth by plain autograd.

Every builder takes the width of the hidden layer and an activation, and gives a network for inputs
(n, 4) with 3 outputs. The truth asks the network itself, its own parameters in place, no copy.
"""

import types
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


class Odd(nn.Module):
    """Layers by name, and a forward that is a function of them and x."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.steps = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.steps(self, x)


def pair(width, act, forward, **more):
    return Odd(forward, a=nn.Linear(4, width), act=act(), b=nn.Linear(width, 3), **more)


def plain(net, x):
    return net.b(net.act(net.a(x)))


def tokens(x):
    return x.unflatten(1, (2, 2))


def attention(width, act):
    def forward(net, x):
        t = tokens(x)
        h, _ = net.mha(t, t, t, need_weights=False)
        return net.b(net.act(net.a(h.mean(1))))

    mha = nn.MultiheadAttention(2, 2, batch_first=True)
    return Odd(forward, mha=mha, a=nn.Linear(2, width), act=act(), b=nn.Linear(width, 3))


def attention_of_other_widths(width, act):
    def forward(net, x):
        h, _ = net.mha(x[:, None, :2], x[:, None], x[:, None])
        return net.b(h[:, 0])

    return Odd(
        forward,
        mha=nn.MultiheadAttention(2, 1, kdim=4, vdim=4, batch_first=True),
        b=nn.Linear(2, 3),
    )


def encoder(width, act):
    layer = nn.TransformerEncoderLayer(2, 1, width, dropout=0.0, batch_first=True)
    return Odd(
        lambda net, x: net.b(net.layer(tokens(x)).flatten(1)), layer=layer, b=nn.Linear(4, 3)
    )


def read_by_function(width, act):
    return pair(
        width, act, lambda net, x: net.b(net.act(functional.linear(x, net.a.weight, net.a.bias)))
    )


def convolution_read(width, act):
    def forward(net, x):
        image = functional.conv2d(x.reshape(-1, 1, 2, 2), net.a.weight, net.a.bias)
        return net.b(net.act(image.flatten(1)))

    return Odd(forward, a=nn.Conv2d(1, width, 2), act=act(), b=nn.Linear(width, 3))


def called_and_read(width, act):
    return pair(
        width, act, lambda net, x: plain(net, x) + functional.linear(x, net.a.weight)[:, :1].tanh()
    )


def read_in_the_loss_way(width, act):
    return pair(width, act, lambda net, x: plain(net, x) * net.a.weight.square().sum())


def detached(width, act):
    return pair(
        width, act, lambda net, x: plain(net, x) + functional.linear(x, net.a.weight.data)[:, :1]
    )


def tied(width, act):
    net = Odd(
        lambda net, x: net.e(net.b(net.act(net.a(x)))),
        **{"a": nn.Linear(4, 4), "act": act(), "b": nn.Linear(4, 4), "e": nn.Linear(4, 3)},
    )
    net.b.weight = net.a.weight
    return net


def two_names(width, act):
    a = nn.Linear(4, 4)
    chain = nn.Sequential(a, act(), a)
    return Odd(lambda net, x: net.e(net.chain(x)), a=a, chain=chain, e=nn.Linear(4, 3))


def called_twice(width, act):
    return Odd(
        lambda net, x: net.e(net.act(net.a(net.act(net.a(x))))),
        **{"a": nn.Linear(4, 4), "act": act(), "e": nn.Linear(4, 3)},
    )


def doubled(layer, x):
    return functional.linear(2 * x, layer.weight, layer.bias)


def chain(width, act):
    return nn.Sequential(nn.Linear(4, width), act(), nn.Linear(width, 3))


def bound_forward(width, act):
    net = chain(width, act)
    net[0].forward = types.MethodType(doubled, net[0])
    return net


def partial_forward(width, act):
    net = chain(width, act)
    net[0].forward = partial(doubled, net[0])
    return net


def closed_over(width, act):
    net = chain(width, act)
    net[0].forward = lambda x: doubled(net[0], x)
    return net


def closed_over_hook(width, act):
    net = chain(width, act)
    net[1].register_forward_hook(lambda layer, given, z: z + 0.1 * net[0].weight.sum())
    return net


class Scaled(nn.Linear):
    def forward(self, x):
        return functional.linear(x, self.weight - self.weight.mean(), self.bias)


class Standardised(nn.Conv1d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


def subclass(width, act):
    return nn.Sequential(Scaled(4, width), act(), nn.Linear(width, 3))


def convolution_subclass(width, act):
    layers = (nn.Unflatten(1, (2, 2)), Standardised(2, width, 2), act(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(width, 3))


def hooked(width, act):
    net = chain(width, act)
    net[0].register_forward_hook(lambda layer, given, z: 3 * z)
    return net


def pre_hooked(width, act):
    net = chain(width, act)
    net[0].register_forward_pre_hook(lambda layer, given: (given[0] + 0.5,))
    return net


def hooked_activation(width, act):
    net = chain(width, act)
    net[1].register_forward_hook(lambda layer, given, z: z * z)
    return net


def hook_that_reads(width, act):
    net = chain(width, act)
    net[0].register_forward_hook(lambda layer, given, z: z + layer.weight.square().sum())
    return net


def backward_hooked(width, act):
    net = chain(width, act)
    net[1].register_full_backward_hook(lambda layer, inward, outward: (2 * inward[0],))
    return net


def listed(width, act):
    net = pair(width, act, lambda net, x: net.b(net.act(functional.linear(x, net.weights[0]))))
    net.weights = [net.a.weight]
    return net


def without_gradients(width, act):
    def forward(net, x):
        with torch.no_grad():
            h = net.a(x)
        return net.b(net.act(h))

    return pair(width, act, forward)


def all_without_gradients(width, act):
    return pair(width, act, torch.no_grad()(plain))


def idle(width, act):
    return pair(width, act, plain, idle=nn.Linear(2, 2))


def read_while_idle(width, act):
    return pair(
        width,
        act,
        lambda net, x: plain(net, x) + functional.linear(x[:, :2], net.never.weight).sum(1, True),
        never=nn.Linear(2, 2),
    )


def recurrent(width, act):
    return Odd(
        lambda net, x: net.b(net.act(net.a(net.lstm(tokens(x))[0][:, -1]))),
        **{"lstm": nn.LSTM(2, 2, batch_first=True), "a": nn.Linear(2, width), "act": act()},
        b=nn.Linear(width, 3),
    )


def counting(width, act):
    def forward(net, x):
        h = net.a(x)
        net.seen.add_(h.mean(0))
        return net.b(net.act(h))

    net = pair(width, act, forward)
    net.register_buffer("seen", torch.zeros(width))
    return net


def embedded(width, act):
    """The weight is an embedding's first, the layer reads it from there."""
    net = Odd(
        lambda net, x: net.b(net.table((x[:, 0] > 0).long()) + net.act(net.a(x))),
        **{"table": nn.Embedding(4, 4), "a": nn.Linear(4, 4), "act": act(), "b": nn.Linear(4, 3)},
    )
    net.a.weight = net.table.weight
    return net


def normed(width, act):
    return nn.Sequential(weight_norm(nn.Linear(4, width)), act(), nn.Linear(width, 3))


def parametrized(width, act):
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, width)), act(), nn.Linear(width, 3)
    )


def spectral(width, act):
    return nn.Sequential(spectral_norm(nn.Linear(4, width)), act(), nn.Linear(width, 3))


def scripted(width, act):
    return torch.jit.script(chain(width, act))


def scripted_part(width, act):
    return nn.Sequential(torch.jit.script(nn.Linear(4, width)), act(), nn.Linear(width, 3))


def traced(width, act):
    return torch.jit.trace(chain(width, act), torch.zeros(2, 4))


def batch_statistics(width, act):
    norm = nn.BatchNorm1d(width, track_running_stats=False)
    return nn.Sequential(nn.Linear(4, width), norm, act(), nn.Linear(width, 3))


REFUSED = (normed, parametrized, spectral, scripted, scripted_part, traced)
ODD = (
    *(chain, attention, attention_of_other_widths, encoder, read_by_function, convolution_read),
    *(
        called_and_read,
        read_in_the_loss_way,
        detached,
        tied,
        two_names,
        called_twice,
        bound_forward,
    ),
    *(partial_forward, closed_over, closed_over_hook, subclass, convolution_subclass, hooked),
    *(pre_hooked, hooked_activation, hook_that_reads, backward_hooked, listed, without_gradients),
    *(
        all_without_gradients,
        idle,
        read_while_idle,
        recurrent,
        counting,
        embedded,
        batch_statistics,
    ),
)


def measure(net, batch, loss):
    """The loss of the network itself, with a graph that has second derivatives; its state is kept."""
    state = {name: b.detach().clone() for name, b in net.named_buffers()}
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(net(batch[0]), batch[1])
    for name, b in net.named_buffers():
        b.detach_().data.copy_(state[name])
    return value


def gradient(net, weights, batch, loss, **how):
    """∂L/∂w for each weight, zero where there is none."""
    value = measure(net, batch, loss)
    if not value.requires_grad:
        return [torch.zeros_like(w) for w in weights]
    given = torch.autograd.grad(value, weights, allow_unused=True, **how)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, given, strict=True)]


def hessian(net, weights, batch, loss):
    """∂²L/∂w∂w over all weights, (n, n), row by row."""
    first = gradient(net, weights, batch, loss, create_graph=True)
    rows = []
    for g in torch.cat([g.reshape(-1) for g in first]):
        if g.requires_grad:
            second = torch.autograd.grad(g, weights, retain_graph=True, allow_unused=True)
        else:
            second = [None] * len(weights)
        parts = [
            torch.zeros_like(w) if r is None else r for w, r in zip(weights, second, strict=True)
        ]
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def single_gradients(net, weights, batch, loss):
    """Each sample's gradient, (samples, n)."""
    rows = []
    for x, y in zip(*batch, strict=True):
        parts = gradient(net, weights, (x[None], y[None]), loss)
        rows.append(torch.cat([g.reshape(-1) for g in parts]))
    return torch.stack(rows)
