"""Measures how strongly each loss term moves the generator's output: its share of the gradient there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from medgan.losses.objective import GeneratorInputs, GeneratorTerms, Objective

HARDLY_ACTS = 0.01
"""A term with a smaller share hardly acts."""


@dataclass
class GradientNorms:
    """Collects the norm of the gradient of each term at the generator's output, without the term's weight.

    A term that does not look at the output, such as `kl`, has none. A training is not changed: nothing is computed
    twice but the way back from each term to the output.

    Attributes:
        num_evaluations: number of evaluations of each term that are measured: parts of a batch times directions.
    """

    num_evaluations: int = 1
    squares: dict[str, list[Tensor]] = field(default_factory=dict)

    def watching(self, objective: Objective) -> Objective:
        """Returns the same objective, whose generator terms are measured when they are evaluated."""
        watched: GeneratorTerms = {
            name: (weight, partial(self._measured, name, term)) for name, (weight, term) in objective.generator.items()
        }
        return replace(objective, generator=watched)

    def norms(self) -> dict[str, float]:
        """Returns term -> norm of the gradient of the term, without its weight, over all measured outputs."""
        return {name: float(torch.stack(squares).sum().sqrt()) for name, squares in self.squares.items()}

    def shares(self, objective: Objective) -> dict[str, float]:
        """Returns term -> weight x norm over the sum of all weight x norm; see `shares_of`."""
        return shares_of(self.norms(), {name: weight for name, (weight, _) in objective.generator.items()})

    def _measured(self, name: str, term: Callable[[GeneratorInputs], Tensor], inputs: GeneratorInputs) -> Tensor:
        value = term(inputs)
        squares = self.squares.get(name, [])
        if len(squares) < self.num_evaluations and value.requires_grad:
            (gradient,) = torch.autograd.grad(value, inputs.output, retain_graph=True, allow_unused=True)
            if gradient is not None:
                self.squares[name] = [*squares, gradient.detach().square().sum()]
        return value


def shares_of(norms: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Returns term -> its share of the gradient at the output: weight x norm over the sum of all weight x norm.

    Args:
        norms: norm of the gradient of each term, without its weight; terms of the output only.
        weights: weight of each term; those without a norm do not count.
    """
    weighted = {name: weights.get(name, 0.0) * norm for name, norm in norms.items()}
    total = sum(weighted.values())
    return {name: value / total if total else 0.0 for name, value in weighted.items()}


def weight_for(share: float, *, norm: float, others: float) -> float:
    """Returns the weight with which a term has this share of the gradient.

    Args:
        share: above 0 and below 1.
        norm: norm of the term's gradient, without its weight.
        others: sum of weight x norm of all other terms.
    """
    return share / (1 - share) * others / norm
