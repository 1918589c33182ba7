"""The loss against its definition in numpy, gradients, steps in parts, averages and rates."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whatwhere.learn.average import Average
from whatwhere.learn.loss import segmentation_loss
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.step import cooled, make_optimizer, rate_at, set_rate, train_step
from whatwhere.network import UNet, pretrained_parameters, probe_machine
from whatwhere.records import VOID

CPU = probe_machine("cpu", "float32")


def reference(logits: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and 1 - Dice, pixel by pixel and class by class, as the module's docstring says."""
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    losses = []
    overlap, predicted, true = (np.zeros(logits.shape[1]) for _ in range(3))
    for n, y, x in np.ndindex(target.shape):
        label = target[n, y, x]
        if label == VOID:
            continue
        losses.append(-math.log(probabilities[n, label, y, x]))
        predicted += probabilities[n, :, y, x]
        true[label] += 1
        overlap[label] += probabilities[n, label, y, x]
    present = [c for c in range(len(true)) if true[c]]
    dice = [2 * overlap[c] / (predicted[c] + true[c]) for c in present]
    return (float(np.mean(losses)) if losses else 0.0), (1 - float(np.mean(dice)) if dice else 0.0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), void=st.sampled_from((0.0, 0.3, 1.0)), few=st.booleans())
def test_the_loss_is_its_definition(seed: int, classes: int, void: float, few: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, classes, 4, 5))
    target = rng.integers(0, 1 if few else classes, (2, 4, 5)).astype(np.uint8)
    target[rng.random(target.shape) < void] = VOID
    found = segmentation_loss(torch.from_numpy(logits).float(), torch.from_numpy(target), dice_weight=0.7)
    cross_entropy, dice = reference(logits, target)
    assert float(found.cross_entropy) == pytest.approx(cross_entropy, abs=1e-5)
    assert float(found.dice) == pytest.approx(dice, abs=1e-5)
    assert float(found.total) == pytest.approx(cross_entropy + 0.7 * dice, abs=1e-5)


def test_void_pixels_have_no_gradient_and_what_they_hold_does_not_matter() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (1, 4, 4), dtype=torch.uint8)
    target[0, :2] = VOID
    total = segmentation_loss(logits, target).total
    total.backward()
    assert logits.grad is not None
    assert not logits.grad[..., :2, :].any()
    assert logits.grad[..., 2:, :].all()
    changed = logits.detach().clone()
    changed[..., :2, :] += 5
    assert torch.equal(segmentation_loss(changed, target).total, total.detach())


def test_the_gradient_is_that_of_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 3, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 3), dtype=torch.uint8)
    target[0, 0] = VOID
    segmentation_loss(logits, target).total.backward()
    assert logits.grad is not None
    for place in ((0, 0, 2, 1), (1, 2, 0, 0), (1, 1, 1, 2)):
        losses = []
        for change in (-1e-2, 1e-2):
            moved = logits.detach().clone()
            moved[place] += change
            losses.append(float(segmentation_loss(moved, target).total))
        assert float(logits.grad[place]) == pytest.approx((losses[1] - losses[0]) / 2e-2, abs=2e-4)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 12),
    void=st.sampled_from((0.0, 0.3, 1.0)),
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    layout=st.sampled_from((torch.contiguous_format, torch.channels_last)),
    dice_weight=st.sampled_from((0.0, 0.7)),
)
def test_its_gradient_is_autograd_s_of_the_definition(
    seed: int, classes: int, void: float, dtype: torch.dtype, layout: torch.memory_format, dice_weight: float
) -> None:
    torch.manual_seed(seed)
    logits = (3 * torch.randn(3, classes, 4, 5)).to(dtype).contiguous(memory_format=layout).requires_grad_()
    target = torch.randint(0, classes, (3, 4, 5), dtype=torch.uint8)
    target[torch.rand(target.shape) < void] = VOID
    weights = 0.1 + torch.rand(classes)
    segmentation_loss(logits, target, weights=weights, dice_weight=dice_weight).total.backward()

    exact = logits.detach().double().requires_grad_()
    counted = target != VOID
    truth = nn.functional.one_hot(target.where(counted, 0).long(), classes)[counted].double()
    log_shares = exact.log_softmax(1).movedim(1, -1)[counted]
    cross_entropy = -(log_shares * truth * weights).sum() / (truth * weights).sum().clamp_min(1e-6)
    present = truth.sum(0) > 0
    dice = 2 * (log_shares.exp() * truth).sum(0) / (log_shares.exp() + truth).sum(0).clamp_min(1e-6)
    (cross_entropy + dice_weight * (1 - dice)[present].sum() / max(1, int(present.sum()))).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert logits.grad.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 4e-3 * max(1e-3, float(exact.grad.abs().max()))
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=tolerance)


