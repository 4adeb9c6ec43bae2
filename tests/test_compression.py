"""Rounding, sharing, coding, files and distillation: twins, bounds, round trips to the last bit."""

import itertools
import json
import math
import random
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from drawers import Twin, normal, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, softmax

from teachkit import compression, lab, masks, obs
from teachkit.engine import archive, codes, formats, sharing
from teachkit.engine.forms import FORMS, runs
from teachkit.engine.refit import pass_gram
from teachkit.engine.rounding import gptq_gram
from teachkit.show.lessons import compression as scenes
from teachkit.show.lessons import compression_figures as figures
from teachkit.show.lessons import compression_tasks as tasks
from teachkit.show.lessons import compression_teaching as teaching

KINDS = st.sampled_from(("symmetric", "affine"))
BITS = st.integers(2, 8)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64]


def matrix(seed, rows=4, columns=6, sparsity=0.0):
    """Numbers as weights are, some of them zero."""
    W = normal(rows, columns, seed=seed)
    return W.masked_fill(normal(rows, columns, seed=seed + 1).abs() < 1.5 * sparsity, 0.0)


def few(n=200):
    data = lab.data.digits()
    return lab.data.Data(tuple(p[:n] for p in data.train), tuple(p[:100] for p in data.test))


def sparser(net, sparsity):
    return masks.apply(net, masks.keep_top(masks.prunable(net), sparsity, absolute=True))


def trained(**options):
    return lab.training.fit(lab.models.mlp(hidden=(16,)), few(), progress=False, **options)[0]


# Twins -----------------------------------------------------------------------------------------------


def rows_of_spacings(W, bits, kind):
    """The plain grid of each row, in the words of the fast one."""
    found = [compression.grid_naive(row.tolist(), bits, kind) for row in W]
    return (
        torch.tensor([[each.scale] for each in found]),
        torch.tensor([[float(each.zero)] for each in found]),
        found[0].low,
        found[0].high,
    )


def rounded_rows(W, bits, kind):
    rows = [row.tolist() for row in W]
    return torch.tensor(
        [compression.round_naive(row, compression.grid_naive(row, bits, kind)) for row in rows]
    )


def gptq_case(seed, bits, kind, per, damping, sparsity):
    W, X = matrix(seed, 3, 7, sparsity), normal(30, 7, seed=seed + 2)
    return W, X, compression.grid(W, bits, kind=kind, per=per), damping


def pairs(values, bits):
    skipped, numbers = runs(np.array(values, np.uint8)[None], bits)
    return list(zip(skipped.tolist(), numbers.tolist(), strict=True))


weights = st.builds(matrix, seeds, sparsity=st.sampled_from((0.0, 0.5)))
symbols = st.dictionaries(st.integers(0, 40), st.integers(1, 500), min_size=1, max_size=12)
# Away from the edges of clusters, where a rounding error may decide.
lists = st.lists(st.integers(-50, 50).map(lambda v: v / 7 + math.sin(v)), min_size=1, max_size=30)
TWINS = {
    "compression.grid_naive": Twin(
        st.tuples(weights, BITS, KINDS),
        fast=lambda W, bits, kind: compression.grid(W, bits, kind=kind)[:4],
        plain=rows_of_spacings,
    ),
    "compression.round_naive": Twin(
        st.tuples(weights, BITS, KINDS),
        fast=lambda W, bits, kind: compression.rounded(W, compression.grid(W, bits, kind=kind)),
        plain=rounded_rows,
    ),
    "compression.gptq_naive": Twin(
        st.builds(
            gptq_case,
            *(seeds, BITS, KINDS, st.sampled_from(("tensor", "channel", 3))),
            *(st.sampled_from((1e-3, 0.1)), st.sampled_from((0.0, 0.5))),
        ),
        fast=lambda W, X, to, damping: compression.gptq(W, X, to, damping=damping),
        plain=lambda W, X, to, damping: compression.gptq_naive(W, X, to, damping=damping),
    ),
    "compression.kmeans_naive": Twin(
        st.tuples(lists, st.integers(1, 6), st.sampled_from((1, 2, 300))),
        fast=lambda values, k, rounds: compression.kmeans(
            torch.tensor(values), k, rounds=rounds
        ).centres.tolist(),
    ),
    "compression.entropy": Twin(
        st.tuples(symbols.map(lambda counts: list(counts.values()))),
        fast=lambda counts: codes.entropy(np.array(counts)),
    ),
    "compression.huffman_naive": Twin(
        st.tuples(symbols),
        fast=lambda counts: bits_in_all(counts, codes.lengths(np.array(list(counts.values())))),
        plain=lambda counts: bits_in_all(
            counts, [len(word) for word in compression.huffman_naive(counts).values()]
        ),
    ),
    "compression.relative_naive": Twin(
        st.tuples(st.lists(st.integers(0, 1), max_size=40), st.integers(1, 3)),
        fast=pairs,
    ),
}


def bits_in_all(counts, lengths):
    return sum(int(n) * int(size) for n, size in zip(counts.values(), lengths, strict=True))


# Rounding --------------------------------------------------------------------------------------------


