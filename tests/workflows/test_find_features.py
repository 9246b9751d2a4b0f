"""Where the weights of the feature extractor come from: taught once for a data set, and then used again."""

import pytest
from refusal import refusal

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.config import TAUGHT, with_values
from medgan.errors import InputError
from medgan.paths import find_place
from medgan.presets.by_name import configured
from medgan.training import teach_extractor
from medgan.training.frozen_features import feature_facts
from medgan.training.teach_extractor import short_restoration
from medgan.workflows.events import Advance, Note
from medgan.workflows.find_features import features_of, refuse_unfit_weights, with_weights

SIZE = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared_phantoms(tmp_path_factory.mktemp("phantoms"), size=SIZE, slices=4)


@pytest.fixture
def quick():
    return configured("medgan", {"data.size": SIZE}, small=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(teach_extractor, "TAUGHT_IMAGES", 24)
    return find_place(tmp_path / "home", f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_extractor_is_taught_once_for_data_set(dataset, place, quick):
    events = []
    first = with_weights(quick, 2, place, dataset, events.append)
    assert first.extractor.network == "in_domain" and dataset.digest[:6] in first.extractor.weights
    assert isinstance(events[0], Note) and isinstance(events[-1], Advance) and events[-1].done == events[-1].total
    again = []
    assert with_weights(quick, 2, place, dataset, again.append) == first
    assert not again, "the file is there"
    assert list(place.output.glob("checkpoints/*")) == []


def test_extractor_taught_twice_on_same_data_has_same_weights(dataset, place, quick, tmp_path):
    other = find_place(tmp_path / "other", place.tracking_uri)
    facts = [feature_facts(with_weights(quick, 2, one, dataset)) for one in (place, other)]
    assert facts[0] == facts[1] and facts[0]["weights"].startswith("sha256 ")


def test_short_restoration_has_as_many_images_as_wanted(dataset, place):
    config = short_restoration(dataset)
    num_slices = len(dataset.slices("train"))
    assert 24 <= config.train.epochs * num_slices < 24 + num_slices
    assert config.train.batch_size <= num_slices


def test_nothing_is_taught_without_term_that_looks_at_features(dataset, place, quick):
    assert with_weights(quick, 0, place, dataset) == quick
    assert not place.output.exists()


@pytest.mark.parametrize(
    ("size", "deepest", "expected"),
    [(32, 5, refusal("E-FEATURES-04", blocks=4, deepest=5)), (24, 1, refusal("E-NETWORK-09", divisor=16))],
)
def test_what_cannot_be_taught_is_refused_before_data_are_prepared(size, deepest, expected):
    config = with_values(configured("unet_l1", {}, small=True), {"extractor.weights": TAUGHT})
    with pytest.raises(InputError, check=expected):
        refuse_unfit_weights(with_values(config, {"data.size": size, "generator.depth": 3}), deepest)


def test_features_of_taught_extractor_are_named_before_it_exists(quick):
    assert features_of(quick) == "taught on the training targets"
