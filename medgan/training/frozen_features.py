"""Builds the frozen feature extractor of a configuration, and says which one it is."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medgan.config import Config, ExtractorConfig
from medgan.models.extractor import load_extractor
from medgan.models.feature_scale import oxford_factors, scaled
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
    named, deepest = config.extractor, deepest_block(config)
    if not deepest:
        return {}
    weights = named.weights
    if weights != "random":
        weights = f"sha256 {hashlib.sha256(Path(weights).read_bytes()).hexdigest()}"
    facts: dict[str, Any] = {"network": named.network, "weights": weights, "scale": named.scale}
    if named.scale == "oxford":
        factors = oxford_factors(load_extractor(named.network, named.weights, deepest))
        facts["factors"] = [f"{factor:g}" for factor in factors]
    return facts
