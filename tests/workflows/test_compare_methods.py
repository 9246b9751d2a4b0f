"""The request for a comparison of methods, as in the tables of the paper."""

from dataclasses import replace

import optuna
import pytest
from refusal import refusal

from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.errors import InputError
from medgan.paths import find_place
from medgan.presets.by_name import configured
from medgan.search.objectives import Goal
from medgan.search.study import Identity, open_study
from medgan.tasks import task_named
from medgan.training.build_training import length_of
from medgan.workflows.acceptance import SearchRequest, accept
from medgan.workflows.compare_methods import pictured, reproduce_tables
from medgan.workflows.method_grid import TABLES, TUNED, TablesRequest, space_of


@pytest.fixture
def request_of(tmp_path):
    """`request_of(...)`: a request for phantoms with these options."""

    def request(data=None, trials=None, overrides=None, **more):
        place = find_place(tmp_path / "home")
        search = SearchRequest(
            task_named("pet2ct"), place, data=data, trials=trials, workers=1, overrides=overrides or {}
        )
        return TablesRequest(search, **more)

    return request


def test_default_space_has_methods_of_paper_three_seeds_and_three_minutes(request_of):
    space = space_of(request_of())
    assert (len(space.grid()), space.base({}).train.minutes) == (33, 3.0)
    assert space.grid()[0] == {"train.seed": 0, "method": "cgan"}


def test_space_of_paper_scale_equals_published_settings(request_of):
    space = space_of(request_of(scale="paper", methods=("medgan",)))
    (config,) = space.corners(space.base({}))
    published = configured("medgan", {"train.seed": 2})
    assert config == published
    assert (config.train.epochs, config.generator.num_blocks, config.data.size) == (200, 6, 256)


def test_all_methods_have_same_size_batch_and_time(request_of):
    space = space_of(request_of(minutes=1.5))
    corners = space.corners(space.base({}))
    assert {(one.data.size, one.train.batch_size, one.train.minutes) for one in corners} == {(64, 8, 1.5)}


@pytest.mark.parametrize("scale", ["small", "quick", "paper"])
def test_all_methods_have_same_epochs_and_no_clock(request_of, scale):
    space = space_of(request_of(scale=scale, epochs=7))
    corners = space.corners(space.base({}))
    assert {(one.train.epochs, one.train.minutes, length_of(one).minutes) for one in corners} == {(7, None, None)}
    assert len(corners) == len({*TABLES["Table I"], *TABLES["Table II"]})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"methods": ("medgan", "pix3pix")}, refusal("E-COMPARE-02", unknown="pix3pix")),
        ({"seeds": 0}, refusal("E-COMPARE-01", option="--seeds", value=0)),
        ({"minutes": -1.0}, refusal("E-COMPARE-01", option="--minutes", value=-1.0)),
        ({"epochs": 0}, refusal("E-COMPARE-01", option="--epochs", value=0)),
        ({"epochs": 5, "minutes": 2.0}, refusal("E-COMPARE-07", epochs=5, option="--minutes", value=2.0)),
        (
            {"epochs": 5, "overrides": {"train.minutes": 3}},
            refusal("E-COMPARE-07", epochs=5, option="--set train.minutes", value=3),
        ),
        (
            {"epochs": 5, "overrides": {"train.epochs": 7}},
            refusal("E-COMPARE-07", epochs=5, option="--set train.epochs", value=7),
        ),
        ({"tuned": "nothing"}, refusal("E-STUDY-01")),
    ],
)
def test_space_of_refuses_methods_or_options_that_cannot_be_compared(request_of, more, expected):
    with pytest.raises(InputError, check=expected):
        space_of(request_of(**more))


def test_tuned_method_is_medgan_with_settings_of_best_trial(request_of):
    request = request_of(methods=("medgan",), tuned="before")
    uri = request.search.place.study_uri
    request.search.place.output.mkdir()
    study = open_study(uri, "before", Identity("pet2ct", "data", "space"), goals=(Goal("val/ssim", "max"),))
    with pytest.raises(InputError, check=refusal("E-COMPARE-04", name="before")):
        space_of(request)

    def best_is(value, score):
        drawn = {"loss.lambda_perceptual": optuna.distributions.FloatDistribution(1, 100)}
        study.add_trial(
            optuna.trial.create_trial(params={"loss.lambda_perceptual": value}, distributions=drawn, value=score)
        )

    best_is(20.0, 0.5)
    with pytest.raises(InputError, check=refusal("E-COMPARE-06", reference="medgan")):
        space_of(request)
    best_is(7.0, 0.6)
    space = space_of(request)
    default, tuned = space.corners(space.base({}))
    study.set_user_attr("preset", "pix2pix")
    with pytest.raises(InputError, check=refusal("E-COMPARE-05", reference="medgan", preset="pix2pix")):
        space_of(request)
    study.set_user_attr("task", "mr_motion")
    with pytest.raises(InputError, check=refusal("E-COMPARE-03", name="before", task_name="pet2ct", task="mr_motion")):
        space_of(request)
    assert space.names_of_methods == ("medgan", TUNED)
    assert (default.loss.lambda_perceptual, tuned.loss.lambda_perceptual) == (20.0, 7.0)


def test_one_seed_gives_one_training_per_method(request_of):
    request = request_of(methods=("medgan", "unet_l1"), seeds=1)
    space = space_of(request)
    accepted = accept(replace(request.search, space=space))
    assert accepted.target == 2
    assert {point["train.seed"] for point in space.beginnings(accepted.base)[:2]} == {0}


def test_open_study_refuses_fewer_seeds_than_waiting_trials(request_of):
    def accepted(seeds):
        request = request_of(methods=("medgan", "unet_l1"), seeds=seeds)
        return accept(replace(request.search, space=space_of(request)))

    request_of().search.place.output.mkdir()
    accepted(3).open_study()
    with pytest.raises(InputError, check=refusal("E-REQUEST-01", what="train.seed=2, method=medgan")):
        accepted(2).open_study()
    assert len(accepted(4).open_study().get_trials()) == 8


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ("cgan pan", "cgan pan"),
        ("cgan medgan pan id_cgan unet_l1 pix2pix", "unet_l1 pix2pix medgan"),
        ("cgan perceptual pan id_cgan fila_sgan cyclegan", "cgan perceptual pan id_cgan fila_sgan"),
    ],
)
def test_pictured_returns_at_most_five_methods(trained, expected):
    assert pictured(trained.split()) == expected.split()


def test_accept_refuses_fixed_value_of_varied_setting(request_of):
    request = request_of(overrides={"train.seed": 5})
    with pytest.raises(InputError, check=refusal("E-REQUEST-02", setting="train.seed", space_name="grid")):
        accept(replace(request.search, space=space_of(request)))


def test_accept_refuses_more_trials_than_grid_points(request_of):
    request = request_of(trials=9, methods=("medgan", "unet_l1"), seeds=2)
    with pytest.raises(InputError, check=refusal("E-REQUEST-04", most=4, trials=9)):
        accept(replace(request.search, space=space_of(request)))


def test_reproduce_tables_refuses_too_few_patients_to_split(request_of, tmp_path):
    folder = write_phantoms(tmp_path / "images", task="pet2ct", patients=2)
    with pytest.raises(InputError, check=refusal("E-DATASET-01", task_name="pet2ct")):
        reproduce_tables(request_of(data=str(folder)))
    assert not (tmp_path / "home").exists(), "nothing is left behind"
