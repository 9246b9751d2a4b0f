"""Tests the best trial of a search on held-out patients, registers it, and sets its aliases."""

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load_file

import medgan.inference
from medgan.config import Config, with_values
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import described
from medgan.distributed.testing import measure_on_worker
from medgan.errors import JobError
from medgan.inference.model_card import card_of, summary_of
from medgan.inference.saved_model import CARD, ModelManifest, save_model
from medgan.metrics.validation_metrics import Patients, overall_means
from medgan.paths import Place
from medgan.provenance import code_version
from medgan.registry import test_set_ledger as ledger
from medgan.registry.aliases import CHALLENGER, CHAMPION, take_over
from medgan.registry.evaluation import PHANTOM, test_set_of
from medgan.registry.gates import beats_floor
from medgan.registry.versions import holder, point, register
from medgan.report.study_report import FILE_NAME
from medgan.search.mlflow_sync import best_of
from medgan.search.objectives import Goal
from medgan.search.run_trials import SearchJob
from medgan.search.study import Study, best_trial, finished, first_attempt_of
from medgan.search.trial import trial_folder
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.tracking.store import NOTE_TAG, STATE_TAG
from medgan.training.checkpoint import BEST
from medgan.training.frozen_features import feature_facts

OUTCOME = "outcome"
TOLERANCE = 1e-3
"""Limits the relative difference between the value of a kept generator and the study's: other batches, other processes
and a GPU round otherwise, by less; another generator usually differs by more."""


@dataclass(frozen=True)
class Outcome:
    """Describes how a study ended; it is kept with the study, so that the same command prints the same again.

    Attributes:
        root: the best trial.
        metric: the first goal.
        value: of it, in the trial's best epoch.
        params: its moving settings.
        test: metric -> mean over the test patients.
        floor: the same without a network.
        floor_name: what was taken for the output there.
        source: the source's modality.
        verdict: why it is champion, or not.
    """

    root: int
    metric: str
    value: float
    params: dict[str, Any]
    test: dict[str, float]
    floor: dict[str, float]
    floor_name: str
    source: str
    num_patients: int
    model: str
    version: str
    aliases: list[str]
    verdict: str

    def keep(self, study: Study) -> None:
        """Writes it into the study database."""
        study.set_user_attr(OUTCOME, json.dumps(asdict(self)))

    @classmethod
    def of(cls, study: Study) -> Self | None:
        """Returns the outcome that is kept with the study, or None."""
        kept = study.user_attrs.get(OUTCOME)
        return cls(**json.loads(kept)) if kept else None


def conclude(job: SearchJob, study: Study, tracking: MlflowStudy, dataset: PreparedDataset, place: Place) -> Outcome:
    """Tests the best trial, registers it, sets its aliases, and keeps the outcome with the study.

    Raises:
        JobError: no trial has a usable result, or the kept generator is not the one that the study's value is of.
    """
    best = best_trial(study)
    if best is None:
        raise JobError("E-SEARCH-02", study_name=study.study_name, why_none=_why_none(study))
    trial, value = best
    config, first_attempt = job.space.configured(trial.params, job.base), first_attempt_of(trial)
    weights = trial_folder(job.checkpoints, first_attempt) / BEST
    measured = measure_on_worker(config, weights, dataset.state, job.resources)
    metric = job.space.goals[0].metric
    found = overall_means(measured.validation).get(metric.removeprefix("val/"), math.nan)
    if not math.isclose(found, value, rel_tol=TOLERANCE):
        raise JobError(
            "E-SEARCH-05",
            study_name=study.study_name,
            trial=first_attempt,
            weights=weights,
            metric=metric,
            found=found,
            value=value,
            tolerance=TOLERANCE,
        )
    ours, floor = measured.test, measured.floor
    test, below = overall_means(ours), overall_means(floor)
    run = tracking.trial(first_attempt)
    run.metrics({f"test/{name}": value for name, value in test.items()}, step=0)
    run.metrics({f"test/floor_{name}": value for name, value in below.items()}, step=0)
    run.finish("FINISHED", run.ended_ms)
    name = f"medgan-{label_of(dataset)}"
    number = register_generator(name, config, weights, dataset, run_id=run.run_id, uri=place.tracking_uri, test=ours)
    verdict, aliases = beats_floor(ours, floor, name=dataset.task.floor), [CHALLENGER]
    point(name, CHALLENGER, number, uri=place.tracking_uri)
    champion = holder(name, CHAMPION, uri=place.tracking_uri)
    if champion is None and verdict.passed:
        take_over(name, number, judged_against=None, uri=place.tracking_uri)
    if champion in (None, number) and verdict.passed:
        aliases.append(CHAMPION)
    outcome = Outcome(
        root=first_attempt,
        metric=metric,
        value=value,
        params=trial.params,
        test=test,
        floor=below,
        floor_name=dataset.task.floor,
        source=dataset.task.source.modality,
        num_patients=len(ours),
        model=name,
        version=number,
        aliases=aliases,
        verdict=", ".join(verdict.reasons) if champion in (None, number) else f"version {champion} stays champion",
    )
    values = {f"test/{metric}": mean for metric, mean in outcome.test.items()} | {outcome.metric: outcome.value}
    tracking.run.metrics(values, step=0)
    outcome.keep(study)
    return outcome


