"""Builds AlexNet's convolutions (Krizhevsky, 2014, "one weird trick"), a network for which LPIPS has heads."""

from torch import Tensor, nn

from medgan.models.imagenet_input import ImageNetInput, features_at

ENDS = (2, 5, 8, 10, 12)
"""These are the numbers of layers up to each of the five activations, the slices of LPIPS (Zhang et al., 2018)."""

LEAST = (7, 15, 31, 31, 31)
"""These are the shortest sides in pixels that the network accepts, by its deepest block."""


class AlexNet(nn.Module):
    """Computes features by AlexNet's five convolutions, with torchvision's parameter names.

    Args:
        deepest: number of blocks to build, 1 to 5; a block has one convolution.
    """

    def __init__(self, deepest: int = 5) -> None:
        super().__init__()
        layers = [
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        ]
        self.ends = ENDS[:deepest]
        self.features = nn.Sequential(*layers[: self.ends[-1]])
        self.input = ImageNetInput("alexnet", LEAST[deepest - 1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 1, H, W) in [-1, 1] to the activation after each convolution, from shallow to deep."""
        return features_at(self.ends, self.features, self.input(image))
