"""Builds SqueezeNet 1.1 (Iandola et al., 2016): AlexNet's accuracy with 0.7 M parameters; LPIPS has heads for it."""

import torch
from torch import Tensor, nn

from medgan.models.imagenet_input import ImageNetInput, features_at

ENDS = (2, 5, 8, 10, 11, 12, 13)
"""These are the numbers of layers up to each of the seven blocks, the slices of LPIPS (Zhang et al., 2018)."""

LEAST = (3, 5, 9, 17, 17, 17, 17)
"""These are the shortest sides in pixels that the network accepts, by its deepest block."""


class Fire(nn.Module):
    """Applies a 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution in parallel (section 3.2).

    Args:
        narrow: width of the first convolution, `squeeze`.
        wide: width of each of the two parallel convolutions.
    """

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to (B, 2 * wide, H, W)."""
        hidden = self.squeeze(hidden).relu()
        return torch.cat([self.expand1x1(hidden), self.expand3x3(hidden)], dim=1).relu()


class SqueezeNet(nn.Module):
    """Computes features by SqueezeNet 1.1 up to its last fire module, with torchvision's parameter names.

    Args:
        deepest: number of blocks to build, 1 to 7.
    """

    def __init__(self, deepest: int = 7) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        layers = [
            *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()),
            *(pool(), Fire(64, 16, 64), Fire(128, 16, 64)),
            *(pool(), Fire(128, 32, 128), Fire(256, 32, 128)),
            *(pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        ]
        self.ends = ENDS[:deepest]
        self.features = nn.Sequential(*layers[: self.ends[-1]])
        self.input = ImageNetInput("squeezenet", LEAST[deepest - 1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 1, H, W) in [-1, 1] to the output of each block, from shallow to deep."""
        return features_at(self.ends, self.features, self.input(image))
