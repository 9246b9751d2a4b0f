"""Defines which methods a comparison trains, with which seeds and settings, and in which tables they stand."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medgan.config import TAUGHT
from medgan.errors import InputError
from medgan.presets.by_name import PRESETS, configured
from medgan.search import space as searched
from medgan.search.parameters import Move, decoded
from medgan.search.space import METHOD, Checkpoints, Scheduler, Space
from medgan.search.study import PRESET, best_trial, load_study
from medgan.workflows.acceptance import SCALE, SearchRequest

SEED = "train.seed"
REFERENCE, TUNED = "medgan", "medgan_tuned"
TABLES = {
    "Table I": ("cgan", "perceptual", "style_content", "medgan_1g", "medgan"),
    "Table II": ("pix2pix", "pan", "id_cgan", "fila_sgan", "medgan", "unet_l1", "cyclegan"),
}
"""These are the paper's tables; `unet_l1`, the floor of every GAN, and `cyclegan`, without pairs, are added."""
ENDLESS = 100_000
"""A training that ends by the clock has this many epochs at most."""

Size = Literal["small", "quick", "paper"]
BUDGETS: dict[Size, tuple[float | None, int]] = {"small": (3.0, 3), "quick": (0.4, 2), "paper": (None, 3)}
"""Maps a size to the minutes of a training (None: 200 epochs) and the number of seeds."""


@dataclass(frozen=True)
class TablesRequest:
    """Describes a comparison (see `python jobs/reproduce_tables.py --help`).

    Attributes:
        search: data, place, workers and settings, as of a search.
        scale: small: 64 px, a quarter of the channels; quick: that, in minutes; paper: as published.
        methods: presets; none: those of both tables.
        tuned: a study of this output folder, whose best settings are a row of their own.
        seeds: trainings of each method.
        minutes: of each training, validation included.
        epochs: of each training, instead of minutes: each method is shown the training images equally often.
    """

    search: SearchRequest
    scale: Size = "small"
    methods: tuple[str, ...] = ()
    tuned: str | None = None
    seeds: int | None = None
    minutes: float | None = None
    epochs: int | None = None


def space_of(request: TablesRequest) -> Space:
    """Returns the grid of methods and seeds, in which all methods with the first seed come first.

    Raises:
        InputError: an unknown method, no study of that name, or an option that cannot be used.
    """
    _refuse_unfit(request)
    minutes, seeds = BUDGETS[request.scale]
    minutes, seeds = request.minutes or minutes, request.seeds or seeds
    length: dict[str, Any] = {"train.minutes": minutes, "train.epochs": ENDLESS} if minutes else {}
    if request.epochs:
        length = {"train.epochs": request.epochs}
    names = request.methods or tuple(dict.fromkeys(itertools.chain(*TABLES.values())))
    scale: Literal["published", "quick"] = "published" if request.scale == "paper" else "quick"
    methods = {name: searched.Method(preset=name, scale=scale) for name in names}
    if request.tuned:
        methods[TUNED] = _tuned(request.search, request.tuned, scale)
    small = {"data.size": 64, "train.batch_size": 8, "extractor.weights": TAUGHT}
    return Space(
        preset=REFERENCE,
        set=length if request.scale == "paper" else {**length, **small},
        methods=methods,
        search={SEED: Move(int=(0, max(seeds - 1, 1))), METHOD: Move(choice=tuple(methods))},
        sampler="grid",
        scheduler=Scheduler(kind="none"),
        trials=seeds * len(methods),
        checkpoints=Checkpoints(keep=seeds * len(methods)),
    )


def _refuse_unfit(request: TablesRequest) -> None:
    for option, value in (("--seeds", request.seeds), ("--minutes", request.minutes), ("--epochs", request.epochs)):
        if value is not None and value <= 0:
            raise InputError("E-COMPARE-01", option=option, value=value)
    if request.epochs is not None:
        given = {f"--set {path}": request.search.overrides.get(path) for path in ("train.minutes", "train.epochs")}
        for option, value in {"--minutes": request.minutes, **given}.items():
            if value is not None:
                raise InputError("E-COMPARE-07", epochs=request.epochs, option=option, value=value)
    for name in request.methods:
        if name not in PRESETS:
            raise InputError("E-COMPARE-02", presets=", ".join(PRESETS), unknown=name)


def _tuned(request: SearchRequest, name: str, scale: Literal["published", "quick"]) -> searched.Method:
    """Returns MedGAN with the parameters of a study's best trial, and all else as in MedGAN's own row."""
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
    kept = study.user_attrs.get(SCALE, "as_is")  # the weights belong to features of this scale
    return searched.Method(preset=REFERENCE, scale=scale, set=drawn if kept == "oxford" else {**drawn, SCALE: kept})


def rows_of_tables(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the methods of each table that has two or more of them; a last table has those that are in no other."""
    tables = {}
    for title, table in TABLES.items():
        found = tuple(name for name in table if name in names)
        if len(found) > 1:
            tables[title] = found
    others = tuple(name for name in names if name not in itertools.chain(*tables.values()))
    if others:
        first = {REFERENCE} & {*names} - {*others}
        tables["Tuned against default" if TUNED in others else "Others"] = (*first, *others)
    return tables