def _why_none(study: Study) -> str:
    done = finished(study)
    if not done:
        return "the budget ended before the first trial finished. Increase --max-gpu-hours or --max-hours."
    broken = sorted({name for trial in done for name, excess in trial.constraints.items() if excess > 0})
    reasons = sorted({trial.user_attrs["reason"].rstrip(".") for trial in done if "reason" in trial.user_attrs})
    stopped = (
        []
        if broken or reasons
        else ["all were stopped early, and with several objectives at least one must be complete"]
    )
    return "; ".join([*(f"no trial meets {name}" for name in broken), *reasons, *stopped])


def register_generator(
    name: str, config: Config, weights: Path, dataset: PreparedDataset, *, run_id: str, uri: str, test: Patients
) -> str:
    """Registers a trained and tested generator with all that is needed to use and to judge it; returns its version.

    It has met the test patients: the ledger counts it among the candidates tried on them.
    """
    manifest = ModelManifest(
        name=name,
        task=dataset.task.name,
        config=without_folder(config).model_dump(mode="json"),
        spacing_mm=dataset.manifest.spacing_mm,
        size=dataset.manifest.size,
        source_window=dataset.task.source.window,
        target_window=dataset.task.target.window,
        axis=dataset.manifest.axis,
        data_digest=dataset.digest,
        training_patients=dataset.manifest.hashes("train"),
        validation_patients=dataset.manifest.hashes("validation"),
        patients_without_issuer=(
            *dataset.manifest.hashes_without_issuer("train"),
            *dataset.manifest.hashes_without_issuer("validation"),
        ),
        key_id=dataset.manifest.key_id,
        features=feature_facts(config),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        saved = save_model(folder, generator_state=load_file(weights), manifest=manifest)
        card = card_of(saved, data=described(dataset.manifest), test=test)
        (folder / CARD).write_text(card, encoding="utf-8")
        number = register(
            folder,
            name=name,
            run_id=run_id,
            uri=uri,
            code=Path(medgan.inference.__file__).parent / "pyfunc.py",
            tags={
                **tags_of(dataset),
                **{f"test/{metric}": f"{value:.5g}" for metric, value in overall_means(test).items()},
            },
            description=summary_of(saved, test),
        )
    ledger.enter(name, test_set=test_set_of(dataset), weights=saved.weights_sha256, version=number, uri=uri)
    return number


def without_folder(config: Config) -> Config:
    """Returns the configuration without the folder of the extractor's weights, which is the user's own."""
    return with_values(config, {"extractor.weights": Path(config.extractor.weights).name})


def describe_study(tracking: MlflowStudy, outcome: Outcome, goal: Goal, importances: str | None) -> None:
    """Says on the study's page what came out of it, with links to the best trial, all trials, model and report.

    Args:
        importances: which settings can be told from chance; None: not known.
    """
    best = tracking.link(f"trial #{outcome.root}", outcome.root)
    trials = tracking.link_to_trials("All trials, best first", best_of(goal.metric), ascending=goal.mode == "min")
    model = f"[{outcome.model} version {outcome.version}](#/models/{outcome.model}/versions/{outcome.version})"
    text = (
        f"Best: {best}, {outcome.metric} {outcome.value:.4f} on validation patients. Registered as {model}."
        f"{f' {importances}' if importances else ''}\n\n"
        f"{trials} · {tracking.link('Report', file=f'report/{FILE_NAME}')}\n\nSynthetic images, for research only."
    )
    tracking.run.tags({NOTE_TAG: text, "medgan.best": outcome.root, STATE_TAG: "complete"})


def label_of(dataset: PreparedDataset) -> str:
    """Returns the task, with a suffix for phantoms: names of experiments and models never mix the two."""
    return dataset.task.name + (PHANTOM if dataset.manifest.phantom else "")


def tags_of(dataset: PreparedDataset) -> dict[str, str]:
    """Returns the tags of every run and version: its data and its code."""
    facts = {"task": dataset.task.name, "data_digest": dataset.digest, **code_version()}
    return {f"medgan.{key}": value for key, value in facts.items()}
