"""Computes MedGAN's training step directly from the paper, each loss by itself, as the reference for the engine.

Each use of discriminator and extractor has its own forward pass; nothing is shared, and nothing is frozen beyond what
a step needs; float32 (Armanious et al., sections 2 and 3.3).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from medgan.benchmark.plain_method import (
    BETAS,
    CONTENT,
    PERCEPTUAL,
    RATE,
    STYLE,
    UPDATES,
    Setting,
    build_discriminator,
    build_extractor,
    build_generator,
)
from medgan.training.step import Batch


class Reference:
    """Holds the freshly initialized networks of a setting, and plain Adam for two of them."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting = setting
        self.generator = build_generator(setting).to(device)
        self.discriminator = build_discriminator(setting).to(device)
        self.extractor = build_extractor(setting).to(device)
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS, foreach=False)
            for network in (self.generator, self.discriminator)
        )

    def step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Updates the generator three times, each on its own batch, then the discriminator on the last batch.

        Returns:
            The generator's unweighted terms of its last update, and `discriminator`, detached.
        """
        for _ in range(UPDATES.generator):
            source, target = next(batches)
            output = self.generator(source)
            losses = self.generator_losses(source, target, output)
            adversarial, perceptual, style, content = losses.values()
            total = adversarial + PERCEPTUAL * perceptual + STYLE * style + CONTENT * content
            self.generator_optimizer.zero_grad()
            total.backward()
            self.generator_optimizer.step()
        losses["discriminator"] = self.discriminator_loss(source, target, output.detach())
        self.discriminator_optimizer.zero_grad()
        losses["discriminator"].backward()
        self.discriminator_optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def generator_losses(self, source: Tensor, target: Tensor, output: Tensor) -> dict[str, Tensor]:
        """Returns the four terms of equation 8, without their weights."""
        return {
            "adversarial": self._adversarial(source, output),
            "perceptual": self._perceptual(source, target, output),
            "style": self._style(target, output),
            "content": self._content(target, output),
        }

    def discriminator_loss(self, source: Tensor, target: Tensor, output: Tensor) -> Tensor:
        """Returns -E[log D(x, y)] - E[log(1 - D(G(y), y))] (equation 1)."""
        real = self.discriminator(source, target).logits
        fake = self.discriminator(source, output).logits
        return binary_cross_entropy_with_logits(real, torch.ones_like(real)) + binary_cross_entropy_with_logits(
            fake, torch.zeros_like(fake)
        )

    def _adversarial(self, source: Tensor, output: Tensor) -> Tensor:
        """Returns -E[log D(G(y), y)], the form that does not saturate."""
        logits = self.discriminator(source, output).logits
        return binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def _perceptual(self, source: Tensor, target: Tensor, output: Tensor) -> Tensor:
        """Computes equations 3 and 4: the pixels and every hidden layer of the discriminator."""
        of_output = self.discriminator(source, output).features
        of_target = self.discriminator(source, target).features
        total = l1_loss(output, target)
        for one, other in zip(of_output, of_target, strict=True):
            total = total + l1_loss(one, other)
        return total

    def _style(self, target: Tensor, output: Tensor) -> Tensor:
        """Computes equations 5 and 6."""
        of_output, of_target = self.extractor(output), self.extractor(target)
        total = torch.zeros((), device=output.device)
        for block in self.setting.style_blocks:
            difference = _gram(of_output[block - 1]) - _gram(of_target[block - 1])
            depth = of_output[block - 1].shape[1]
            total = total + (difference**2).sum() / (4 * depth**2 * len(output))
        return total

    def _content(self, target: Tensor, output: Tensor) -> Tensor:
        """Computes equation 7."""
        of_output, of_target = self.extractor(output), self.extractor(target)
        total = torch.zeros((), device=output.device)
        for block in self.setting.content_blocks:
            total = total + mse_loss(of_output[block - 1], of_target[block - 1])
        return total


def _gram(features: Tensor) -> Tensor:
    """Computes F F^T / (h w d): (B, d, h, w) -> (B, d, d)."""
    _, depth, rows, columns = features.shape
    return torch.einsum("bihw,bjhw->bij", features, features) / (rows * columns * depth)
