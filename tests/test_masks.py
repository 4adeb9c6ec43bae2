"""Masks: exactly k, whatever the scores."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from teachkit import lab, masks
from teachkit.core.layers import weighted

FEW_VALUES = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])  # ties on purpose
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
SHAPES = st.one_of(st.just((1,)), st.just((0,)), hnp.array_shapes(max_dims=4, max_side=4))
SPARSITY = st.floats(0, 1)


@st.composite
def score_dicts(draw):
    dtype = draw(DTYPES)
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=3))
    arrays = [draw(hnp.arrays(float, shape, elements=FEW_VALUES)) for shape in shapes]
    return {f"w{i}": torch.from_numpy(a).to(dtype) for i, a in enumerate(arrays)}


def kept(found):
    return sum(int(m.sum()) for m in found.values())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@given(score_dicts(), SPARSITY)
def test_keep_top_is_its_oracle(scores, sparsity):
    assert equal(masks.keep_top(scores, sparsity), masks.keep_top_naive(scores, sparsity))


@given(score_dicts(), SPARSITY)
def test_keep_top_by_layer_is_the_oracle_on_each(scores, sparsity):
    found = masks.keep_top(scores, sparsity, "layer")
    assert equal(found, {n: masks.keep_top_naive({n: s}, sparsity)[n] for n, s in scores.items()})


@given(score_dicts(), SPARSITY)
def test_all_tied_still_keeps_exactly_k(scores, sparsity):
    tied = {n: torch.zeros_like(s) for n, s in scores.items()}
    n = sum(s.numel() for s in tied.values())
    assert kept(masks.keep_top(tied, sparsity)) == n - round(sparsity * n)


@given(score_dicts(), SPARSITY, SPARSITY)
def test_within_never_brings_a_weight_back(scores, first, second):
    low, high = sorted((first, second))
    before = masks.keep_top({n: -s for n, s in scores.items()}, low)
    after = masks.keep_top(scores, high, within=before)
    n = sum(s.numel() for s in scores.values())
    assert kept(after) == n - round(high * n)
    assert equal(masks.combine(before, after), after)


def test_within_refuses_to_keep_more_than_there_is():
    scores = {"w": torch.arange(4.0)}
    with pytest.raises(ValueError, match="2 of 4 weights were asked to stay.*keep only 1"):
        masks.keep_top(scores, 0.5, within=masks.keep_top(scores, 0.75))


@given(score_dicts(), st.data())
def test_quota_keeps_its_numbers(scores, data):
    quota = {n: data.draw(st.integers(0, s.numel())) for n, s in scores.items()}
    found = masks.keep_quota(scores, quota)
    assert {n: int(m.sum()) for n, m in found.items()} == quota


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.data())
def test_n_of_m_is_its_oracle(rows, groups, m, data):
    shape = (rows, groups * m, *data.draw(st.sampled_from([(), (2,), (2, 3)])))
    score = torch.from_numpy(data.draw(hnp.arrays(float, shape, elements=FEW_VALUES)))
    n = data.draw(st.integers(0, m))
    assert torch.equal(
        masks.keep_n_of_m({"w": score}, n, m)["w"], masks.keep_n_of_m_naive(score, n, m)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_scores_that_are_not_finite_are_refused_by_name(bad, dtype):
    scores = {"fc.weight": torch.tensor([1.0, bad], dtype=dtype)}
    with pytest.raises(
        ValueError, match=r"scores\['fc.weight'\] has 1 NaN or infinite values of 2"
    ):
        masks.keep_top(scores, 0.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: masks.keep_top(s, 1.5), r"sparsity must lie in \[0, 1\], got 1.5"),
        (lambda s: masks.keep_top(s, math.nan), "sparsity must lie in"),
        (lambda s: masks.keep_top(s, 0.5, "net"), "scope must be 'global' or 'layer', got 'net'"),
        (
            lambda s: masks.keep_quota(s, {"w": 5}),
            r"keep\['w'\] must be a whole number from 0 to 4, got 5",
        ),
        (
            lambda s: masks.keep_quota(s, {"v": 1}),
            r"keep has the keys \['v'\], scores have \['w'\]",
        ),
        (lambda s: masks.keep_n_of_m(s, 2, 3), "4 inputs, not a multiple of m=3"),
        (lambda s: masks.keep_n_of_m(s, 3, 2), "n must be a whole number from 0 to 2, got 3"),
    ],
)
def test_bad_requests_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call({"w": torch.arange(4.0)[None]})


@pytest.mark.parametrize("sparsity", ["0.5", None, True, [0.5]])
def test_a_sparsity_of_the_wrong_type_is_refused(sparsity):
    with pytest.raises(TypeError, match="sparsity must be a number"):
        masks.keep_top({"w": torch.arange(4.0)}, sparsity)


def test_scores_of_the_wrong_type_are_refused():
    with pytest.raises(TypeError, match=r"scores must be a dict of tensors, got \["):
        masks.keep_top([1.0], 0.5)
    with pytest.raises(TypeError, match=r"scores\['w'\] must be a tensor, got list"):
        masks.keep_top({"w": [1.0]}, 0.5)
    with pytest.raises(TypeError, match="must be real, got torch.complex64"):
        masks.keep_top({"w": torch.ones(2, dtype=torch.complex64)}, 0.5)


def test_nothing_to_prune_is_no_error():
    empty = nn.Sequential(nn.Flatten(), nn.ReLU())
    assert masks.prunable(empty) == {}
    assert masks.keep_top({}, 0.5) == {}
    assert masks.sparsity({}) == 0.0
    assert masks.sparsity({"w": torch.ones(0, dtype=torch.bool)}) == 0.0


@pytest.mark.parametrize("name", lab.models.MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 1.0])
def test_apply_zeroes_exactly_the_masked_weights(name, dtype, sparsity):
    model = lab.models.MODELS[name]((1, 8, 8)).to(dtype)
    before = {n: p.clone() for n, p in model.named_parameters()}
    found = masks.keep_top(
        {n: w.detach().abs() for n, w in masks.prunable(model).items()}, sparsity
    )
    pruned = masks.apply(model, found)
    for n, p in pruned.named_parameters():
        assert torch.equal(p, before[n] * found.get(n, torch.tensor(True)))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert masks.sparsity(masks.nonzero(pruned)) == pytest.approx(sparsity, abs=1e-3)
    again = masks.apply(pruned, found)
    assert all(
        torch.equal(a, b) for a, b in zip(pruned.parameters(), again.parameters(), strict=True)
    )


@given(score_dicts(), SPARSITY)
def test_change_takes_the_weights_to_the_pruned_ones(scores, sparsity):
    layer = nn.Linear(3, 2)
    found = masks.keep_top({"weight": torch.randn(2, 3)}, sparsity)
    moved = layer.weight + masks.change(layer, found)["weight"]
    assert torch.equal(moved, masks.apply(layer, found).weight)


def test_prunable_are_linear_and_conv_weights_once():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.Flatten(), shared, shared)
    assert list(masks.prunable(model)) == ["0.weight", "3.weight"]
    assert list(masks.prunable(model, biases=True)) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert masks.prunable(model)["3.weight"] is shared.weight
    assert list(masks.prunable(nn.Linear(1, 1))) == ["weight"]


def test_masks_are_checked():
    layer = nn.Linear(2, 1)
    with pytest.raises(
        ValueError, match=r"masks has the key 'w'; allowed are \['bias', 'weight'\]"
    ):
        masks.apply(layer, {"w": torch.ones(1, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"masks\['weight'\] has shape \(2,\), not \(1, 2\)"):
        masks.apply(layer, {"weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(TypeError, match=r"masks\['weight'\] must be boolean .*got torch.float64"):
        masks.apply(layer, {"weight": torch.ones(1, 2)})
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got int"):
        masks.apply(3, {})
    with pytest.raises(ValueError, match=r"masks\['w'\] come as \(1,\) and \(2,\)"):
        masks.combine({"w": torch.tensor([True])}, {"w": torch.tensor([True, False])})
    layer.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="parameter 'weight' has 1 NaN"):
        masks.prunable(layer)


@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(1, 3), st.data())
def test_linear_operations_are_their_oracle(inputs, outputs, bias, rows, data):
    layer = nn.Linear(inputs, outputs, bias=bias)
    mask = torch.from_numpy(data.draw(hnp.arrays(bool, (outputs, inputs))))
    found = masks.operations(layer, torch.ones(rows, inputs), {"weight": mask})[""]
    assert found == masks.operations_naive(mask, rows, bias)


@given(st.booleans(), st.sampled_from([1, 2]), st.integers(1, 3), st.data())
def test_conv_operations_are_their_oracle(bias, groups, kernel, data):
    layer = nn.Conv2d(2, 4, kernel, padding=1, stride=2, groups=groups, bias=bias)
    mask = torch.from_numpy(data.draw(hnp.arrays(bool, tuple(layer.weight.shape))))
    x = torch.ones(2, 2, 5, 6)
    found = masks.operations(layer, x, {"weight": mask})[""]
    assert found == masks.operations_naive(mask, layer(x)[:, 0].numel(), bias)


def test_operations_of_a_chain_add_up_and_leave_the_model_alone():
    model = lab.models.vgg_like().train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    by_layer = masks.operations(model, torch.ones(1, 1, 8, 8))
    assert list(by_layer) == [n for n, _ in weighted(model)]
    assert masks.total(by_layer).multiplications == sum(
        o.multiplications for o in by_layer.values()
    )
    assert (
        masks.total(masks.operations(lab.models.mlp(), torch.ones(1, 64))).multiplications == 6464
    )
    assert model.training
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    assert not any(m._forward_hooks for m in model.modules())


def test_operations_refuse_what_they_do_not_count():
    with pytest.raises(ValueError, match="layer '0' is a transposed convolution"):
        masks.operations(nn.Sequential(nn.ConvTranspose2d(1, 1, 2)), torch.ones(1, 1, 2, 2))


@given(st.integers(0, 60), st.data())
def test_log10_subsets_is_its_oracle(n, data):
    k = data.draw(st.integers(0, n))
    assert masks.log10_subsets(n, k) == pytest.approx(math.log10(math.comb(n, k)), abs=1e-12)


def test_log10_subsets_does_not_cancel_for_huge_n():
    n = 10**30
    assert masks.log10_subsets(n, 1) == pytest.approx(30, abs=1e-12)
    assert masks.log10_subsets(n, 2) == pytest.approx(60 - math.log10(2), abs=1e-12)
    with pytest.raises(ValueError, match="k must be a whole number from 0 to 3, got 4"):
        masks.log10_subsets(3, 4)


def tiny():
    generator = torch.Generator().manual_seed(3)
    batch = (torch.randn(12, 2, generator=generator), torch.arange(12) % 2)
    return lab.models.mlp((2,), 2, hidden=(2,)), batch


@pytest.mark.parametrize("k", [0, 3, 7, 8])
def test_brute_force_is_its_oracle(k):
    model, batch = tiny()
    choices, losses = masks.subset_losses(model, batch, k)
    assert (choices.sum(1) == k).all()
    assert len(choices) == math.comb(8, k)
    np.testing.assert_allclose(losses, masks.subset_losses_naive(model, batch, k), rtol=1e-12)
    found, loss = masks.best_subset(model, batch, k)
    assert loss == pytest.approx(float(losses.min()))
    assert lab.evaluation.evaluate(masks.apply(model, found), batch).loss == pytest.approx(loss)


def test_brute_force_says_what_it_would_take():
    power = math.log10(math.comb(6464, 3232))
    takes = rf"at most 20 weights; this model has 6464.*takes 10\^{power:.1f} networks"
    with pytest.raises(ValueError, match=takes):
        masks.best_subset(lab.models.mlp(), lab.data.digits().train, 3232)
    model, batch = tiny()
    with pytest.raises(ValueError, match="k must be a whole number from 0 to 8, got 9"):
        masks.best_subset(model, batch, 9)


@given(SPARSITY)
def test_torch_prune_takes_our_masks_and_gives_them_back(sparsity):
    model = lab.models.mlp((2, 2), 3, hidden=(4,))
    x = torch.randn(5, 2, 2)
    scores = {n: w.detach().abs() for n, w in masks.prunable(model).items()}
    found = masks.keep_top(scores, sparsity)
    carrying = masks.to_torch(model, found)
    assert prune.is_pruned(carrying)
    assert not prune.is_pruned(model)
    torch.testing.assert_close(carrying(x), masks.apply(model, found)(x))
    plain, back = masks.from_torch(carrying)
    assert equal(back, found)
    assert not prune.is_pruned(plain)
    assert prune.is_pruned(carrying)
    torch.testing.assert_close(plain(x), carrying(x))


def test_masks_that_torch_made_are_read():
    layer = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    prune.l1_unstructured(layer[0], "weight", amount=3)
    with pytest.raises(
        ValueError, match=r"layer '0' is masked by torch.nn.utils.prune.*from_torch"
    ):
        masks.prunable(layer)
    layer(torch.ones(1, 4)).sum().backward()
    plain, found = masks.from_torch(layer)
    assert int((~found["0.weight"]).sum()) == 3
    assert found["1.weight"].all()
    assert list(masks.prunable(plain)) == ["0.weight", "1.weight"]


def test_split_refuses_the_wrong_length():
    with pytest.raises(ValueError, match="3 entries cannot fill 2 weights"):
        masks.split(torch.ones(3), {"w": torch.ones(2)})


def test_layer_scope_takes_the_same_masks_as_global():
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    before = {"a": torch.tensor([True, False])}
    found = masks.keep_top(scores, 0.5, "layer", within=before)
    assert [m.tolist() for m in found.values()] == [[True, False], [False, True]]
    for scope in ("global", "layer"):
        with pytest.raises(ValueError, match="masks has the key 'z'"):
            masks.keep_top(scores, 0.5, scope, within={"z": before["a"]})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_tied_layers_share_a_mask():
    model, x = Tied(), torch.randn(3, 4)
    kept = {"a.weight": torch.eye(4) > 0}
    counts = masks.operations(model, x, kept)
    assert counts["a"] == counts["b"] == (12, 12)
    carrying = masks.to_torch(model, kept)
    torch.testing.assert_close(carrying(x), masks.apply(model, kept)(x))


def test_operations_leave_no_hook_behind_when_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3))
    with pytest.raises(ValueError, match="transposed"):
        masks.operations(model, torch.randn(1, 1, 5, 5))
    assert not model[0]._forward_hooks


def test_masked_biases_survive_the_round_trip():
    model = nn.Sequential(nn.Linear(4, 3))
    prune.l1_unstructured(model[0], "bias", amount=2)
    prune.l1_unstructured(model[0], "weight", amount=5)
    plain, found = masks.from_torch(model)
    assert [n for n, _ in plain.named_parameters()] == ["0.weight", "0.bias"]
    assert int((~found["0.bias"]).sum()) == 2
    torch.testing.assert_close(
        masks.to_torch(plain, found)(torch.ones(1, 4)), model(torch.ones(1, 4))
    )


def test_brute_force_needs_a_weight():
    with pytest.raises(ValueError, match="no prunable weight"):
        masks.best_subset(nn.Flatten(), lab.data.xor().train, 0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-2, 2)), min_size=1, max_size=8),
    st.integers(0, 8),
)
def test_zeros_go_before_everything_else(entries, k):
    layer = torch.nn.Linear(len(entries), 1, bias=False)
    layer.weight.data = torch.tensor([[float(alive) for alive, _ in entries]])
    scores = {"weight": torch.tensor([[float(score) for _, score in entries]])}
    sparsity = min(k, len(entries)) / len(entries)
    kept = masks.keep_top(masks.zeros_last(scores, layer), sparsity)["weight"][0]
    alive = torch.tensor([a for a, _ in entries])
    assert int(kept.sum()) == len(entries) - masks.removed(len(entries), sparsity)
    assert not (bool((kept & ~alive).any()) and bool((alive & ~kept).any()))
