"""Loads frozen feature extractors by name, up to the deepest block that losses need (Armanious et al., section 2.3)."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from medgan.config import EXTRACTOR_BLOCKS
from medgan.errors import InputError
from medgan.models.alexnet import AlexNet
from medgan.models.extractor_weights import read_encoder, read_state
from medgan.models.in_domain import Encoder
from medgan.models.squeezenet import SqueezeNet
from medgan.models.vgg import Vgg19

NETWORKS: dict[str, type[nn.Module]] = {
    "vgg19": Vgg19,
    "squeezenet": SqueezeNet,
    "alexnet": AlexNet,
    "in_domain": Encoder,
}
"""This maps a name to a class, which takes the number of blocks to build; block j of the settings is feature j - 1."""


def load_extractor(network: str, weights: str, deepest: int) -> nn.Module:
    """Returns a frozen network that maps (B, 1, H, W) in [-1, 1] to one tensor of features a block, shallow to deep.

    Args:
        network: "vgg19", "squeezenet", "alexnet" or "in_domain".
        weights: path of a torchvision-style state dict, or of an encoder that `save_encoder` wrote; or "random"
            (seeded; for demos).
        deepest: number of blocks to build; a file may lack the deeper blocks.

    Raises:
        InputError: the network or the block does not exist, or the file is missing, of another network or incomplete.
    """
    if network not in NETWORKS:
        raise InputError("E-EXTRACTOR-01", networks=", ".join(NETWORKS), network=network)
    if not 1 <= deepest <= EXTRACTOR_BLOCKS[network]:
        raise InputError("E-EXTRACTOR-02", network=network, extractor_blocks=EXTRACTOR_BLOCKS[network], deepest=deepest)
    if weights == "random":
        return _built(NETWORKS[network], deepest, kaiming=True).requires_grad_(False).eval()
    build: Callable[[int], nn.Module] = NETWORKS[network]
    if network == "in_domain":
        arguments, state = read_encoder(Path(weights))
        build = partial(Encoder, **arguments)
    else:
        state = read_state(Path(weights))
    with torch.device("meta"):
        whole, needed = build(EXTRACTOR_BLOCKS[network]).state_dict(), build(deepest).state_dict()
    _refuse_another_network(state, whole, weights=weights, network=network)
    for name in needed:
        if name not in state:
            raise InputError("E-EXTRACTOR-03", weights=weights, name=name, deepest=deepest, network=network)
    module = _built(build, deepest, kaiming=False)
    module.load_state_dict({name: state[name] for name in needed})
    return module.requires_grad_(False).eval()


def _built(build: Callable[[int], nn.Module], deepest: int, *, kaiming: bool) -> nn.Module:
    """Returns the network with equal initial weights at every call; the caller's random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = build(deepest)
        for layer in module.modules():
            if kaiming and isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module


def _refuse_another_network(
    state: Mapping[str, Tensor], whole: Mapping[str, Tensor], *, weights: str, network: str
) -> None:
    """Refuses weights of another network; its first layers may be the same, as those of VGG-16 and VGG-19 are."""
    for name, value in state.items():
        if name not in whole:
            raise InputError("E-EXTRACTOR-04", weights=weights, network=network, name=name)
        if value.shape != whole[name].shape:
            raise InputError(
                "E-EXTRACTOR-05",
                weights=weights,
                network=network,
                name=name,
                value_shape=tuple(value.shape),
                whole_shape=tuple(whole[name].shape),
            )
