"""The end of a search: what is registered is the generator that the study measured. Ray's task runs in this process."""

import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import ray
import torch
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution
from refusal import refusal
from safetensors.torch import load_file, save_file

from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.distributed.resources import Resources
from medgan.errors import JobError
from medgan.metrics.validation_metrics import overall_means, patient_means
from medgan.paths import Place, find_place
from medgan.search.parameters import Move
from medgan.search.run_trials import SearchJob
from medgan.search.space import Space
from medgan.search.study import KEY, Identity, Study, open_study
from medgan.search.trial import trial_folder
from medgan.tasks import TASKS
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator
from medgan.training.checkpoint import BEST
from medgan.training.mixed_precision import in_precision
from medgan.training.runtime import SingleProcess
from medgan.training.validation import evaluate
from medgan.workflows.conclusion import TOLERANCE, Outcome, conclude

MODEL = "medgan-pet2ct-phantom"
RANGE = {"optim.generator_lr": FloatDistribution(1e-4, 1e-2)}


@dataclass
class Search:
    """A search whose trials are over, with what the test needs of it."""

    job: SearchJob
    study: Study
    dataset: PreparedDataset
    place: Place

    @property
    def weights(self):
        return trial_folder(self.job.checkpoints, 0) / BEST

    def validated(self) -> float:
        """Returns the mean over the validation patients of the goal, by the kept generator as it trained."""
        generator = build_generator(self.job.base)
        generator.load_state_dict(load_file(self.weights))
        generator = in_precision(generator, self.job.base.train.precision, torch.device("cpu"))
        rows = evaluate(generator, self.dataset.slices("validation"), SingleProcess(torch.device("cpu")))
        return overall_means(patient_means(rows))[self.job.space.metric.removeprefix("val/")]

    def conclude(self, value: float) -> Outcome:
        """Ends the trial with a value of the goal, unless it is at its end, and concludes the search."""
        if not self.study.trials:
            self.study.tell(self.study.ask(RANGE).number, value)
        key = self.study.user_attrs[KEY]
        tracking = MlflowStudy(
            self.place.tracking_uri, f"medgan/{MODEL}", artifacts=self.place.artifacts, study="s", key=key
        )
        with tracking:
            return conclude(self.job, self.study, tracking, self.dataset, self.place)

    def registered(self) -> list[str]:
        client = MlflowClient(tracking_uri=self.place.tracking_uri)
        return [model.name for model in client.search_registered_models()]

    def logged(self) -> set[str]:
        """Returns the metrics of all runs."""
        client = MlflowClient(tracking_uri=self.place.tracking_uri)
        numbers = [experiment.experiment_id for experiment in client.search_experiments()]
        return {name for run in client.search_runs(numbers) for name in run.data.metrics}


@pytest.fixture(autouse=True)
def ray_here(monkeypatch):
    """Runs a Ray task at once, in this process."""
    monkeypatch.setattr(ray, "remote", lambda **resources: lambda function: SimpleNamespace(remote=function))
    monkeypatch.setattr(ray, "get", lambda found, timeout: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a data set of six small patients."""
    folder = tmp_path_factory.mktemp("prepared")
    images = write_phantoms(folder / "phantoms", patients=6, slices=6, matrix=48)
    return prepare(PrepareRequest(images, TASKS["pet2ct"], 32, folder / "datasets"))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A file with the tables of an MLflow store; to make them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def make_search(prepared, empty_store, tmp_path):
    """`make_search(metric, precision)`: a search by this metric, whose trial kept random weights."""

    def make(metric="val/ssim", precision="float32") -> Search:
        place = find_place(tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
        place.output.mkdir()
        shutil.copy(empty_store, place.output / "mlflow.db")
        small = {
            "data.size": 32, "generator.base_channels": 4, "generator.num_blocks": 1, "extractor.weights": "random",
        }  # fmt: skip
        settings = {**small, "train.precision": precision}
        space = Space(set=settings, search={"optim.generator_lr": Move(log=(1e-4, 1e-2))}, metric=metric)
        dataset = PreparedDataset.open(prepared)
        study = open_study(place.study_uri, "s", Identity("pet2ct", dataset.digest, "space"), goals=space.goals)
        base = space.base({})
        checkpoints = place.checkpoints("s")
        job = SearchJob(space, base, dataset.state, checkpoints, tmp_path, Resources(1), concurrent=1, target=1)
        search = Search(job, study, dataset, place)
        search.weights.parent.mkdir(parents=True)
        save(search, seed=1)
        return search

    return make


def save(search: Search, *, seed: int) -> None:
    """Writes random weights."""
    state = build_generator(search.job.base).state_dict()  # of the configuration's seed
    torch.manual_seed(seed)
    save_file({name: torch.randn_like(one) / 9 if one.ndim > 1 else one for name, one in state.items()}, search.weights)


@pytest.mark.parametrize(("metric", "precision"), [("val/ssim", "bfloat16"), ("val/mae_hu_body", "float32")])
def test_conclude_registers_generator_with_value_of_study(make_search, metric, precision):
    search = make_search(metric, precision)
    outcome = search.conclude(value := search.validated())
    assert (outcome.model, outcome.version, outcome.metric, outcome.value) == (MODEL, "1", metric, value)
    assert (outcome.root, outcome.num_patients) == (0, len(search.dataset.manifest.hashes("test")))
    assert search.registered() == [MODEL] and {"test/ssim", metric} <= search.logged()
    assert Outcome.of(search.study) == outcome


@pytest.mark.parametrize(("share", "accepted"), [(0.9 * TOLERANCE, True), (-1.1 * TOLERANCE, False)])
def test_conclude_allows_relative_difference_of_rounding_only(make_search, share, accepted):
    search = make_search()
    value = search.validated() * (1 + share)
    if accepted:
        assert search.conclude(value).version == "1"
    else:
        with pytest.raises(JobError, check=refusal("E-SEARCH-05", value=value)):
            search.conclude(value)


def test_conclude_registers_nothing_while_weights_are_of_other_generator(make_search):
    search = make_search()
    value = search.validated()
    save(search, seed=2)
    kept = {"study_name": "s", "trial": 0, "weights": search.weights, "metric": "val/ssim"}
    expected = refusal("E-SEARCH-05", **kept, found=search.validated(), value=value)
    with pytest.raises(JobError, check=expected):
        search.conclude(value)
    assert (search.registered(), search.logged(), Outcome.of(search.study)) == ([], set(), None)
    save(search, seed=1)
    assert search.conclude(value).version == "1"


def test_conclude_refuses_weights_that_give_no_image(make_search):
    search = make_search()
    value = search.validated()
    save_file({name: one * torch.nan for name, one in load_file(search.weights).items()}, search.weights)
    with pytest.raises(JobError, check=refusal("E-SEARCH-05", value=value, found="nan")):
        search.conclude(value)
    assert search.registered() == []
