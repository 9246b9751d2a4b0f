"""Compares the methods of the paper's tables: trains each with several seeds, tests them, writes tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medgan.config import Config
from medgan.data.manifest import described
from medgan.distributed.testing import FLOOR, MATCHING, measure_each
from medgan.metrics.validation_metrics import overall_means
from medgan.provenance import PROVENANCE_FILE
from medgan.report.comparison_statistics import MethodResults, Results, Run
from medgan.report.comparison_tables import write_tables
from medgan.report.image_grid import Panel, draw_panels, draw_translation
from medgan.search.searcher import EPOCHS, TRAINED_S
from medgan.search.space import METHOD
from medgan.search.study import KEY, Recorded, finished, first_attempt_of, state_of
from medgan.search.trial import trial_folder
from medgan.tracking.store import NOTE_TAG, STATE_TAG
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import updates_of
from medgan.training.checkpoint import BEST
from medgan.workflows.conclusion import label_of
from medgan.workflows.events import Note, Notify, advancing, ignore
from medgan.workflows.method_grid import REFERENCE, SEED, TUNED, Size, TablesRequest, rows_of_tables, space_of
from medgan.workflows.missing_trials import UNWATCHED, SearchWatcher
from medgan.workflows.tune import FinishedSearch, search

PATHS = ("extractor.weights", "metrics.lpips_weights")
"""These settings name a person's folders: they stay out of the report."""
PICTURED = ("unet_l1", "pix2pix", "medgan_1g", "medgan", TUNED)
"""These methods are in the pictures where there are more."""


@dataclass(frozen=True)
class MethodTables:
    """Holds the tables of a comparison as Markdown, and the folder of tables, pictures and each patient's figures."""

    markdown: str
    folder: Path


def reproduce_tables(
    request: TablesRequest, notify: Notify = ignore, watcher: SearchWatcher = UNWATCHED
) -> MethodTables:
    """Trains what is missing, tests what is not tested, writes the tables; the same request again goes on.

    Raises:
        InputError: something asked for cannot be done; nothing was started.
        JobError: the study could not be brought to its end.
    """
    space = space_of(request)
    return search(replace(request.search, space=space), notify, watcher, conclude_with=partial(_write_down, request))


def _write_down(request: TablesRequest, done: FinishedSearch) -> MethodTables:
    """Tests every training and writes the tables, unless that was done."""
    folder = done.accepted.request.place.report(done.study.study_name) / "tables"
    tests = folder / f"tests-{done.study.user_attrs[KEY]}"
    trials = [trial for trial in finished(done.study) if METHOD in trial.params]
    markdown = folder / "tables.md"
    if not markdown.exists() or done.study.user_attrs.get("tables") != len(trials):
        _test(done, trials, tests)
        results = _results(done, trials, tests, request.scale)
        pictures = _pictures(done, trials, tests)
        written = [*write_tables(results, folder, pictures), *pictures]
        for path in written:
            done.retry_while_away(done.tracking.run.artifact, path, "tables")
        link = done.tracking.link("Tables", file="tables/tables.html")
        note = f"{link} of {len(trials)} trainings.\n\nSynthetic images, for research only."
        done.retry_while_away(done.tracking.run.tags, {NOTE_TAG: note, STATE_TAG: "complete"})
        done.study.set_user_attr("tables", len(trials))
    return MethodTables(markdown.read_text(), folder)


def _test(done: FinishedSearch, trials: Sequence[Recorded], folder: Path) -> None:
    """Measures every usable training, the floor and patch matching on the test patients, and tells MLflow."""
    job = done.job
    wanted: dict[str, tuple[Any, Path | None]] = {
        str(first_attempt_of(trial)): (job.space.configured(trial.params, job.base), _weights(done, trial))
        for trial in trials
        if state_of(trial) == "complete"
    }
    wanted |= {FLOOR: (job.base, None), MATCHING: (job.base, None)}
    if any(not (folder / f"{name}.json").exists() for name in wanted):
        done.start()
        done.notify(Note(f"measuring {len(wanted)} on the test patients ..."))
        advance = advancing(done.notify, "tested on the test patients")
        measure_each(wanted, folder, job.dataset, job.resources, lambda number: advance(number, len(wanted)))
    for trial in trials:
        patients = _tested(folder, str(first_attempt_of(trial))).get("patients")
        if patients:
            done.retry_while_away(_record_test, done, first_attempt_of(trial), overall_means(patients))


def _record_test(done: FinishedSearch, first_attempt: int, means: Mapping[str, float]) -> None:
    run = done.tracking.trial(first_attempt)
    run.metrics({f"test/{name}": value for name, value in means.items()}, 0)
    run.finish("FINISHED", run.ended_ms)


def _weights(done: FinishedSearch, trial: Recorded) -> Path:
    return trial_folder(done.job.checkpoints, first_attempt_of(trial)) / BEST


