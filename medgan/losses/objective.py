"""Defines what both networks minimize: weighted terms over shared inputs (Armanious et al., eq. 8)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn


@dataclass
class GeneratorInputs:
    """Holds the inputs of the generator's loss terms in one direction of translation, computed on demand and once.

    Attributes:
        source, target, output: (B, C, H, W) in [-1, 1]; `output` is the generator's output for `source`.
        discriminator: network, frozen during the generator's update; None if no term uses it.
        extractor: network, always frozen; None if no term uses it.
        inverse: network from target to source; None if the method translates in one direction only.
        within: intermediate results of the generator that a term uses: the images of all blocks but the last, or the
            mean and log variance of the latent.
    """

    source: Tensor
    target: Tensor
    output: Tensor
    generator: nn.Module
    discriminator: nn.Module | None = None
    extractor: nn.Module | None = None
    inverse: nn.Module | None = None
    within: tuple[Tensor, ...] = ()

    @cached_property
    def logits(self) -> Tensor:
        """Returns the discriminator's logits for the output."""
        return self._discriminated_output.logits

    @property
    def output_levels(self) -> tuple[Tensor, ...]:
        """Returns the output and the discriminator's features of it."""
        return (self.output, *self._discriminated_output.features)

    @cached_property
    @torch.no_grad()
    def target_levels(self) -> tuple[Tensor, ...]:
        """Returns the target and the discriminator's features of it, without gradient."""
        return (self.target, *self._discriminate(self.target).features)

    @cached_property
    def output_features(self) -> tuple[Tensor, ...]:
        """Returns the extractor's features of the output, one tensor a block."""
        return self._extract(self.output)

    @cached_property
    @torch.no_grad()
    def target_features(self) -> tuple[Tensor, ...]:
        """Returns the extractor's features of the target, without gradient."""
        return self._extract(self.target)

    @cached_property
    def cycled(self) -> Tensor:
        """Returns the output translated back, which should equal the source (Zhu et al., 2017, eq. 2)."""
        assert self.inverse is not None, "a term needs the inverse direction, but no inverse was built"
        return self.inverse(self.output)

    @cached_property
    def kept(self) -> Tensor:
        """Returns the target translated as if it were a source, which should not change it (Zhu et al., 2017, 5.2)."""
        return self.generator(self.target)

    @cached_property
    def _discriminated_output(self) -> Any:
        return self._discriminate(self.output)

    def _discriminate(self, image: Tensor) -> Any:
        assert self.discriminator is not None, "a term needs the discriminator, but no discriminator was built"
        return self.discriminator(self.source, image)

    def _extract(self, image: Tensor) -> tuple[Tensor, ...]:
        assert self.extractor is not None, "a term needs features, but no extractor was built"
        return self.extractor(image)


@dataclass
class DiscriminatorInputs:
    """Holds the inputs of the discriminator's loss terms.

    Attributes:
        source, target, output: (B, C, H, W); the output is detached.
        discriminator: network, for terms that evaluate it again.
        real, fake: the discriminator's logits and features of the target and of the output.
    """

    source: Tensor
    target: Tensor
    output: Tensor
    discriminator: nn.Module
    real: Any
    fake: Any


GeneratorTerms = dict[str, tuple[float, Callable[[GeneratorInputs], Tensor]]]
DiscriminatorTerms = dict[str, tuple[float, Callable[[DiscriminatorInputs], Tensor]]]
Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Objective:
    """Maps names to (weight, term) for each of the two networks; a term of weight 0 is never evaluated.

    Attributes:
        cycle_share: first and last r of (1 - r) x other terms + r x cycle (Kim et al., DiscoGAN); None: plain weights.
    """

    generator: GeneratorTerms
    discriminator: DiscriminatorTerms
    cycle_share: tuple[float, float] | None = None

    def at(self, progress: float) -> Self:
        """Returns the objective at `progress`, the completed share of the training, from 0 to 1."""
        if self.cycle_share is None:
            return self
        first, last = self.cycle_share
        share = first + (last - first) * progress
        weighted = {
            name: (weight * (share if name == "cycle" else 1 - share), term)
            for name, (weight, term) in self.generator.items()
        }
        return replace(self, generator=weighted, cycle_share=None)


def weighted_sum(
    terms: Mapping[str, tuple[float, Callable[[Inputs], Tensor]]], inputs: Inputs
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the sum of weight x term, and each evaluated term, detached: as `<name>` and as `<name>_weighted`."""
    weighted, logged = [], {}
    for name, (weight, term) in terms.items():
        if weight == 0:
            continue
        value = term(inputs)
        weighted.append(weight * value)
        logged[name], logged[f"{name}_weighted"] = value.detach(), weighted[-1].detach()
    return torch.stack(weighted).sum(), logged
