"""The generator's objective: weighted terms over views that are computed at most once (Armanious et al., eq. 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from medgan.losses.adversarial import Adversarial


@dataclass
class Views:
    """What the terms look at, computed on demand and shared.

    Attributes:
        source, target, output: (B, C, H, W) in [-1, 1].
        discriminator: frozen during the generator's update.
        extractor: frozen always.
    """

    source: Tensor
    target: Tensor
    output: Tensor
    discriminator: nn.Module
    extractor: nn.Module | None

    @cached_property
    def logits(self) -> Tensor:
        """The discriminator's judgement of the output."""
        return self._judged.logits

    @cached_property
    def output_levels(self) -> tuple[Tensor, ...]:
        """The output and the discriminator's features of it."""
        return (self.output, *self._judged.features)

    @cached_property
    @torch.no_grad()
    def target_levels(self) -> tuple[Tensor, ...]:
        """The target and the discriminator's features of it, without gradient."""
        return (self.target, *self.discriminator(self.source, self.target).features)

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
    def _judged(self) -> Any:
        return self.discriminator(self.source, self.output)

    def _extract(self, image: Tensor) -> tuple[Tensor, ...]:
        assert self.extractor is not None, "a term asked for features, but no extractor was built"
        return self.extractor(image)


@dataclass(frozen=True)
class Objective:
    """L = sum of weight x term for the generator; `adversarial` judges for the discriminator.

    A term of weight 0 is never evaluated.
    """

    adversarial: Adversarial
    terms: dict[str, tuple[float, Callable[[Views], Tensor]]]

    def generator_loss(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every evaluated term, detached: raw under its name, and `<name>_weighted`."""
        total = views.output.new_zeros(())
        logged = {}
        for name, (weight, term) in self.terms.items():
            if weight == 0:
                continue
            value = term(views)
            total = total + weight * value
            logged[name] = value.detach()
            logged[f"{name}_weighted"] = weight * value.detach()
        return total, logged

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What the discriminator minimizes: -E[log D(x,y)] - E[log(1 - D(G(y),y))] for the vanilla objective."""
        return self.adversarial.real(real_logits) + self.adversarial.fake(fake_logits)