def _tested(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _results(done: FinishedSearch, trials: Sequence[Recorded], folder: Path, scale: Size) -> Results:
    """Returns what was measured, in the form of the report."""
    dataset, job = done.accepted.dataset, done.job
    floor = MethodResults(dataset.task.floor, (Run(0, _tested(folder, FLOOR)["patients"]),), trained=False)
    matching = MethodResults(MATCHING, (Run(0, _tested(folder, MATCHING)["patients"]),), trained=False)
    methods = {floor.name: floor, matching.name: matching}
    for name in job.space.names_of_methods:
        runs = [_run(done, trial, folder) for trial in trials if trial.params[METHOD] == name]
        methods[name] = MethodResults(name, tuple(sorted(runs, key=lambda run: run.seed)))
    beside = (floor.name, matching.name)
    return Results(
        title=f"{label_of(dataset)}, {dataset.manifest.size} px",
        facts=_facts(done, trials, scale),
        tables={title: (*rows, *beside) for title, rows in rows_of_tables(job.space.names_of_methods).items()},
        methods=methods,
    )


def _run(done: FinishedSearch, trial: Recorded, folder: Path) -> Run:
    found, job = _tested(folder, str(first_attempt_of(trial))), done.job
    why = found.get("failure") or f"{state_of(trial)}: {trial.user_attrs.get('reason', '')}".removesuffix(": ")
    batch, updates = job.base.train.batch_size, updates_of(job.space.configured(trial.params, job.base))
    steps = len(done.accepted.dataset.slices("train")) // batch / updates.batches
    return Run(
        seed=int(trial.params[SEED]),
        patients=found.get("patients"),
        failure="" if found.get("patients") else why,
        slices_seen=round(len(trial.user_attrs.get(EPOCHS, {})) * steps * updates.generator * batch),
        minutes=trial.user_attrs.get(TRAINED_S, 0.0) / 60,
    )


def _facts(done: FinishedSearch, trials: Sequence[Recorded], scale: Size) -> dict[str, str]:
    dataset, job, train = done.accepted.dataset, done.job, done.job.base.train
    deepest = max(job.space.corners(job.base), key=deepest_block)
    length = f"{train.minutes:g} min of training and validation" if train.minutes else f"{train.epochs} epochs"
    resources = job.resources
    kept = [trial_folder(job.checkpoints, first_attempt_of(trial)) / PROVENANCE_FILE for trial in trials]
    commits = {json.loads(path.read_text())["code"].get("commit", "unknown")[:12] for path in kept if path.exists()}
    given = {path: value for path, value in done.accepted.request.overrides.items() if path not in PATHS}
    small = f"made small: {job.base.data.size} px, a quarter of the channels, batches of {train.batch_size}"
    return {
        "Data": described(dataset.manifest),
        "Methods": "as published" if scale == "paper" else small,
        **({"Settings": ", ".join(f"{path}={value}" for path, value in given.items())} if given else {}),
        "Budget": f"{length} for each training, on {resources.workers} x {resources.cpus} {resources.device}",
        "Features": _features(deepest),
        "Trained by": f"medgan at commit {', '.join(sorted(commits))}",
    }


def _features(config: Config) -> str:
    """Returns which features the losses compare, without the path of a file."""
    network, weights = config.extractor.network, config.extractor.weights
    if not deepest_block(config):
        return "none"
    if weights != "random":
        weights = "taught" if network == "in_domain" else "pretrained"
    return f"{network}, {weights} weights"


def pictured(trained: Sequence[str]) -> list[str]:
    """Returns all of few methods; of many, those in `PICTURED`, or the first ones."""
    if len(trained) <= len(PICTURED):
        return list(trained)
    return [name for name in PICTURED if name in trained] or list(trained)[: len(PICTURED)]


def _pictures(done: FinishedSearch, trials: Sequence[Recorded], tests: Path) -> list[Path]:
    """Draws the fixed test slices by each method, with its first seed that finished."""
    first: dict[str, Path] = {}
    for trial in sorted(trials, key=lambda one: one.params[SEED]):
        arrays = tests / f"{first_attempt_of(trial)}.npz"
        if arrays.exists():
            first.setdefault(trial.params[METHOD], arrays)
    names = pictured(list(first))
    if not names:
        return []
    stored = {name: dict(np.load(first[name], allow_pickle=False)) for name in names}
    one, task = stored[names[0]], done.accepted.dataset.task
    panels = [
        Panel(
            label=str(title),
            source=one["source"][row],
            target=one["target"][row],
            outputs={name: stored[name]["output"][row] for name in names},
        )
        for row, title in enumerate(one["titles"])
    ]
    title = f"{label_of(done.accepted.dataset)}: fixed test slices"
    shown = REFERENCE if REFERENCE in names else names[0]
    every, one_method = tests.parent / "panels.png", tests.parent / "translation.png"
    sides = {"source": task.source, "target": task.target}
    draw_panels(panels, every, title=title, errors=True, **sides)
    draw_translation(panels[1:3] or panels, shown, one_method, title=title, **sides)
    return [every, one_method]