@given(seeds, BITS, KINDS, st.sampled_from(("tensor", "channel", 1, 4)))
def test_each_weight_goes_to_a_value_of_the_grid_and_to_the_nearest_one(seed, bits, kind, per):
    W = matrix(seed, sparsity=0.3)
    to = compression.grid(W, bits, kind=kind, per=per)
    made = compression.rounded(W, to)
    step = (to.scale.repeat_interleave(to.size, 1)[:, :6]).expand_as(W)
    assert bool(((made - W).abs() <= step / 2 + 1e-12).all())
    assert bool((made[W == 0] == 0).all())
    assert torch.equal(compression.rounded(made, to), made)
    q = compression.quantize(W, to)
    assert to.low <= int(q.min()) <= int(q.max()) <= to.high
    assert len(made.flatten().unique()) <= 2**bits * to.scale.numel()


@given(seeds, BITS)
def test_more_bits_and_more_scales_never_raise_the_largest_error(seed, bits):
    W = matrix(seed, 5, 8)

    def half(b, per):
        return float(compression.grid(W, b, per=per).scale.max()) / 2

    for per in ("tensor", "channel", 4):
        wrong = compression.rounded(W, compression.grid(W, bits, per=per)) - W
        assert float(wrong.abs().max()) <= half(bits, per) + 1e-12
    assert half(bits + 1, "channel") < half(bits, "channel")
    assert half(bits, 4) <= half(bits, "channel") <= half(bits, "tensor")


@given(seeds, BITS, KINDS, st.sampled_from(("tensor", "channel", 3)))
@settings(max_examples=30)
def test_the_best_clipping_is_the_best_of_those_tried_and_never_worse_than_none(
    seed, bits, kind, per
):
    W = matrix(seed, 3, 7)
    W[0, 0] = 9.0

    width = {"tensor": 7, "channel": 7}.get(per, per)

    def squares(clip):
        to = compression.grid(W, bits, kind=kind, per=per, clip=clip)
        wrong = (compression.rounded(W, to) - W).square()
        each = torch.stack([part.sum(1) for part in wrong.split(width, 1)])
        return each.sum() if per == "tensor" else each

    best = squares("best")
    for share in (0.3, 0.5, 0.72, 1.0):
        assert bool((best <= squares(share) + 1e-12).all())


def test_an_outlier_is_worth_clipping_at_few_bits():
    W = torch.cat([normal(1, 200, seed=1), torch.tensor([[12.0]])], 1)
    whole, less = (compression.grid(W, 3, clip=clip) for clip in (1.0, "best"))
    assert float(less.scale) < 0.6 * float(whole.scale)


@given(seeds, BITS, KINDS)
def test_rounding_is_torchs_own_arithmetic(seed, bits, kind):
    """fake_quantize, by tensor and by channel; ties go either way, since torch multiplies by 1 / scale."""
    W = matrix(seed, sparsity=0.3).float()
    for per in ("tensor", "channel"):
        to = compression.grid(W, bits, kind=kind, per=per)
        scale, zero = to.scale.float(), to.zero.to(torch.int32)
        if per == "tensor":
            theirs = torch.fake_quantize_per_tensor_affine(
                W, float(scale), int(zero), to.low, to.high
            )
        else:
            theirs = torch.fake_quantize_per_channel_affine(
                W, scale[:, 0], zero[:, 0], 0, to.low, to.high
            )
        place = W / scale
        tied = ((place - place.floor()) - 0.5).abs() < 1e-4
        torch.testing.assert_close(compression.rounded(W, to)[~tied], theirs[~tied])


def test_whole_numbers_are_torchs_and_so_is_the_product_in_whole_numbers():
    W, X = matrix(3, 8, 16).float(), normal(5, 16, seed=4).float()
    to = compression.grid(W, 8, per="channel")
    with warnings.catch_warnings(action="ignore"):  # torch says that these will move to torchao
        theirs = torch.quantize_per_channel(
            W, to.scale[:, 0].double(), torch.zeros(8), 0, torch.qint8
        )
        assert torch.equal(theirs.int_repr(), compression.quantize(W, to).to(torch.int8))
    Q, x = compression.quantize(W, to), compression.grid(X, 8, per="tensor")
    whole = compression.quantize(X, x).long() @ Q.long().T  # added up without any rounding
    product = compression.rounded(X, x) @ compression.rounded(W, to).T
    torch.testing.assert_close(whole.float() * x.scale * to.scale.T, product)


def test_the_range_is_that_of_torchs_observer():
    from torch.ao.quantization import MinMaxObserver

    W = matrix(5).float()
    with warnings.catch_warnings(action="ignore"):
        watch = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
        watch(W)
        scale, zero = watch.calculate_qparams()
    to = compression.grid(W, 8, kind="affine", per="tensor")
    assert float(to.scale) == pytest.approx(float(scale), rel=1e-6)
    assert int(to.zero) == int(zero)


def test_a_layer_of_zeros_and_one_of_equal_weights():
    for W in (torch.zeros(2, 3), torch.full((2, 3), 0.7)):
        for kind in ("symmetric", "affine"):
            made = compression.rounded(W, compression.grid(W, 4, kind=kind))
            torch.testing.assert_close(made, W)


# GPTQ is OBS -----------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 5))
def test_the_step_to_a_value_is_the_surgeons_with_the_value_in_place_of_zero(seed, n):
    A, w = normal(n, 2 * n, seed=seed).double(), normal(n, seed=seed + 1).double()
    H = A @ A.T / n + 0.1 * torch.eye(n)
    P, q = torch.linalg.inv(H), seed % n
    torch.testing.assert_close(compression.step(w, P, q, 0.0), obs.update(w, P, q))
    δ = compression.step(w, P, q, 0.3)
    assert float((w + δ)[q]) == pytest.approx(0.3)
    cost = 0.5 * δ @ H @ δ
    assert float(cost) == pytest.approx(float((w[q] - 0.3) ** 2 / (2 * P[q, q])))
    other = δ + torch.where(torch.arange(n) == q, 0.0, 0.1 * normal(n, seed=seed + 2).double())
    assert float(0.5 * other @ H @ other) >= float(cost) - 1e-12