def test_without_dice_it_is_torch_s_cross_entropy() -> None:
    logits, target = torch.randn(2, 4, 5, 5), torch.randint(0, 4, (2, 5, 5), dtype=torch.uint8)
    found = segmentation_loss(logits, target, dice_weight=0).total
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, target.long()))


def test_weights_of_classes_are_torch_s_too() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 5), torch.randint(0, 4, (2, 5, 5), dtype=torch.uint8)
    target[0, :2] = VOID
    weights = torch.tensor([0.2, 1.0, 3.0, 7.0])
    found = segmentation_loss(logits, target, weights=weights, dice_weight=0).total
    expected = nn.functional.cross_entropy(logits, target.long(), weights, ignore_index=VOID)
    torch.testing.assert_close(found, expected)


def test_a_class_absent_from_the_truth_has_no_dice() -> None:
    logits = torch.zeros(1, 3, 1, 2)
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    assert float(segmentation_loss(logits, target).dice) == pytest.approx(1 - 2 / 3 / (2 / 3 + 1))


def test_logits_and_truth_of_other_numbers_of_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        segmentation_loss(torch.zeros(3, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8))


# -- steps -------------------------------------------------------------------------------------------------------------


def batch(void: bool) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    target = torch.randint(0, 2, (4, 16, 16), dtype=torch.uint8)
    if void:
        target[0] = VOID
        target[2, :9] = VOID
    return torch.randn(4, 3, 16, 16), target


def stepped(
    accumulate: int, *, void: bool, weights: torch.Tensor | None = None
) -> tuple[dict[str, torch.Tensor], float]:
    torch.manual_seed(0)
    network = UNet(width=4, depth=1).eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    images, target = batch(void)
    result = train_step(
        network, optimizer, images, target, machine=CPU, weights=weights, dice_weight=0.0, accumulate=accumulate
    )
    assert result.finite
    return network.state_dict(), result.loss


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.4, 5.0])])
def test_a_step_in_parts_is_the_same_step(parts: int, void: bool, weights: torch.Tensor | None) -> None:
    whole, loss = stepped(1, void=void, weights=weights)
    in_parts, loss_of_parts = stepped(parts, void=void, weights=weights)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    for name, tensor in whole.items():
        torch.testing.assert_close(in_parts[name], tensor, rtol=1e-4, atol=1e-6)


def test_an_overflow_updates_nothing() -> None:
    network = UNet(width=4, depth=1)
    optimizer = make_optimizer(network, TrainingPlan(epochs=1))
    before = copy.deepcopy(dict(network.named_parameters()))
    images, target = batch(False)
    images[0, 0, 0, 0] = float("nan")
    assert not train_step(network, optimizer, images, target, machine=CPU).finite
    assert all(torch.equal(before[name], weights) for name, weights in network.named_parameters())


