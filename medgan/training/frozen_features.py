"""Builds the frozen feature extractor of a configuration, and says which one it is."""

import hashlib
from functools import cache
from typing import Any

import torch
from torch import nn

from medgan.config import Config, ExtractorConfig
from medgan.losses.feature_scale import oxford_factors, scaled
from medgan.models.extractor import load_extractor
from medgan.training.build_networks import deepest_block
from medgan.training.mixed_precision import in_precision


@cache
def frozen_extractor(named: ExtractorConfig, deepest: int, device: torch.device, precision: str) -> nn.Module:
    """Builds the extractor on a device, once a process, because it never changes.

    Args:
        named: its network, weights and scale.
        deepest: number of blocks that the losses need.
    """
    extractor = scaled(load_extractor(named.network, named.weights, deepest), named.scale)
    return in_precision(extractor, precision, device).to(device)


def feature_facts(config: Config) -> dict[str, Any]:
    """Returns which features the losses compare, as provenance: network, digest of its weights, scale and factors.

    Without a term that needs features the result is empty.
    """
    deepest = deepest_block(config)
    return dict(_facts_of(config.extractor, deepest)) if deepest else {}


@cache
def _facts_of(named: ExtractorConfig, deepest: int) -> dict[str, Any]:
    extractor = load_extractor(named.network, named.weights, deepest)
    weights = "random" if named.weights == "random" else f"sha256 {_digest_of(extractor)}"
    facts: dict[str, Any] = {"network": named.network, "weights": weights, "scale": named.scale}
    if named.scale == "oxford":
        facts["factors"] = [f"{factor:g}" for factor in oxford_factors(extractor)]
    return facts


def _digest_of(extractor: nn.Module) -> str:
    """Returns the SHA-256 of the weights that are used; equal weights may be in files with other digests."""
    digest = hashlib.sha256()
    for name, value in sorted(extractor.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()
