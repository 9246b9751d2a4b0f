"""Shares of the gradient: by hand, their properties, and that measuring changes nothing."""

import pytest
import torch
from torch import nn

from medgan.losses.gradient_shares import GradientNorms, shares_of, weight_for
from medgan.losses.objective import GeneratorInputs, Objective, weighted_sum

pytestmark = pytest.mark.unit


def inputs(output):
    zeros = torch.zeros_like(output)
    return GeneratorInputs(source=zeros, target=zeros, output=output, generator=nn.Identity())


def measured(terms, output, num_evaluations=1):
    objective, norms = Objective(terms, {}), GradientNorms(num_evaluations)
    weighted_sum(norms.watching(objective).generator, inputs(output))
    return objective, norms


def test_shares_equal_values_worked_by_hand():
    """The gradient of the sum is 1 in each of four pixels, norm 2; that of half the squares is the output, norm 5."""
    output = torch.tensor([3.0, 4.0, 0.0, 0.0]).view(1, 1, 2, 2).requires_grad_()
    terms = {"sum": (6.0, lambda one: one.output.sum()), "squares": (1.6, lambda one: one.output.square().sum() / 2)}
    objective, norms = measured(terms, output)
    assert norms.norms() == pytest.approx({"sum": 2.0, "squares": 5.0})
    assert norms.shares(objective) == pytest.approx({"sum": 12 / 20, "squares": 8 / 20})


def test_term_that_does_not_look_at_output_has_no_share():
    other = torch.ones(1, requires_grad=True)
    terms = {
        "sum": (1.0, lambda one: one.output.sum()),
        "kl": (1.0, lambda one: other.sum()),
        "constant": (1.0, lambda one: torch.ones(())),
    }
    objective, norms = measured(terms, torch.ones(1, 1, 2, 2, requires_grad=True))
    assert norms.shares(objective) == {"sum": 1.0}


def test_term_of_weight_zero_is_not_measured():
    terms = {"sum": (1.0, lambda one: one.output.sum()), "never": (0.0, lambda one: 1 / 0)}
    objective, norms = measured(terms, torch.ones(1, 1, 2, 2, requires_grad=True))
    assert norms.shares(objective) == {"sum": 1.0}


def test_only_first_evaluations_are_measured_and_add_up():
    objective, norms = Objective({"sum": (1.0, lambda one: one.output.sum())}, {}), GradientNorms(2)
    watched = norms.watching(objective)
    for _ in range(3):
        weighted_sum(watched.generator, inputs(torch.ones(1, 1, 2, 2, requires_grad=True)))
    assert norms.norms() == pytest.approx({"sum": 8**0.5})


def test_watched_terms_give_same_values_and_gradients():
    terms = {
        "squares": (2.0, lambda one: one.output.square().sum()),
        "cube": (1.0, lambda one: one.output.pow(3).sum()),
    }
    objective, gradients = Objective(terms, {}), []
    for chosen in (objective, GradientNorms().watching(objective)):
        output = torch.tensor([1.0, -2.0, 3.0, 0.5]).view(1, 1, 2, 2).requires_grad_()
        total, _ = weighted_sum(chosen.generator, inputs(output))
        total.backward()
        gradients.append((total.item(), output.grad))
    assert gradients[0][0] == gradients[1][0] and torch.equal(gradients[0][1], gradients[1][1])


def test_shares_sum_to_one_and_ignore_common_factor():
    norms, weights = {"a": 3.0, "b": 0.2, "c": 7.0}, {"a": 1.0, "b": 50.0, "c": 1e-3}
    shares = shares_of(norms, weights)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares_of(norms, {name: 9 * weight for name, weight in weights.items()}) == pytest.approx(shares)


def test_shares_of_zero_gradients_are_zero():
    assert shares_of({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}) == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_weight_for_share_gives_that_share(share):
    norms = {"a": 3.0, "style": 2e-7}
    weight = weight_for(share, norm=norms["style"], others=5 * norms["a"])
    assert shares_of(norms, {"a": 5.0, "style": weight})["style"] == pytest.approx(share)