def test_weight_decay_is_for_kernels_alone() -> None:
    network = UNet(width=4, depth=1)
    decayed, free = make_optimizer(network, TrainingPlan(epochs=1, weight_decay=0.5)).param_groups
    assert decayed["weight_decay"] == 0.5
    assert free["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_what_comes_with_weights_learns_more_slowly() -> None:
    network = UNet(3, 2, width=4, depth=2, encoder="efficientnet-lite0")
    learnt = pretrained_parameters(network)
    optimizer = make_optimizer(network, TrainingPlan(epochs=1, encoder_rate=0.25), learnt)
    set_rate(optimizer, 0.008)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(network.parameters())), "each once"
    assert {rates[id(p)] for p in learnt} == {0.002}
    own = [*network.encoder.get_submodule("0").parameters(), *network.decoder.parameters(), *network.head.parameters()]
    assert {rates[id(p)] for p in own} == {0.008}


def test_bfloat16_computes_nearly_the_same_loss() -> None:
    torch.manual_seed(0)
    images, target = batch(False)
    losses = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = UNet(width=4, depth=1)
        machine = probe_machine("cpu", precision)  # type: ignore[arg-type]
        losses.append(
            train_step(network, make_optimizer(network, TrainingPlan(epochs=1)), images, target, machine=machine)
        )
    assert losses[1].loss == pytest.approx(losses[0].loss, rel=0.03)


@settings(max_examples=50)
@given(progress=st.floats(0, 1.2), warmup=st.floats(0, 1), cooldown=st.floats(0, 1))
def test_the_rate_stays_between_nothing_and_the_plan_s(progress: float, warmup: float, cooldown: float) -> None:
    plan = TrainingPlan(epochs=1, warmup=warmup, cooldown=cooldown, learning_rate=0.1)
    assert 0 <= rate_at(progress, plan) <= 0.1 + 1e-12


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    plan = TrainingPlan(epochs=1, warmup=0.2, learning_rate=1.0)
    assert rate_at(0, plan) == pytest.approx(0.05)
    assert rate_at(0.1, plan) == pytest.approx(0.525)
    assert rate_at(0.2, plan) == 1.0
    assert rate_at(0.6, plan) == pytest.approx(0.5)
    assert rate_at(1.0, plan) == pytest.approx(0)


def test_the_rate_stays_level_until_it_cools_down() -> None:
    plan = TrainingPlan(epochs=1, warmup=0.2, cooldown=0.4, learning_rate=1.0)
    assert [rate_at(progress, plan) for progress in (0.2, 0.4, 0.6)] == [1.0, 1.0, 1.0]
    assert rate_at(0.8, plan) == pytest.approx(0.5)
    assert rate_at(1.0, plan) == pytest.approx(0)


def test_the_average_follows_by_its_formula() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    average, expected = Average(network, decay=0.3), {k: v.clone() for k, v in network.state_dict().items()}
    for step in range(5):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(1)
        average.follow(network, step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            whole = not tensor.is_floating_point()
            expected[name] = tensor.clone() if whole else decay * expected[name] + (1 - decay) * tensor
    for name, tensor in average.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert not any(p.requires_grad for p in average.network.parameters())


def test_the_average_lags_less_the_lower_the_rate_and_ends_where_the_network_is() -> None:
    plan = TrainingPlan(epochs=1, warmup=0.1, cooldown=0.5)
    shares = [cooled(progress, plan) for progress in (0.0, 0.05, 0.5, 0.75, 0.9, 1.0)]
    assert shares[:3] == [1.0, 1.0, 1.0]
    assert shares[3] == pytest.approx(0.5)
    assert shares[-1] == 0.0
    distances = []
    for share in shares[2:]:
        network = nn.Conv2d(1, 1, 1)
        average = Average(network, decay=0.8)
        nn.init.constant_(network.weight, 1.0)
        nn.init.constant_(average.network.weight, 0.0)
        average.follow(network, 1000, share)
        distances.append(1.0 - float(average.network.weight.detach()))
    assert distances == pytest.approx([0.8, 0.6, 0.0, 0.0], abs=1e-6)
