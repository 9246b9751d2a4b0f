"""Prepares a data set from images: finds, pairs, plans, converts, splits, describes."""

import errno
import hashlib
import hmac
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import medgan
from medgan.data.manifest import FILE_NAME, SCHEMA_VERSION, Manifest, Patient, sealed, store_manifest
from medgan.data.prepare.body_mask import MASK_RULE
from medgan.data.prepare.convert_patient import Conversion, convert
from medgan.data.prepare.dataset_report import write_report
from medgan.data.prepare.freshness import files_state, inputs_of, record_of, state_of, up_to_date
from medgan.data.prepare.patients import Found, find
from medgan.data.prepare.plan import (
    FINGERPRINT,
    PLAN,
    Plan,
    facts,
    first_plan,
    fits,
    provisional_plan,
    read_plan,
    write_json,
)  # fmt: skip
from medgan.data.prepare.split import assign_roles, has_key, key_id, load_key, load_roles, store_roles
from medgan.data.reader import counted_reasons, survey
from medgan.errors import InputError, JobError
from medgan.locks import held
from medgan.processes.crew import Callers, Crew, get_ready, limit_of, most_children
from medgan.tasks import Task

PREPARING_S = 6 * 3600.0
LONGEST_S = 3600.0  # for one patient, or the headers of a hundred files
BYTES_A_PIXEL = 5  # source, target, mask
KILLED = "E-CHILD-04"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareRequest:
    """Describes the data set to prepare.

    Attributes:
        source: folder of DICOM or NIfTI files in any layout.
        size: rows and columns of a slice.
        settings: fields of the plan by name, for values other than the defaults.
        out: the data set's folder; None: one below `datasets` for each source folder, task and size.
        datasets: folder that holds the key and the patients' roles.
        processes: number of patients read at once; None: one for each CPU core.
    """

    source: Path
    task: Task
    size: int
    datasets: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    processes: int | None = None


def prepare(request: PrepareRequest, progress: Progress | None = None) -> Path:
    """Prepares the data set in the first call, updates it in later calls, and returns its folder.

    A patient is converted once for each state of the files and of the plan; the arrays never change after that.
    `dataset.json` is written last, so that no reader sees an incomplete data set.

    Args:
        progress: called with (patients done, patients to do).

    Raises:
        InputError: no folder, no images, one modality only, too many broken patients, or a plan that is not valid.
        JobError: the disk is full, or a process was killed; finished patients are kept.
    """
    with _locked(request) as (folder, key), _crew(request) as crew:
        files = files_state(request.source, key)  # first: the next call finds files that arrive from now on
        plan = read_plan(folder)
        if plan is not None:
            _refuse_other_plan(request, folder, plan)
        if plan is None or not up_to_date(folder, inputs_of(files, plan, key)):
            _prepare(request, folder, key, files, progress or (lambda done, total: None), crew)
    return folder


def prepared_before(request: PrepareRequest) -> Path | None:
    """Returns the folder that `prepare` would update, or None where `prepare` would make a new data set."""
    if request.out is None and not has_key(request.datasets):
        return None
    folder = request.out or request.datasets / _default_name(request, load_key(request.datasets))
    return folder if (folder / FILE_NAME).exists() else None


def plan_only(request: PrepareRequest) -> Path:
    """Writes facts and plan and stops, so that a person can edit the plan; returns the path of the plan."""
    with _locked(request) as (folder, key), _crew(request) as crew:
        _planned(request, folder, key, crew)
    return folder / PLAN


@contextmanager
def _locked(request: PrepareRequest) -> Iterator[tuple[Path, bytes]]:
    """Yields the data set's folder and the key, under a lock: no two processes draw roles or convert at a time."""
    if not request.source.is_dir():
        there = "it is a file" if request.source.exists() else "there is no such folder"
        raise InputError("E-PREPARE-02", source=request.source, there=there)
    place = request.out or request.datasets
    try:
        request.datasets.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        with held(request.datasets / ".lock", f"preparing {request.datasets}", limit_s=PREPARING_S):
            key = load_key(request.datasets)
            yield request.out or request.datasets / _default_name(request, key), key
    except InputError:
        if request.out and not any(request.out.iterdir()):
            request.out.rmdir()
        raise
    except OSError as error:
        if error.errno in DISK_FULL:
            reason = f"{error.strerror}. Finished patients are kept; run the same command again to continue."
            raise JobError("E-PREPARE-03", place=place, reason=reason) from None
        if error.errno in NO_FOLDER:
            raise InputError("E-PREPARE-04", place=place, strerror=error.strerror) from None
        raise


@contextmanager
def _crew(request: PrepareRequest) -> Iterator[Crew]:
    """Yields the child processes that read images: what one file does to its process ends nobody else's."""
    get_ready(convert.__module__)
    size = request.processes or most_children(len(os.sched_getaffinity(0)))
    try:
        with Crew(size, limit_of(size, LONGEST_S)) as crew:
            yield crew
    except JobError as error:
        if error.code != KILLED:
            raise
        raise JobError("E-PREPARE-08", processes=size) from None


