"""What both networks minimize: weighted terms over views that are computed at most once (Armanious et al., eq. 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn


@dataclass
class GeneratorInputs:
    """What the generator's terms look at in one way of translation, computed on demand and shared.

    Attributes:
        source, target, output: (B, C, H, W) in [-1, 1]; `output` is the generator's, of `source`.
        generator: source -> target.
        discriminator: frozen during the generator's update; none where no term looks at it.
        extractor: frozen always; none where no term looks at it.
        inverse: target -> source; none where the method translates one way only.
        within: what the generator gave on the way to the output, where a term looks at it: the images of its blocks
            but the last, or the mean and log variance of its latent.
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
        """The discriminator's judgement of the output."""
        return self._judged.logits

    @property
    def output_levels(self) -> tuple[Tensor, ...]:
        """The output and the discriminator's features of it."""
        return (self.output, *self._judged.features)

    @cached_property
    @torch.no_grad()
    def target_levels(self) -> tuple[Tensor, ...]:
        """The target and the discriminator's features of it, without gradient."""
        return (self.target, *self._judge(self.target).features)

    @cached_property
    def output_features(self) -> tuple[Tensor, ...]:
        """The extractor's features of the output, a tensor a block."""
        return self._extract(self.output)

    @cached_property
    @torch.no_grad()
    def target_features(self) -> tuple[Tensor, ...]:
        """The extractor's features of the target, without gradient."""
        return self._extract(self.target)

    @cached_property
    def cycled(self) -> Tensor:
        """The output translated back: the source, if all is well (Zhu et al., 2017, eq. 2)."""
        assert self.inverse is not None, "a term asked for the way back, but no inverse was built"
        return self.inverse(self.output)

    @cached_property
    def kept(self) -> Tensor:
        """The target, translated as if it were a source: itself, if all is well (Zhu et al., 2017, 5.2)."""
        return self.generator(self.target)

    @cached_property
    def _judged(self) -> Any:
        return self._judge(self.output)

    def _judge(self, image: Tensor) -> Any:
        assert self.discriminator is not None, "a term asked for a judgement, but no discriminator was built"
        return self.discriminator(self.source, image)

    def _extract(self, image: Tensor) -> tuple[Tensor, ...]:
        assert self.extractor is not None, "a term asked for features, but no extractor was built"
        return self.extractor(image)


@dataclass
class DiscriminatorInputs:
    """What the discriminator's terms look at.

    Attributes:
        source, target, output: (B, C, H, W); the output detached.
        discriminator: itself, for whoever must ask it once more.
        real, fake: its logits and features of target and output.
    """

    source: Tensor
    target: Tensor
    output: Tensor
    discriminator: nn.Module
    real: Any
    fake: Any


GeneratorTerms = dict[str, tuple[float, Callable[[GeneratorInputs], Tensor]]]
DiscriminatorTerms = dict[str, tuple[float, Callable[[DiscriminatorInputs], Tensor]]]
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Objective:
    """Name -> (weight, term) for each of the two networks; a term of weight 0 is never evaluated.

    Attributes:
        generator: terms over `GeneratorInputs`.
        discriminator: terms over a `DiscriminatorInputs`.
        cycle_share: first and last r of (1 - r) x other terms + r x cycle (Kim et al., DiscoGAN); none: plain weights.
    """

    generator: GeneratorTerms
    discriminator: DiscriminatorTerms
    cycle_share: tuple[float, float] | None = None

    def at(self, progress: float) -> Objective:
        """The objective at a share of the training between 0 and 1."""
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
    terms: Mapping[str, tuple[float, Callable[[Seen], Tensor]]], seen: Seen
) -> tuple[Tensor, dict[str, Tensor]]:
    """sum of weight x term, and every evaluated term, detached: raw under its name, and as `<name>_weighted`."""
    weighted, logged = [], {}
    for name, (weight, term) in terms.items():
        if weight == 0:
            continue
        value = term(seen)
        weighted.append(weight * value)
        logged[name], logged[f"{name}_weighted"] = value.detach(), weighted[-1].detach()
    return torch.stack(weighted).sum(), logged
