"""Measures how strongly the loss terms of MedGAN act with each feature extractor: their shares of the gradient."""

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from medgan.benchmark.measurements import Measurement, spread_of
from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.benchmark.timing import described
from medgan.config import Config
from medgan.data.dataset import PreparedDataset
from medgan.losses.gradient_shares import shares_of
from medgan.presets.by_name import configured
from medgan.training.build_objective import build_objective
from medgan.training.runtime import SingleProcess
from medgan.training.teach_extractor import FEW_SLICES, short_restoration, teach
from medgan.training.term_gradients import norms_of_training

STEPS, QUICK_STEPS = 30, 4
"""The default job's trials have about 30 steps on phantoms."""
OXFORD = "VGG-19, Oxford"
FILES = {
    OXFORD: ("vgg19", "vgg19*.pth"),
    "SqueezeNet": ("squeezenet", "squeezenet*.pth"),
    "AlexNet": ("alexnet", "alexnet*.pth"),
}
TERMS = ("style", "content")
WANTED = "0.1 to 10"


def measure(
    *, quick: bool, device: torch.device, data: Path | None = None, weights: Path | None = None
) -> list[Measurement]:
    """Measures MedGAN made small, on phantoms and on a prepared data set, untrained and trained.

    Args:
        data: folder of a prepared data set of 64 px; None: phantoms alone.
        weights: folder with the trained weights; None: taught and random features alone.
    """
    with tempfile.TemporaryDirectory(prefix="medgan-benchmark-") as scratch:
        datasets = {"phantoms": prepared_phantoms(Path(scratch), size=64, patients=12, slices=20)}
        if data is not None:
            datasets["patients"] = PreparedDataset.open(data)
        return [
            row
            for name, dataset in datasets.items()
            for row in _rows(name, dataset, Path(scratch) / name, weights, device, QUICK_STEPS if quick else STEPS)
        ]


def _rows(
    name: str, dataset: PreparedDataset, scratch: Path, weights: Path | None, device: torch.device, steps: int
) -> Iterator[Measurement]:
    """Yields the share of each term for each extractor, with its ratio to that of Oxford's weights."""
    settings = f"medgan --quick on {name}, batch of 8, trained: {steps} steps"
    row = partial(Measurement, part="shares", settings=settings, device=described(device), wanted=WANTED, unit="%")
    reference: Mapping[str, Mapping[str, float]] = {}
    for features, chosen in _extractors(dataset, scratch, weights).items():
        if chosen is None:
            yield row(figure=features, note="no weights file in --weights")
            continue
        config = configured("medgan", chosen, small=True)
        shares = dict(zip(("untrained", "trained"), _shares(config, dataset, steps, device), strict=True))
        reference = shares if features == OXFORD else reference
        for state, measured in shares.items():
            for term, share in measured.items():
                against = reference.get(state, {}).get(term) if term in TERMS else None
                yield row(
                    figure=f"{features}, {state}: {term}",
                    value=spread_of([100 * share]),
                    ratio=spread_of([share / against]) if against else None,
                    against=OXFORD if against else "",
                    wanted=WANTED if against else "",
                )


def _shares(config: Config, dataset: PreparedDataset, steps: int, device: torch.device) -> list[dict[str, float]]:
    weights = {name: weight for name, (weight, _) in build_objective(config).at(0.0).generator.items()}
    norms = norms_of_training(config, dataset.slices("train"), num_steps=steps, runtime=SingleProcess(device))
    return [shares_of(one, weights) for one in norms]


def _extractors(dataset: PreparedDataset, scratch: Path, weights: Path | None) -> dict[str, dict[str, str] | None]:
    """Returns the settings of each extractor, Oxford's first; None where its weights are not at hand."""
    found: dict[str, dict[str, str] | None] = {}
    for name, (network, pattern) in FILES.items():
        files = sorted(weights.glob(pattern)) if weights else []
        found[name] = {"extractor.network": network, "extractor.weights": str(files[0])} if files else None
    taught = scratch / "taught.safetensors"
    teach(short_restoration(dataset), dataset, scratch / "checkpoint", taught, validated_on=FEW_SLICES)
    found["taught"] = {"extractor.network": "in_domain", "extractor.weights": str(taught)}
    found["random"] = {"extractor.network": "vgg19", "extractor.weights": "random"}
    return found