def test_on_a_grid_that_holds_only_zero_rounding_is_pruning():
    """The single pass with "nearest value" gives what it gives with "zero", to the last bit."""
    W, X = matrix(1, 5, 200).double(), normal(400, 200, seed=2).double()
    only = compression.Grid(torch.ones(1, 1), torch.zeros(1, 1), 0, 0, 200)
    H = X.T @ X
    pruned = pass_gram(W, H, 1.0, 1e-2)
    assert torch.equal(gptq_gram(W, H, only, 1e-2), pruned)
    assert not pruned.any()


def test_blocks_change_nothing(monkeypatch):
    W, X = matrix(1, 4, 50), normal(80, 50, seed=2)
    to = compression.grid(W, 3)
    whole = compression.gptq(W, X, to)
    monkeypatch.setattr("teachkit.engine.refit.BLOCK", 7)
    torch.testing.assert_close(compression.gptq(W, X, to), whole)


@pytest.mark.parametrize("order", ["given", "large first"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_changes_the_output_less_than_the_nearest_values(bits, order):
    mix = normal(40, 40, seed=9)
    W, X = normal(20, 40, seed=1), normal(500, 40, seed=2) @ mix
    to = compression.grid(W, bits)
    near, made = compression.rounded(W, to), compression.gptq(W, X, to, order=order)
    assert torch.equal(compression.rounded(made, to), made)
    error = [float(((each - W) @ X.T).square().sum()) for each in (near, made)]
    assert error[1] < 0.75 * error[0]
    assert float((made - W).square().sum()) > float(
        (near - W).square().sum()
    )  # further away, yet better


def test_without_correlations_gptq_is_rounding_to_the_nearest():
    W = matrix(1, 5, 8)
    to = compression.grid(W, 3)
    assert torch.equal(compression.gptq(W, 3 * torch.eye(8), to), compression.rounded(W, to))


def test_with_much_damping_gptq_is_rounding_to_the_nearest():
    W, X = matrix(1, 5, 8), normal(30, 8, seed=2)
    to = compression.grid(W, 3)
    assert torch.equal(compression.gptq(W, X, to, damping=1e8), compression.rounded(W, to))
    assert not torch.equal(compression.gptq(W, X, to), compression.rounded(W, to))


def test_the_options_of_a_network_are_those_of_its_layers():
    net, (x, y) = trained(epochs=2), few().train
    options = {"damping": 0.3, "order": "large first"}
    how = {"kind": "affine", "per": 10, "clip": "best"}
    made, _ = compression.round_layers(net, 3, (x, y), **options, **how)
    W = net[1].weight.detach()
    alone = compression.gptq(W, x.flatten(1), compression.grid(W, 3, **how), **options)
    torch.testing.assert_close(made[1].weight.detach(), alone)
    for key, other in {"damping": 1e-2, "order": "given"}.items():
        changed, _ = compression.round_layers(net, 3, (x, y), **(options | {key: other}), **how)
        assert not torch.equal(changed[1].weight, made[1].weight)


def test_zeros_and_dead_inputs_stay_and_take_no_part():
    W, X = matrix(4, 5, 12, sparsity=0.5), normal(60, 12, seed=5)
    X[:, 3] = 0
    to = compression.grid(W, 3)
    for order in ("given", "large first"):
        made = compression.gptq(W, X, to, order=order)
        assert bool((made[W == 0] == 0).all())
        assert torch.equal(made[:, 3], compression.rounded(W, to)[:, 3])


def test_a_network_on_grids_is_what_is_stored_of_it():
    net, batch = trained(epochs=3), few().train
    for given_batch in (None, batch):
        for per in ("tensor", "channel", 5):
            made, stored = compression.round_layers(net, 3, given_batch, per=per, kind="affine")
            for name, w in masks.prunable(made).items():
                assert torch.equal(stored[name].dense(), w.detach())
                assert stored[name].numbers.dtype == torch.int8
            assert torch.equal(made[1].bias, net[1].bias)
            assert not torch.equal(made[1].weight, net[1].weight)


def test_convolutions_and_their_groups_are_rounded_on_their_own_inputs():
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=i)
    x = normal(50, 4, 4, 4, seed=9)
    near, _ = compression.round_layers(net, 3)
    made, _ = compression.round_layers(net, 3, (x, torch.zeros(50)))
    W, halves = net[0].weight.detach().flatten(1), torch.nn.functional.unfold(x, 3)
    for i, part in enumerate(halves.chunk(2, 1)):
        rows, X = slice(3 * i, 3 * i + 3), part.transpose(1, 2).reshape(-1, 18)
        alone = compression.gptq(W[rows], X, compression.grid(W[rows], 3))
        torch.testing.assert_close(made[0].weight[rows].flatten(1), alone)
    change = [float((net[0](x) - each[0](x)).square().sum()) for each in (near, made)]
    assert change[1] < change[0]


def test_gptq_keeps_accuracy_at_two_bits_where_the_nearest_values_do_not():
    data = lab.data.digits()
    net, _ = lab.training.fit(lab.models.mlp(), data.train, epochs=15, progress=False)
    near, made = (
        compression.round_layers(net, 2, batch, clip=1.0)[0] for batch in (None, data.train)
    )
    scores = [lab.evaluation.accuracy(each, data.test) for each in (net, near, made)]
    assert scores[1] < 0.85
    assert scores[2] > scores[0] - 0.03


# Shared values ---------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 8))
def test_centres_are_the_means_of_what_is_nearest_to_them(seed, k):
    values = normal(60, seed=seed).double()
    centres, labels = compression.kmeans(values, k)
    assert bool((centres.diff() >= 0).all())
    distance = (values[:, None] - centres).abs()
    torch.testing.assert_close(distance.min(1).values, (values - centres[labels]).abs())
    for i in range(k):
        if (labels == i).any():
            assert float(centres[i]) == pytest.approx(float(values[labels == i].mean()))
    even = torch.linspace(float(values.min()), float(values.max()), k).double()
    start = (values[:, None] - even).abs().min(1).values.square().sum()
    assert float((values - centres[labels]).square().sum()) <= float(start)


def test_lloyd_ends_in_a_minimum_that_need_not_be_the_best():
    values = [0.0, 1.0, 4.9, 5.1, 10.0]

    def cost(centres):
        return sum(min(abs(v - c) for c in centres) ** 2 for v in values)

    best = min(
        cost([np.mean(values[:i]), np.mean(values[i:j]), np.mean(values[j:])])
        for i in range(1, 4)
        for j in range(i + 1, 5)
    )
    assert cost(compression.kmeans_naive(values, 3)) == pytest.approx(best)
    stuck = [0.0, 0.1, 0.2, 5.0, 9.0, 9.5, 10.0]
    assert len(compression.kmeans(torch.tensor(stuck), 2).centres) == 2


def test_zeros_stay_zero_and_the_rest_shares_few_values():
    net = masks.apply(
        trained(epochs=2), masks.keep_top(masks.prunable(trained(epochs=2)), 0.6, absolute=True)
    )
    made, books = compression.share_layers(net, 2)
    for name, w in masks.prunable(made).items():
        before = masks.prunable(net)[name]
        assert torch.equal(w == 0, before == 0)
        assert len(w[w != 0].unique()) <= 4
        assert torch.equal(books[name].dense(), w.detach())


def test_the_gradient_of_a_centre_is_the_sum_of_its_weights_gradients():
    net, (x, y) = trained(epochs=1), few(50).train
    shared, books = compression.share_layers(net, 2)
    cross_entropy(shared(x), y).backward()
    looked = sharing.sharing(shared, books).train()
    cross_entropy(looked(x), y).backward()
    for name, phi in zip(looked.names, looked.phi, strict=True):
        g, labels = shared.get_parameter(name).grad, books[name].labels
        for i, slope in enumerate(phi.grad):
            assert float(slope) == pytest.approx(float(g[labels == i].sum()), abs=1e-12)


def test_tuning_moves_the_centres_and_nothing_else_about_the_sharing():
    data, net = few(), trained(epochs=5)
    kept = masks.keep_top(masks.prunable(net), 0.5, absolute=True)
    shared, books = compression.share_layers(masks.apply(net, kept), 2)
    made, now, history = compression.tune(shared, books, data, epochs=8, progress=False)
    assert history.loss[-1] < history.loss[0]
    for name, w in masks.prunable(made).items():
        assert torch.equal(now[name].labels, books[name].labels)
        assert torch.equal(w == 0, ~kept[name])
        assert torch.equal(w.detach(), now[name].dense())
        assert not torch.equal(now[name].centres, books[name].centres)
        assert w.requires_grad
    again = compression.tune(shared, books, data, epochs=8, progress=False)[0]
    assert all(
        torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True)
    )


