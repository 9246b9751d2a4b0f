"""The paper's tables on anybody's data: every method with every seed as one study, tested, compared, written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from medgan.data.manifest import described
from medgan.distributed.testing import FLOOR, MATCHING, measure_each
from medgan.errors import InputError
from medgan.metrics.validation_metrics import overall_means
from medgan.presets.by_name import PRESETS, configured
from medgan.provenance import PROVENANCE_FILE
from medgan.report.comparison_statistics import MethodResults, Results, Run
from medgan.report.comparison_tables import write_tables
from medgan.report.image_grid import Panel, draw_panels, draw_translation
from medgan.search import space as searched
from medgan.search.parameters import Move, decoded
from medgan.search.searcher import EPOCHS, TRAINED_S
from medgan.search.space import METHOD, Checkpoints, Scheduler, Space
from medgan.search.study import KEY, PRESET, Recorded, best_trial, finished, first_attempt_of, load_study, state_of
from medgan.search.trial import trial_folder
from medgan.tracking.store import NOTE_TAG, STATE_TAG
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import updates_of
from medgan.training.checkpoint import BEST
from medgan.workflows.acceptance import SearchRequest, features_of
from medgan.workflows.conclusion import label_of
from medgan.workflows.tune import FinishedSearch, search

SEED = "train.seed"
REFERENCE, TUNED = "medgan", "medgan_tuned"
TABLES = {
    "Table I": ("cgan", "perceptual", "style_content", "medgan_1g", "medgan"),
    "Table II": ("pix2pix", "pan", "id_cgan", "fila_sgan", "medgan", "unet_l1", "cyclegan"),
}
"""The paper's, and beside the second one's rows the floor of every GAN and the method without pairs."""
ENDLESS = 100_000
"""Epochs of a training that ends by the clock."""
PATHS = ("extractor.weights", "metrics.lpips_weights")
"""Settings that name a person's folders: they stay out of the report."""
PICTURED = ("unet_l1", "pix2pix", "medgan_1g", "medgan", TUNED)
"""Methods in the pictures, where there are more."""

Size = Literal["small", "quick", "paper"]
BUDGETS: dict[Size, tuple[float | None, int]] = {"small": (3.0, 3), "quick": (0.4, 2), "paper": (None, 3)}
"""Scale -> minutes a training (none: 200 epochs) and seeds."""


@dataclass(frozen=True)
class TablesRequest:
    """What the command line asks for (see `python jobs/reproduce_tables.py --help`).

    Attributes:
        search: data, place, workers and settings, as of a search.
        scale: small: 64 px, a quarter of the channels; quick: that, in minutes; paper: as published.
        methods: presets; none: those of both tables.
        tuned: a study of this output folder, whose best settings are a row of their own.
        seeds: trainings of each method.
        minutes: of each training, validation included.
    """

    search: SearchRequest
    scale: Size = "small"
    methods: tuple[str, ...] = ()
    tuned: str | None = None
    seeds: int | None = None
    minutes: float | None = None


def reproduce_tables(request: TablesRequest, console: Console) -> None:
    """Trains what is missing, tests what is not tested, writes the tables; the same request again goes on.

    Raises:
        InputError: something asked for cannot be done; nothing was started.
        JobError: the study could not be brought to its end.
    """
    space = space_of(request)
    search(replace(request.search, space=space), console, conclude_with=partial(_write_down, request))


def space_of(request: TablesRequest) -> Space:
    """The grid of methods and seeds: all methods with the first seed first.

    Raises:
        InputError: an unknown method, or no study of that name.
    """
    minutes, seeds = BUDGETS[request.scale]
    minutes = minutes if request.minutes is None else request.minutes
    seeds = seeds if request.seeds is None else request.seeds
    if seeds < 1 or (minutes is not None and minutes <= 0):
        option, value = ("--seeds", seeds) if seeds < 1 else ("--minutes", minutes)
        raise InputError("E-COMPARE-01", option=option, value=value)
    names = request.methods or tuple(dict.fromkeys(name for table in TABLES.values() for name in table))
    if unknown := [name for name in names if name not in PRESETS]:
        raise InputError("E-COMPARE-02", presets=", ".join(PRESETS), unknown=unknown[0])
    scale: Literal["published", "quick"] = "published" if request.scale == "paper" else "quick"
    methods = {name: searched.Method(preset=name, scale=scale) for name in names}
    if request.tuned:
        methods[TUNED] = _tuned(request.search, request.tuned, scale)
    settings: dict[str, Any] = {"train.minutes": minutes, "train.epochs": ENDLESS} if minutes else {}
    if request.scale != "paper":
        settings |= {"data.size": 64, "train.batch_size": 8, "extractor.weights": "random"}
    return Space(
        preset=REFERENCE,
        set=settings,
        methods=methods,
        search={SEED: Move(int=(0, max(seeds - 1, 1))), METHOD: Move(choice=tuple(methods))},
        sampler="grid",
        scheduler=Scheduler(kind="none"),
        trials=seeds * len(methods),
        checkpoints=Checkpoints(keep=seeds * len(methods)),
    )


