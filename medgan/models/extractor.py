"""The frozen feature extractor: VGG-19 up to the deepest block the losses need (Armanious et al., section 2.3)."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

import torch
from torch import Tensor, nn

from medgan.errors import InputError

BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
"""Widths of VGG-19's convolutions, block by block (Simonyan & Zisserman, 2015, configuration E)."""

DOWNLOAD = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg19(nn.Module):
    """VGG-19's convolutions, frozen, with torchvision's parameter names.

    Images in [-1, 1] are mapped to [0, 1], grey is repeated to three channels, and ImageNet's mean and standard
    deviation are applied: the weights of the style and content losses mean something for this convention only.

    Args:
        deepest: how many of the five blocks to build.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, deepest: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        channels = 3
        for widths in BLOCKS[:deepest]:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.ends.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, H, W) in [-1, 1] -> the last activation of each block, shallow to deep."""
        hidden = ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.std
        outputs = []
        for start, end in zip([0, *self.ends], self.ends, strict=False):
            hidden = self.features[start:end](hidden)
            outputs.append(hidden)
        return tuple(outputs)


def load_extractor(weights: str, deepest: int) -> Vgg19:
    """A frozen extractor.

    Args:
        weights: path of a torchvision-style state dict, or "random" (seeded; for demos).
        deepest: how many blocks are needed.

    Raises:
        InputError: the file is missing, is no VGG-19, or lacks a layer that is needed.
    """
    if weights == "random":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Vgg19(deepest)
            for module in network.features:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return network
    network = Vgg19(deepest)
    state = _read_state(Path(weights))
    for name, parameter in network.state_dict().items():
        if name not in state:
            raise InputError(f"extractor.weights: {weights} lacks {name}, needed for block {deepest} of VGG-19")
        if state[name].shape != parameter.shape:
            came = tuple(state[name].shape)
            raise InputError(
                f"extractor.weights: {weights} is no VGG-19: {name} is {came}, not {tuple(parameter.shape)}"
            )
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"extractor.weights: expected download, random or a file; there is no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file it cannot read
        raise InputError(f"extractor.weights: {path} is no PyTorch weights file: {type(error).__name__}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"extractor.weights: {path} is no state dict of tensors, such as torchvision's of VGG-19")
    return state


def download_weights(cache: Path, timeout_s: float = 30.0) -> Path:
    """The full VGG-19 weights (548 MB), fetched once and checked against the digest in their name.

    Args:
        cache: folder that keeps them.
        timeout_s: longest silence of the server.

    Raises:
        InputError: no network; the message says what to use instead.
    """
    path = cache / DOWNLOAD.rsplit("/", 1)[1]
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(DOWNLOAD, timeout=timeout_s) as answer, part.open("wb") as file:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"extractor.weights: could not download VGG-19 ({error}); give a file: --set extractor.weights=FILE, "
            "or, for a trial run only, --set extractor.weights=random"
        ) from None
    if not digest.hexdigest().startswith(path.stem.rsplit("-", 1)[1]):
        part.unlink()
        raise InputError(f"extractor.weights: the download of {path.name} is damaged (SHA-256 differs); try again")
    return part.rename(path)