def _prepare(request: PrepareRequest, folder: Path, key: bytes, files: str, progress: Progress, crew: Crew) -> None:
    plan, found = _planned(request, folder, key, crew)
    folders = {
        patient: f"patients/{patient}-{state_of(one, plan, key, request.source)}"
        for patient, one in found.pairs.items()
    }
    records = {patient: record for patient, place in folders.items() if (record := record_of(folder / place))}
    jobs = [Conversion(one, found.pairs[one], folder / folders[one]) for one in folders if one not in records]
    _refuse_little_room(folder, plan, jobs)
    converted, reasons = _convert_all(jobs, plan, crew, progress)
    found = replace(found, set_aside=found.set_aside | reasons, broken=found.broken | reasons.keys())
    records |= converted
    usable = sorted(records)
    _refuse_broken(request.source, plan.most_broken, usable, found)
    known = load_roles(request.datasets)
    mine = known.get(plan.task, {})
    mine = _with_issuers(mine, found.without_issuer)
    roles = assign_roles(usable, mine, validation_share=plan.validation_share, test_share=plan.test_share)
    store_roles(request.datasets, known | {plan.task: mine | roles})
    manifest = sealed(
        Manifest(
            schema_version=SCHEMA_VERSION,
            medgan=medgan.__version__,
            task=plan.windowed(),
            spacing_mm=plan.spacing_mm,
            size=plan.size,
            phantom=found.phantom,
            axis=plan.axis,
            mask_rule=MASK_RULE,
            simulation=plan.simulation.model_dump() if plan.simulation else {},
            patients=[
                Patient(
                    hash=patient,
                    hash_without_issuer=found.without_issuer.get(patient, ""),
                    role=roles[patient],
                    folder=folders[patient],
                    **records[patient],
                )
                for patient in usable
            ],
            set_aside=[f"patient {patient} set aside: {reason}" for patient, reason in sorted(found.set_aside.items())],
            passed_over=found.passed_over,
            key_id=key_id(key),
            inputs=inputs_of(files, plan, key),
        )
    )
    write_report(manifest, folder)
    store_manifest(folder, manifest)


def _with_issuers(roles: Mapping[str, str], plain: Mapping[str, str]) -> dict[str, str]:
    """Returns the roles, also of patients whose role was drawn before their IDs had an issuer."""
    return {patient: roles[other] for patient, other in plain.items() if other in roles} | dict(roles)


def _default_name(request: PrepareRequest, key: bytes) -> str:
    """Returns task, size, and 8 hex digits of the source's path and the settings, so that names do not collide."""
    text = json.dumps([str(request.source.resolve()), dict(request.settings)], sort_keys=True)
    return f"{request.task.name}-{request.size}px-{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:8]}"


def _planned(request: PrepareRequest, folder: Path, key: bytes, crew: Callers) -> tuple[Plan, Found]:
    """Returns the plan in the folder, or a new one, and the images found with it; writes the facts anew."""
    plan = read_plan(folder)
    rules = plan or provisional_plan(request.settings)
    surveyed = survey(request.source, callers=crew, patient_level=rules.patient_folder)
    found = find(surveyed, request.source, request.task, key, rules.choice, rules.bounds)
    if not found.pairs:
        _refuse_broken(request.source, None, [], found)
    if plan is None:
        plan = first_plan(
            found.pairs, request.task, size=request.size, settings=request.settings,
            patient_folder=surveyed.patient_level,
        )  # fmt: skip
        if plan.choice != rules.choice:  # the plane of most patients is that of all from now on
            found = find(surveyed, request.source, request.task, key, plan.choice, plan.bounds)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, plan.model_dump(mode="json"))
    _refuse_other_plan(request, folder, plan)
    fits(plan, found.pairs, request.task, str(folder / PLAN))
    write_json(folder / FINGERPRINT, facts(found.pairs))
    return plan, found


def _refuse_other_plan(request: PrepareRequest, folder: Path, plan: Plan) -> None:
    requested = {"task": request.task.name, "size": request.size, **request.settings}
    tree = plan.model_dump(mode="json")
    for path, value in requested.items():
        there: Any = tree
        for name in path.split("."):
            there = there.get(name) if isinstance(there, dict) else None
        if json.loads(json.dumps(value)) != there:
            raise InputError("E-PREPARE-05", folder=folder / PLAN, path=path, there=there, value=value)


def _refuse_little_room(folder: Path, plan: Plan, jobs: Sequence[Conversion]) -> None:
    needed = sum(len(job.pair.target.planes) for job in jobs) * plan.size**2 * BYTES_A_PIXEL
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError("E-PREPARE-06", folder=folder, needed=needed / 1000000000.0, free=free / 1000000000.0)


def _convert_all(
    jobs: list[Conversion], plan: Plan, crew: Crew, progress: Progress
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Converts patients; returns the records of those who can be used, and the reasons why others cannot."""
    records, reasons = {}, {}
    largest_first = sorted(jobs, key=lambda job: -len(job.pair.target.planes))  # processes end together
    for done, (job, result) in enumerate(crew.each(partial(convert, plan=plan), largest_first), start=1):
        if isinstance(result, InputError):
            reasons[job.patient] = str(result)
        else:
            records[job.patient] = result
        progress(done, len(jobs))
    return records, reasons


def _refuse_broken(source: Path, most: float | None, usable: Sequence[str], found: Found) -> None:
    """Refuses to go on with too few patients; `most` is None where none is usable."""
    num_broken = len(found.broken)
    if usable and most is not None and num_broken <= most * (num_broken + len(usable)):
        return
    aside = sorted(found.set_aside.items())
    reasons = "".join(f"\n  patient {patient} set aside: {reason}" for patient, reason in aside)
    if found.passed_over:
        reasons += f"\n  passed over: {counted_reasons(Counter(found.passed_over))}"
    limit = f" and at most {most:.0%} broken patients (the plan's most_broken)" if usable and most is not None else ""
    raise InputError(
        "E-PREPARE-07", source=source, limit=limit, num_usable=len(usable), num_broken=num_broken, reasons=reasons
    )