# Codes -----------------------------------------------------------------------------------------------


@given(symbols)
def test_huffmans_words_are_free_of_prefixes_and_within_one_bit_of_the_entropy(counts):
    words = compression.huffman_naive(counts)
    ordered = sorted(words.values())
    assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
    n, H = sum(counts.values()), compression.entropy(list(counts.values()))
    mean = sum(counts[s] * len(word) for s, word in words.items()) / n
    assert mean >= H - 1e-9
    assert mean < H + 1 or (len(counts) == 1 and mean == 1)
    if len(counts) > 1:
        assert sum(0.5 ** len(word) for word in words.values()) == 1  # no word could be shorter


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_what_is_encoded_is_decoded_and_in_huffmans_bits(numbers):
    A = np.array(numbers)
    counts = np.bincount(A)
    depth = codes.lengths(counts)
    stream = codes.encode(A, depth)
    assert codes.decode(stream, depth, len(A)).tolist() == numbers
    plain = compression.huffman_naive(Counter(numbers))
    assert len(stream) == -(-sum(len(plain[n]) for n in numbers) // 8)


def test_words_of_very_different_lengths_and_across_pieces(monkeypatch):
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(sum(fibonacci[-2:]))
    depth = codes.lengths(np.array(fibonacci))
    assert depth.max() == 29
    monkeypatch.setattr(codes, "PIECE", 64)
    A = np.random.default_rng(0).integers(0, 30, 500)
    assert (codes.decode(codes.encode(A, depth), depth, 500) == A).all()


def test_bits_that_end_too_early_are_refused():
    depth = np.array([1, 2, 2], np.uint8)
    with pytest.raises(ValueError, match="hold 8 numbers, not 9"):
        codes.decode(np.zeros(1, np.uint8), depth, 9)


@given(st.integers(1, 20), st.lists(st.integers(0, 2**20 - 1), max_size=40))
def test_packed_bits_come_back(width, numbers):
    A = np.array(numbers, np.int64) % 2**width
    content = codes.pack(A, width)
    assert len(content) == -(-len(A) * width // 8)
    assert codes.unpack(content, width, len(A)).tolist() == A.tolist()


# Forms and files -------------------------------------------------------------------------------------


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)


def _bytes(t):
    flat = t.detach().reshape(-1)
    return (flat if t.dtype == torch.bool or not len(flat) else flat.view(torch.uint8)).tolist()


@st.composite
def tensors(draw, two_of_four=False):
    """Tensors of any shape and kind, with many or few zeros and values, −0 among them."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(seeds)
    t = (normal(shape, seed=seed) * draw(st.sampled_from((1, 3, 40)))).float()
    t = t.round() if draw(st.booleans()) else t
    gone = normal(shape, seed=seed + 1).abs() < draw(st.sampled_from((0.0, 0.6, 2.0, 9.0)))
    t = t.masked_fill(gone, 0.0)
    if t.numel() and dtype.is_floating_point:
        odd = draw(st.sampled_from((0.0, -0.0, 1e-7)))
        t.reshape(-1)[seed % t.numel()] = odd
    t = t.to(dtype)
    if two_of_four and t.ndim:
        flat = t.reshape(len(t), math.prod(shape[1:]))
        flat[:, 2::4] = 0
        flat[:, 3::4] = 0
    return t


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=40)
def test_every_form_gives_back_every_bit(form, data):
    t = data.draw(tensors(two_of_four=form == "2:4"))
    if form == "2:4" and not t.ndim:
        return
    packed = compression.pack(t, form)
    assert same_bits(compression.unpack(packed), t)
    assert packed.bytes == sum(part.nbytes for part in packed.parts.values())
    assert compression.smallest(t).bytes <= packed.bytes


@pytest.mark.parametrize("form", FORMS)
@given(seed=seeds, size=st.sampled_from((1, 2, 4, 8)), share=st.sampled_from((0.0, 0.5, 0.98)))
@settings(max_examples=20)
def test_every_pattern_of_bits_passes(form, seed, size, share):
    dice = np.random.default_rng(seed)
    A = dice.integers(0, 2 ** (8 * size) - 1, (5, 12), np.uint64, endpoint=True).astype(f"u{size}")
    A[dice.random(A.shape) < share] = 0
    if form == "2:4":
        A[:, 1::2] = 0
    write, read = FORMS[form]
    assert (read(write(A), A.shape, A.dtype) == A).all()


def test_the_bytes_are_those_that_the_form_promises():
    w = torch.zeros(4, 100, dtype=torch.float32)
    w[0, 99], w[2, 0], w[3, 50] = 1.0, 2.0, 1.0
    sizes = {form: compression.pack(w, form).bytes for form in compression.FORMS}
    assert sizes["dense"] == 1600
    assert sizes["bitmask"] == 50 + 12
    assert sizes["csr"] == 4 * 5 + 4 * 3 + 12
    assert sizes["2:4"] == 1600 // 2 + 200 * 2 // 8
    assert sizes["palette"] == 3 * 4 + 400 * 2 // 8
    full = {form: compression.pack(w + 1.5, form).bytes for form in ("dense", "bitmask", "csr")}
    assert full["bitmask"] == full["dense"] + 50  # where nothing is zero, all cost more than dense
    assert full["csr"] == 2 * full["dense"] + 20


def test_the_relative_index_takes_the_cheapest_width():
    w = torch.zeros(1, 4000, dtype=torch.float32)
    w[0, ::40] = torch.arange(1.0, 101.0)
    packed = compression.pack(w, "relative")
    for width in range(1, 12):
        skipped, _ = runs(formats._bits(w), width)
        assert packed.bytes - 1 <= -(-len(skipped) * width // 8) + 4 * len(skipped)


@given(seeds)
@settings(max_examples=20)
def test_huffman_comes_within_one_bit_of_the_bound(seed):
    w = (normal(20, 30, seed=seed) * 3).round().float()
    packed = compression.pack(w, "huffman")
    n = w.numel()
    assert compression.bound(w) <= packed.parts["words"].nbytes <= compression.bound(w) + n / 8 + 1


def test_what_a_mask_has_multiplied_away_may_be_minus_zero_which_is_kept():
    w = torch.tensor([[-1.0, 2.0]], dtype=torch.float32)
    multiplied, filled = w * torch.tensor([[0.0, 1.0]]).float(), w.masked_fill(w < 0, 0.0)
    assert torch.equal(multiplied, filled)
    assert compression.pack(multiplied, "csr").bytes == compression.pack(filled, "csr").bytes + 8


def test_what_a_form_cannot_hold_it_refuses():
    with pytest.raises(ValueError, match="at most 2 numbers that are not zero in every 4"):
        compression.pack(torch.ones(2, 4), "2:4")
    with pytest.raises(ValueError, match=r"form must be one of \['dense'.* got 'zip'"):
        compression.pack(torch.ones(2, 4), "zip")
    with pytest.raises(ValueError, match="at most 65536 numbers; here 70000 differ"):
        compression.pack(torch.arange(70000.0)[None], "palette")


def network():
    net = masks.apply(
        lab.models.mlp(hidden=(6,)),
        masks.keep_top(masks.prunable(lab.models.mlp(hidden=(6,))), 0.9, absolute=True),
    )
    return net.float()


@pytest.mark.parametrize("form", ["smallest", *(f for f in FORMS if f != "2:4")])
def test_a_file_gives_back_the_network_and_has_the_bytes_it_says(form, tmp_path):
    net, path = network(), tmp_path / "net.safetensors"
    size = compression.save(path, net, form=form)
    assert path.stat().st_size == size
    again = compression.load(path, lab.models.mlp(hidden=(6,), seed=3).float())
    for name, t in net.state_dict().items():
        assert same_bits(again.state_dict()[name], t)
    assert compression.save(path, net, form=form) == size
    if form == "dense":  # anybody's reader opens it
        from safetensors.torch import load_file

        theirs = load_file(path)["1.weight/values"].view(torch.float32).reshape(6, 64)
        assert torch.equal(theirs, net[1].weight.detach())


def test_a_network_on_grids_is_stored_as_whole_numbers_and_scales(tmp_path):
    net, path = lab.models.mlp().float(), tmp_path / "net"
    made, stored = compression.round_layers(net, 4)
    size = compression.save(path, made, stored, "palette")
    again = compression.load(path, net)
    assert all(same_bits(a, b) for a, b in zip(again.parameters(), made.parameters(), strict=True))
    head = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    palettes = sum(len(each.numbers.unique()) for each in stored.values())
    assert size - head == 6464 // 2 + palettes + 4 * (106 + 106)  # a scale for each row, and biases
    assert compression.save(path, made, form="palette") > 1.4 * size
    other, _ = compression.round_layers(net, 5)
    with pytest.raises(ValueError, match=r"stored\['1.weight'\] is not this model's weight"):
        compression.save(path, other, stored)


def test_any_single_bit_that_flips_is_noticed(tmp_path):
    path, dice = tmp_path / "net", random.Random(13)
    compression.save(path, network(), form="deep")
    content = path.read_bytes()
    head = 8 * (8 + int.from_bytes(content[:8], "little"))
    places = [dice.randrange(head) for _ in range(100)]
    places += [dice.randrange(head, 8 * len(content)) for _ in range(100)] + list(range(64))
    for at in places:
        spoiled = bytearray(content)
        spoiled[at // 8] ^= 1 << at % 8
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="is damaged"):
            compression.load(path, network())


def test_a_file_that_is_cut_or_another_kind_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "net"
    compression.save(path, network())
    content = path.read_bytes()
    for spoiled in (content[:-1], content + b"0", content[:50], b"", b"hello"):
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="net is (not a compressed network|damaged)"):
            compression.load(path, network())
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is not a compressed network"):
        compression.load(path, network())


def test_a_file_of_another_network_or_precision_is_refused(tmp_path):
    path = tmp_path / "net"
    compression.save(path, network())
    with pytest.raises(
        ValueError, match="'1.weight' is torch.float32 in the file and torch.float64"
    ):
        compression.load(path, lab.models.mlp(hidden=(6,)))
    with pytest.raises(ValueError, match="size mismatch|Missing key|load cannot work"):
        compression.load(path, lab.models.mlp(hidden=(7,)).float())
    with pytest.raises(ValueError, match="path must name a file that save has written, got 'no'"):
        compression.load("no", network())


def test_the_notes_in_a_file_are_json_that_says_what_is_in_it(tmp_path):
    content = archive.content({"a": torch.ones(2, 3).float()}, "bitmask")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    notes = json.loads(header["__metadata__"][archive.FORMAT][64:])
    assert notes == {"a": {"form": "bitmask", "shape": [2, 3], "dtype": "float32"}}
    assert archive.content({"a": torch.ones(2, 3).float()}, "bitmask") == content
    with pytest.raises(ValueError, match="without '/', got 'a/b'"):
        archive.content({"a/b": torch.ones(1)})


def test_a_file_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = tmp_path / "net"
    compression.save(path, network())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="form must be one of"):
        compression.save(path, network(), form="zip")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net"]


# Distillation ----------------------------------------------------------------------------------------


def logits(seed, n=5, C=4):
    return normal(n, C, seed=seed).double(), normal(n, C, seed=seed + 1).double()


@given(seeds, st.floats(0.3, 20))
def test_the_soft_gradient_is_the_derivative_of_the_cross_entropy(seed, T):
    z, v = logits(seed)
    z.requires_grad_()
    loss = -(softmax(v / T, 1) * torch.log_softmax(z / T, 1)).sum()
    want = torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(compression.soft_gradient(z.detach(), v, T), want)


@given(seeds)
def test_at_high_temperature_logits_are_matched(seed):
    z, v = logits(seed)
    gaps = []
    for T in (10.0, 100.0, 1000.0):
        limit = compression.matched_gradient(z, v, T)
        gaps.append(float((compression.soft_gradient(z, v, T) - limit).norm() / limit.norm()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


@given(seeds, st.floats(0.5, 9), st.floats(0, 1))
def test_the_loss_is_the_two_parts_that_it_says(seed, T, share):
    z, v = logits(seed)
    y = torch.arange(5) % 4
    targets = torch.stack([v, torch.nn.functional.one_hot(y, 4).double()], 1)
    soft = kl_div(torch.log_softmax(z / T, 1), softmax(v / T, 1), reduction="batchmean")
    want = share * T**2 * soft + (1 - share) * cross_entropy(z, y)
    got = compression.soft_loss(T, share)(z, targets)
    assert float(got) == pytest.approx(float(want), rel=1e-9, abs=1e-9)
    assert float(compression.soft_loss(T, 1.0)(v, targets)) == pytest.approx(0, abs=1e-12)


def test_softening_makes_equal_and_a_low_temperature_hard():
    z = torch.tensor([[3.0, 1.0, 0.0]])
    torch.testing.assert_close(compression.soften(z, 1.0), softmax(z, 1))
    assert float(compression.soften(z, 1e6).std()) < 1e-6
    assert float(compression.soften(z, 0.05).max()) == pytest.approx(1)


def test_a_share_of_zero_is_plain_training_and_masks_hold():
    data, teacher, student = few(), trained(epochs=3), lab.models.mlp(hidden=(8,))
    kept = masks.keep_top(masks.prunable(student), 0.5, absolute=True)
    options = {"epochs": 3, "progress": False, "masks": kept, "seed": 4}
    made, history = compression.distil(teacher, student, data, share=0.0, **options)
    plain, before = lab.training.fit(student, data, **options)
    for a, b in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert history.accuracy == before.accuracy
    taught, _ = compression.distil(teacher, student, data, **options)
    assert all(not (w[~kept[n]]).any() for n, w in masks.prunable(taught).items())
    assert not torch.equal(taught[1].weight, made[1].weight)


def test_a_student_learns_from_a_teacher_what_no_label_says():
    """Trained only on images of digits 0 to 7, it knows some of the 8s, which the teacher's doubts name."""
    (x, y), test = lab.data.digits()
    teacher, _ = lab.training.fit(lab.models.mlp(), (x, y), epochs=15, progress=False)
    seen = y < 8
    parts = lab.data.Data((x[seen], y[seen]), test)
    options = {"epochs": 30, "progress": False}
    student = lab.models.mlp(hidden=(32,), seed=2)
    taught, _ = compression.distil(teacher, student, parts, temperature=8.0, share=1.0, **options)
    plain, _ = lab.training.fit(student, parts.train, **options)
    unseen = test[1] >= 8
    shares = [
        float((net(test[0][unseen]).argmax(1) == test[1][unseen]).double().mean())
        for net in (taught, plain)
    ]
    assert shares[1] == 0
    assert shares[0] > 0.3


def test_the_teacher_is_asked_as_it_is_in_use_and_stays_as_it_is():
    teacher = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5), nn.BatchNorm1d(10)
    ).train()
    before = {k: t.clone() for k, t in teacher.state_dict().items()}
    first, second = (compression.soft_targets(teacher, few()).train[1] for _ in range(2))
    assert torch.equal(first, second)
    assert teacher.training
    assert all(torch.equal(before[k], t) for k, t in teacher.state_dict().items())
    assert not first.requires_grad


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: compression.grid(torch.ones(2, 3), 1), "bits must be a whole number from 2 to 16, got 1"),
        (lambda: compression.grid(torch.ones(3), 4), r"W must have .* \(out, in\).* got \(3,\)"),
        (lambda: compression.grid(torch.tensor([[math.nan]]), 4), "W has 1 NaN"),
        (lambda: compression.grid(torch.ones(2, 3), clip=0.0), "clip must be .* above 0 and up to 1"),
        (lambda: compression.grid(torch.ones(2, 3), clip=1.5), "clip must be 'best' .* got 1.5"),
        (lambda: compression.grid(torch.ones(2, 3), per=0), "per must be a whole number from 1, got 0"),
        (lambda: compression.grid(torch.ones(2, 3), kind="log"), "kind must be one of .* got 'log'"),
        (
            lambda: compression.gptq(torch.ones(2, 3), torch.ones(5, 4), compression.grid(torch.ones(2, 3))),
            r"inputs must have the shape \(n, 3\)",
        ),
        (
            lambda: compression.gptq(
                torch.ones(2, 3), torch.ones(5, 3), compression.grid(torch.ones(2, 3)), order="best"
            ),
            "order must be 'given' or 'large first', got 'best'",
        ),
        (lambda: compression.kmeans(torch.ones(2, 2), 2), r"values must have the shape \(n,\)"),
        (lambda: compression.kmeans(torch.ones(2), 0), "k must be a whole number from 1, got 0"),
        (lambda: compression.soften(torch.ones(2, 2), 0.0), "temperature must be .* above 0, got 0.0"),
        (lambda: compression.soft_loss(math.nan), "temperature must be a finite number"),
        (lambda: compression.soft_loss(2.0, 1.5), r"share must lie in \[0, 1\], got 1.5"),
        (lambda: compression.entropy([1, -1]), "each count must be a whole number from 0, got -1"),
        (lambda: compression.huffman_naive({"a": 0}), "each count must be a whole number from 1, got 0"),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_words(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_shared_values_must_be_the_models():
    _, books = compression.share_layers(lab.models.mlp(hidden=(5,)), 2)
    with pytest.raises(ValueError, match="shape"):
        compression.tune(lab.models.mlp(hidden=(6,)), books, few(), progress=False)


def test_fewer_rounds_of_clustering_stop_earlier():
    net = trained(epochs=2)
    nets = [compression.share_layers(net, 3, rounds=n)[0] for n in (1, 300)]
    spread = [float((each[1].weight - net[1].weight).square().sum()) for each in nets]
    assert spread[1] < spread[0]


def test_the_smallest_form_is_the_smallest_of_those_asked():
    w = matrix(1, 20, 30, sparsity=0.5).float()
    sizes = {form: compression.pack(w, form).bytes for form in ("dense", "csr", "bitmask")}
    assert compression.smallest(w, ("dense", "csr")).form == min(("dense", "csr"), key=sizes.get)
    assert compression.smallest(w, ("dense", "2:4")).form == "dense"
    with pytest.raises(ValueError, match="form must be one of"):
        compression.smallest(w, ("zip",))
    with pytest.raises(ValueError, match=r"none of the forms \['2:4'\] can hold this tensor"):
        compression.smallest(torch.ones(1, 4), ("2:4",))


# Explorers -------------------------------------------------------------------------------------------


def test_the_explorer_of_bits_shows_where_the_weights_of_a_unit_went():
    net, data = trained(epochs=5), few()
    draw = scenes.bits.prepare(net, data.train, data.test)
    for bits, way, batch in ((2, "nearest", None), (5, "GPTQ", data.train)):
        picture = draw(bits, way)
        made, _ = compression.round_layers(net, bits, batch)
        W, less = net[1].weight.detach(), made[1].weight.detach()
        row = int(W.norm(dim=1).argmax())
        error = float((less - W).norm() / W.norm())
        right = lab.evaluation.accuracy(made, data.test)
        values = len(less[row].unique())
        assert f"{values} different weights" in picture.alt
        assert picture.alt.endswith(f"{error:.3f}, test accuracy {right:.3f}.")
        left, _, after = picture.figure.axes
        assert len(left.lines) == (values if values <= scenes.COARSE else 0)
        assert np.allclose(after.images[0].get_array(), less[row].reshape(8, 8))


def test_the_explorer_of_doubts_shows_the_soft_targets():
    net, test = trained(epochs=5), few().test
    draw = scenes.doubts.prepare(net, test)
    for temperature in (1.0, 5.0):
        bars = draw(3, temperature).figure.axes[1].patches
        want = compression.soften(net(test[0][3:4]), temperature)[0]
        assert [bar.get_height() for bar in bars] == pytest.approx(want.tolist())


# What the lesson judges and draws -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (None, "return a list of up to 12 steps"),
        ([], "return a list of up to 12 steps"),
        ("train", "return a list of up to 12 steps"),
        ([("melt", 1)], "return a list of up to 12 steps"),
        ([("train", 1)] * 13, "return a list of up to 12 steps"),
        ([("train", "10")], "the second part of a step must be a number"),
        ([("prune", 1.0)], "prune takes the share of zeros"),
        ([("prune", float("nan"))], "prune takes the share of zeros"),
        ([("share", 9)], "share takes a whole number"),
        ([("share", 2.5)], "share takes a whole number"),
        ([("train", float("inf"))], "train takes a whole number"),
        ([("train", 40), ("teach", 21)], "60 epochs in all"),
    ],
)
def test_a_plan_that_is_none_is_refused_in_words(plan, says):
    with pytest.raises(ValueError, match=says):
        tasks.read(plan)