def _tuned(request: SearchRequest, name: str, scale: Literal["published", "quick"]) -> searched.Method:
    """MedGAN with what the best trial of a study drew, and all else as in MedGAN's own row."""
    study = load_study(request.place.study_uri, name)
    if study.user_attrs["task"] != request.task.name:
        raise InputError("E-COMPARE-03", name=name, task_name=request.task.name, task=study.user_attrs["task"])
    best = best_trial(study)
    if best is None:
        raise InputError("E-COMPARE-04", name=name)
    drawn = {setting: decoded(value) for setting, value in best[0].params.items()}
    preset = drawn.pop(METHOD, study.user_attrs.get(PRESET, REFERENCE))
    if preset != REFERENCE:
        raise InputError("E-COMPARE-05", name=name, reference=REFERENCE, preset=preset)
    default, tuned = (configured(REFERENCE, values, small=scale == "quick") for values in ({}, drawn))
    if tuned == default:
        raise InputError("E-COMPARE-06", name=name, reference=REFERENCE)
    return searched.Method(preset=REFERENCE, scale=scale, set=drawn)


def _write_down(request: TablesRequest, over: FinishedSearch) -> None:
    """Tests every training, and writes and prints the tables; at once where that was done."""
    folder = over.accepted.request.place.report(over.study.study_name) / "tables"
    tests = folder / f"tests-{over.study.user_attrs[KEY]}"
    trials = [trial for trial in finished(over.study) if METHOD in trial.params]
    markdown = folder / "tables.md"
    if not markdown.exists() or over.study.user_attrs.get("tables") != len(trials):
        _test(over, trials, tests)
        results = _results(over, trials, tests, request.scale)
        pictures = _pictures(over, trials, tests)
        written = [*write_tables(results, folder, pictures), *pictures]
        for path in written:
            over.retry_while_away(over.tracking.run.artifact, path, "tables")
        link = over.tracking.link("Tables", file="tables/tables.html")
        note = f"{link} of {len(trials)} trainings.\n\nSynthetic images, for research only."
        over.retry_while_away(over.tracking.run.tags, {NOTE_TAG: note, STATE_TAG: "complete"})
        over.study.set_user_attr("tables", len(trials))
    over.terminal.print(markdown.read_text(), markup=False, soft_wrap=True)
    over.terminal.print(f"Tables, figures of every patient, pictures: {folder}", soft_wrap=True)


def _test(over: FinishedSearch, trials: Sequence[Recorded], folder: Path) -> None:
    """Measures every usable training, the floor and patch matching on the test patients, and tells MLflow."""
    job = over.job
    wanted: dict[str, tuple[Any, Path | None]] = {
        str(first_attempt_of(trial)): (job.space.configured(trial.params, job.base), _weights(over, trial))
        for trial in trials
        if state_of(trial) == "complete"
    }
    wanted |= {FLOOR: (job.base, None), MATCHING: (job.base, None)}
    if any(not (folder / f"{name}.json").exists() for name in wanted):
        over.start()
        over.terminal.print(f"measuring {len(wanted)} on the test patients ...")
        with over.terminal.status("testing ...") as status:
            tell = lambda done: status.update(f"{done} of {len(wanted)} tested on the test patients")  # noqa: E731
            measure_each(wanted, folder, job.dataset, job.resources, tell)
    for trial in trials:
        patients = _tested(folder, str(first_attempt_of(trial))).get("patients")
        if patients:
            over.retry_while_away(_tell_test, over, first_attempt_of(trial), overall_means(patients))


def _tell_test(over: FinishedSearch, first_attempt: int, means: Mapping[str, float]) -> None:
    run = over.tracking.trial(first_attempt)
    run.metrics({f"test/{name}": value for name, value in means.items()}, 0)
    run.finish("FINISHED", run.ended_ms)


def _weights(over: FinishedSearch, trial: Recorded) -> Path:
    return trial_folder(over.job.checkpoints, first_attempt_of(trial)) / BEST


