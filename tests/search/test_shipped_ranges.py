"""Every weight that a space of medgan searches matters: its term has little of the gradient at one end, and much at
the other."""

import pytest

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.config import TAUGHT, with_values
from medgan.search.live_settings import searched_weights, weight_ranges
from medgan.search.space_yaml import folders, read_space
from medgan.training import teach_extractor
from medgan.training.teach_extractor import short_restoration, teach
from medgan.training.term_gradients import norms_of_training

SIZE = 64
NARROW = {"data.size": SIZE, "generator.base_channels": 8, "discriminator.base_channels": 16, "train.batch_size": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared_phantoms(tmp_path_factory.mktemp("phantoms"), size=SIZE)


@pytest.fixture(scope="module")
def taught(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teach_extractor, "TAUGHT_IMAGES", 800)
        teach(short_restoration(dataset), dataset, folder / "checkpoint", folder / "taught.safetensors")
    return {"extractor.network": "in_domain", "extractor.weights": str(folder / "taught.safetensors")}


@pytest.mark.parametrize("name", sorted(path.stem for folder in folders() for path in folder.glob("*.yaml")))
def test_range_of_weight_spans_shares_from_two_to_fifty_percent(name, dataset, taught):
    space = read_space(name, {})
    base = space.base({})
    features = taught if base.extractor.weights == TAUGHT else {"extractor.weights": "random"}
    base = with_values(base, {**NARROW, "generator.num_blocks": 1, **features})
    for norms in norms_of_training(base, dataset.slices("train"), num_steps=4):
        found = {one.setting: one for one in weight_ranges(space, base, norms)}
        assert set(found) == set(searched_weights(space)) and len(found) >= 3
        for setting, one in found.items():
            assert one.low <= 0.02, f"{name} {setting}: {one.low}"
            assert one.high >= 0.5, f"{name} {setting}: {one.high}"


@pytest.mark.parametrize("name", sorted(path.stem for folder in folders() for path in folder.glob("*.yaml")))
def test_first_trial_of_space_is_its_preset(name):
    space = read_space(name, {})
    (first,) = space.beginnings(space.base({}))
    assert first["loss.lambda_perceptual"] == 20.0
    assert set(searched_weights(space)) <= set(first)