def test_a_plan_keeps_zeros_and_shared_values_whoever_trains():
    plan = [
        ("prune", 0.5),
        ("share", 2),
        ("train", 1),
        ("prune", 0.7),
        ("teach", 1),
        ("prune", 0.2),
    ]
    made = tasks.carried(tasks.read(plan))
    kept = {name: w != 0 for name, w in masks.prunable(made).items()}
    assert masks.sparsity(kept) == pytest.approx(0.7, abs=1e-3)
    assert all(len(w[w != 0].unique()) <= 4 for w in masks.prunable(made).values())


def test_a_plan_is_good_where_nothing_is_lost_and_its_score_are_bytes():
    good, bad = tasks.smallest([("share", 8)]), tasks.smallest([("prune", 0.99)])
    assert good.good
    assert "Score:" in good.words
    assert not bad.good
    assert bad.words.endswith("Nothing may be lost.")


def test_the_least_bytes_for_places_are_those_of_counting():
    numbers, places = figures.least(10, 3)
    assert (numbers, places) == (12.0, pytest.approx(math.log2(120) / 8))


def test_a_product_that_minds_no_sparsity_is_the_median_of_all():
    rows = [{"sparsity": s, "a: 1 rows": s, "a: 256 rows": 2 * s} for s in (1.0, 5.0, 3.0)]
    found = figures.products(rows, {"x": (None, "a"), "y": (5.0, "a")})
    assert found == [
        {"weights": "x", "1 rows": 3.0, "256 rows": 6.0},
        {"weights": "y", "1 rows": 5.0, "256 rows": 10.0},
    ]


def test_the_smallest_file_is_chosen_by_what_was_held_back():
    cells = [(0.0, 32, 0.9, 0.8, 100), (0.5, 4, 0.9, 0.7, 40), (0.8, 4, 0.89, 0.9, 10)]
    names = "sparsity", "bits", "held back", "accuracy", "bytes"
    rows = [{"seed": 0, "taught": False} | dict(zip(names, c, strict=True)) for c in cells]
    (found,) = teaching.chosen(rows)
    assert (found["zeros"], found["times smaller"]) == (0.5, 2.5)
    assert found["test accuracy"] == pytest.approx(-0.1)


def test_gains_are_pairs_of_one_seed():
    rows = [
        {"seed": s, "way": w, "accuracy": 0.5 + s + (w == "a") / 4} for s in (0, 1) for w in "ab"
    ]
    assert [float(each) for each in teaching.less(rows, "a", "b")] == pytest.approx([0.25] * 3)