def _tested(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _results(over: FinishedSearch, trials: Sequence[Recorded], folder: Path, scale: Size) -> Results:
    """What was measured, as the report wants it."""
    dataset, job = over.accepted.dataset, over.job
    floor = MethodResults(dataset.task.floor, (Run(0, _tested(folder, FLOOR)["patients"]),), trained=False)
    matching = MethodResults(MATCHING, (Run(0, _tested(folder, MATCHING)["patients"]),), trained=False)
    methods = {floor.name: floor, matching.name: matching}
    for name in job.space.names_of_methods:
        runs = [_run(over, trial, folder) for trial in trials if trial.params[METHOD] == name]
        methods[name] = MethodResults(name, tuple(sorted(runs, key=lambda run: run.seed)))
    tables = {
        title: (*(name for name in rows if name in methods), floor.name, matching.name)
        for title, rows in TABLES.items()
        if sum(name in methods for name in rows) > 1
    }
    listed = {name for rows in tables.values() for name in rows}
    if others := tuple(name for name in job.space.names_of_methods if name not in listed):
        first = (REFERENCE,) if REFERENCE in methods and REFERENCE not in others else ()
        tables["Tuned against default" if TUNED in others else "Others"] = (*first, *others, floor.name, matching.name)
    return Results(
        title=f"{label_of(dataset)}, {dataset.manifest.size} px",
        facts=_facts(over, trials, scale),
        tables=tables,
        methods=methods,
    )


def _run(over: FinishedSearch, trial: Recorded, folder: Path) -> Run:
    found, job = _tested(folder, str(first_attempt_of(trial))), over.job
    why = found.get("failure") or f"{state_of(trial)}: {trial.user_attrs.get('reason', '')}".removesuffix(": ")
    batch, updates = job.base.train.batch_size, updates_of(job.space.configured(trial.params, job.base))
    steps = len(over.accepted.dataset.slices("train")) // batch / updates.batches
    return Run(
        seed=int(trial.params[SEED]),
        patients=found.get("patients"),
        failure="" if found.get("patients") else why,
        slices_seen=round(len(trial.user_attrs.get(EPOCHS, {})) * steps * updates.generator * batch),
        minutes=trial.user_attrs.get(TRAINED_S, 0.0) / 60,
    )


def _facts(over: FinishedSearch, trials: Sequence[Recorded], scale: Size) -> dict[str, str]:
    dataset, job, train = over.accepted.dataset, over.job, over.job.base.train
    deepest = max(job.space.corners(job.base), key=deepest_block)
    length = f"{train.minutes:g} min of training and validation" if train.minutes else f"{train.epochs} epochs"
    resources = job.resources
    kept = [trial_folder(job.checkpoints, first_attempt_of(trial)) / PROVENANCE_FILE for trial in trials]
    commits = {json.loads(path.read_text())["code"].get("commit", "unknown")[:12] for path in kept if path.exists()}
    given = {path: value for path, value in over.accepted.request.overrides.items() if path not in PATHS}
    small = f"made small: {job.base.data.size} px, a quarter of the channels, batches of {train.batch_size}"
    return {
        "Data": described(dataset.manifest),
        "Methods": "as published" if scale == "paper" else small,
        **({"Settings": ", ".join(f"{path}={value}" for path, value in given.items())} if given else {}),
        "Budget": f"{length} for each training, on {resources.workers} x {resources.cpus} {resources.device}",
        "Features": features_of(deepest).replace(job.base.extractor.weights, _kind(job.base.extractor.weights)),
        "Trained by": f"medgan at commit {', '.join(sorted(commits))}",
    }


def _kind(weights: str) -> str:
    return weights if weights == "random" else "pretrained"


def pictured(trained: Sequence[str]) -> list[str]:
    """All of few methods; of many, those that people look for, or the first ones."""
    if len(trained) <= len(PICTURED):
        return list(trained)
    return [name for name in PICTURED if name in trained] or list(trained)[: len(PICTURED)]


def _pictures(over: FinishedSearch, trials: Sequence[Recorded], tests: Path) -> list[Path]:
    """The fixed test slices by the methods, each with its first seed that came to an end; nothing where none did."""
    first: dict[str, Path] = {}
    for trial in sorted(trials, key=lambda one: one.params[SEED]):
        arrays = tests / f"{first_attempt_of(trial)}.npz"
        if arrays.exists():
            first.setdefault(trial.params[METHOD], arrays)
    names = pictured(list(first))
    if not names:
        return []
    stored = {name: dict(np.load(first[name], allow_pickle=False)) for name in names}
    one, task = stored[names[0]], over.accepted.dataset.task
    panels = [
        Panel(
            label=str(title),
            source=one["source"][row],
            target=one["target"][row],
            outputs={name: stored[name]["output"][row] for name in names},
        )
        for row, title in enumerate(one["titles"])
    ]
    title = f"{label_of(over.accepted.dataset)}: fixed test slices"
    shown = REFERENCE if REFERENCE in names else names[0]
    every, one_method = tests.parent / "panels.png", tests.parent / "translation.png"
    sides = {"source": task.source, "target": task.target}
    draw_panels(panels, every, title=title, errors=True, **sides)
    draw_translation(panels[1:3] or panels, shown, one_method, title=title, **sides)
    return [every, one_method]
