"""Finds the weights of a training's feature extractor: a file, a download, or taught on the training targets."""

from pathlib import Path

from medgan.config import TAUGHT, Config, with_values
from medgan.data.dataset import PreparedDataset
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import download_weights
from medgan.paths import Place
from medgan.training.build_networks import deepest_block
from medgan.workflows.events import Note, Notify, ignore
from medgan.workflows.learn_features import refuse_what_cannot_be_taught, taught_weights


def with_weights(
    config: Config, deepest: int, place: Place, dataset: PreparedDataset, notify: Notify = ignore
) -> Config:
    """Returns the configuration with its extractor's weights in a file that every worker can read.

    Args:
        deepest: the extractor block that is needed; 0: none is.
        place: where a download and taught weights are kept.
        dataset: data set on whose training targets an extractor is taught.

    Raises:
        InputError: the weights are not available, or belong to another network.
    """
    network, weights = config.extractor.network, config.extractor.weights
    if not deepest or weights == "random":
        return config
    if weights == TAUGHT:
        if network not in ("vgg19", "in_domain"):
            notify(Note(f"extractor.network={network} has no effect: a taught extractor has a network of its own."))
        network, path = "in_domain", taught_weights(dataset, place, notify)
    elif weights == "download":
        path = download_weights(place.output / "weights", network=network)
    else:
        path = Path(weights).expanduser().absolute()
    load_extractor(network, str(path), deepest)
    return with_values(config, {"extractor.network": network, "extractor.weights": str(path)})


def refuse_unfit_weights(config: Config, deepest: int) -> None:
    """Refuses weights that lack what is needed, before any data is prepared; a download comes later."""
    weights = config.extractor.weights
    if deepest and weights == TAUGHT:
        refuse_what_cannot_be_taught(config.data.size, deepest)
    elif deepest and weights not in ("random", "download"):
        load_extractor(config.extractor.network, str(Path(weights).expanduser()), deepest)


def features_of(config: Config) -> str:
    """Returns, for a person, which feature extractor the losses use."""
    if not deepest_block(config):
        return "none"
    if config.extractor.weights == TAUGHT:
        return "taught on the training targets"
    if (config.extractor.network, config.extractor.weights != "random") == ("in_domain", True):
        return f"taught on target images ({config.extractor.weights})"
    return f"{config.extractor.network}, {config.extractor.weights} weights"
