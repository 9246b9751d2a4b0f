"""What a plan says of the searched weights: shares over their ranges, warnings, and that nothing was measured."""

import pytest
from refusal import refusal

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.errors import InputError
from medgan.paths import find_place
from medgan.search.space import Space
from medgan.tasks import task_named
from medgan.workflows import find_features
from medgan.workflows.acceptance import SearchRequest
from medgan.workflows.events import Announcement, Note
from medgan.workflows.plan_search import plan

SMALL = {
    "data.size": 32, "generator.num_blocks": 1, "generator.base_channels": 4, "discriminator.base_channels": 4,
    "extractor.weights": "random", "loss.style_blocks": [1], "loss.content_blocks": [1, 2], "train.batch_size": 2,
    "train.generator_steps": 1, "train.epochs": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared_phantoms(tmp_path_factory.mktemp("phantoms"), size=32, slices=4)


@pytest.fixture
def planned(dataset, tmp_path, monkeypatch):
    """Plans a search over these ranges; returns the facts and the notes of the plan."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(search, **values):
        events = []
        space = Space.model_validate({"preset": "medgan", "set": {**SMALL, **values}, "search": search, "trials": 2})
        place = find_place(tmp_path / "home", f"sqlite:///{tmp_path / 'mlflow.db'}")
        plan(SearchRequest(task_named("pet2ct"), place, data=str(dataset.folder), space=space), events.append)
        (announced,) = (event for event in events if isinstance(event, Announcement))
        return announced.facts, [event.text for event in events if isinstance(event, Note)]

    return run


def test_plan_shows_share_of_each_searched_weight_over_its_range(planned):
    facts, notes = planned({"loss.lambda_style": {"log": [1e-6, 1e-2]}, "loss.lambda_perceptual": {"log": [0.1, 100]}})
    assert facts["gradient"].startswith("style ") and ", perceptual " in facts["gradient"]
    assert not [note for note in notes if note.startswith("warning")]


def test_plan_warns_of_weight_that_cannot_matter_and_gives_range_that_would(planned):
    _, notes = planned({"loss.lambda_style": {"log": [1e-12, 1e-10]}, "loss.lambda_content": {"log": [1e-6, 1e-2]}})
    (warning,) = (note for note in notes if note.startswith("warning"))
    assert warning.startswith("warning: loss.lambda_style cannot matter: over its range its term has ")
    assert "% of the gradient at the output. A range of " in warning


def test_plan_warns_of_nothing_where_no_weight_is_searched(planned):
    facts, notes = planned({"optim.generator_lr": {"log": [1e-4, 1e-3]}})
    assert "gradient" not in facts and not notes


def test_plan_without_downloaded_weights_says_that_nothing_was_measured(planned, monkeypatch):
    def unreachable(*_, **__):
        raise InputError("E-WEIGHTS-02", network="vgg19", error="no network")

    monkeypatch.setattr(find_features, "download_weights", unreachable)
    facts, notes = planned({"loss.lambda_style": {"log": [1e-12, 1e-10]}}, **{"extractor.weights": "download"})
    assert facts["gradient"] == "not measured: the weights of the feature extractor are not at hand"
    assert any("A search needs these weights; this plan goes on without them." in note for note in notes)


def test_plan_refuses_searched_setting_that_nothing_looks_at(planned):
    with pytest.raises(InputError, check=refusal("E-SPACE-20", setting="loss.cycle_distance")):
        planned({"loss.cycle_distance": {"choice": ["l1", "l2"]}})


def test_plan_measures_shares_of_searched_methods(planned):
    search = {"method": {"choice": ["medgan_1g", "unet_l1"]}, "loss.lambda_style": {"log": [1e-12, 1e-10]}}
    facts, notes = planned(search)
    assert facts["gradient"].startswith("style ")
    assert any(note.startswith("warning: loss.lambda_style") for note in notes)
