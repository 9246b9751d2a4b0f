"""Builds VGG-19, MedGAN's feature extractor (Simonyan & Zisserman, 2015; Armanious et al., section 2.3)."""

from torch import Tensor, nn

from medgan.models.imagenet_input import ImageNetInput, features_at

WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
"""These are the widths of the convolutions, block by block (configuration E)."""


class Vgg19(nn.Module):
    """Computes features by VGG-19's convolutions, with torchvision's parameter names.

    Args:
        deepest: number of blocks to build, 1 to 5.
    """

    def __init__(self, deepest: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        channels = 3
        for widths in WIDTHS[:deepest]:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.ends.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.input = ImageNetInput("vgg19", least=2 ** (deepest - 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 1, H, W) in [-1, 1] to the last activation of each block, from shallow to deep."""
        return features_at(self.ends, self.features, self.input(image))
