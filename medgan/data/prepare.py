"""Images in, prepared data set out: find, pair, plan, convert, split, describe."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import medgan
from medgan.data.catalogue import Survey
from medgan.data.convert import RECORD, Job, convert
from medgan.data.manifest import FILE_NAME, SCHEMA_VERSION, Manifest, Patient, read_manifest, sealed, store_manifest
from medgan.data.pairing import Pair, pair
from medgan.data.plan import FINGERPRINT, PLAN, Plan, facts, first_plan, read_plan, write_json
from medgan.data.processes import each, get_ready
from medgan.data.report import write_report
from medgan.data.series import survey
from medgan.data.split import assign_roles, load_key, load_roles, patient_hash, store_roles
from medgan.errors import InputError, JobError
from medgan.lock import held
from medgan.tasks import Task

PREPARING_S = 6 * 3600.0
SLICES_WORTH_A_PROCESS = 500  # reading them takes as long as starting a process does
BYTES_A_PIXEL = 5  # source, target, mask
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SPLITTING = {"validation_share", "test_share", "most_broken"}
"""Fields of the plan that change no patient's arrays."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        source: folder of DICOM or NIfTI files in any layout.
        task: what is translated into what.
        size: rows and columns of a slice.
        settings: fields of the plan by name, where they are to be other than by default.
        out: the data set's folder; None: one below `datasets` for each source folder, task and size.
        datasets: where the key and the patients' roles are kept.
        processes: how many patients are read at once; None: one a CPU core.
    """

    source: Path
    task: Task
    size: int
    datasets: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    processes: int | None = None


def prepare(request: Request, progress: Progress | None = None) -> Path:
    """The folder of the prepared data set; made on the first call, brought up to date on the next.

    A patient is converted once for each state of his files and of the plan; his arrays never change after that.
    `dataset.json` is written last, so that a data set is never seen half made.

    Args:
        request: what is asked for.
        progress: called with (patients done, patients to do).

    Raises:
        InputError: no folder, no images, one modality only, too many broken patients, or a plan that cannot be.
        JobError: the disk is full, or a process was killed; what was finished is kept.
    """
    if not request.source.is_dir():
        raise InputError(f"{request.source}: expected a folder of images; there is no such folder")
    request.datasets.mkdir(parents=True, exist_ok=True)
    # one process at a time: roles are drawn once, and the second to ask for a data set finds it made
    with held(request.datasets / ".lock", f"preparing {request.datasets}", limit_s=PREPARING_S), _room_on_disk(request):
        key = load_key(request.datasets)
        folder = request.out or request.datasets / _default_name(request, key)
        if not _up_to_date(request, folder, key):
            _prepare(request, folder, key, progress or (lambda done, total: None))
    return folder


def plan_only(request: Request) -> Path:
    """Writes facts and plan and stops, so that a person can edit the plan; returns the plan's file."""
    request.datasets.mkdir(parents=True, exist_ok=True)
    with held(request.datasets / ".lock", f"preparing {request.datasets}", limit_s=PREPARING_S):
        key = load_key(request.datasets)
        folder = request.out or request.datasets / _default_name(request, key)
        _planned(request, folder, _found(request, key, read_plan(folder)))
    return folder / PLAN


@dataclass(frozen=True)
class Found:
    """What a source folder holds for a task: pairs by patient hash, and who was set aside, and why."""

    survey: Survey
    pairs: dict[str, Pair]
    set_aside: dict[str, str]
    broken: frozenset[str]


def _prepare(request: Request, folder: Path, key: bytes, progress: Progress) -> None:
    if request.processes != 1:
        get_ready(convert.__module__)
    found = _found(request, key, read_plan(folder))
    plan = _planned(request, folder, found)
    _refuse_little_room(folder, plan, found)
    folders = {patient: f"patients/{patient}-{_state(one, plan, key)}" for patient, one in found.pairs.items()}
    jobs = [Job(patient, found.pairs[patient], folder / place) for patient, place in folders.items()]
    reasons = _convert_all([job for job in jobs if not job.folder.exists()], plan, request.processes, progress)
    set_aside, broken = found.set_aside | reasons, found.broken | reasons.keys()
    usable = [patient for patient in folders if patient not in reasons]
    _refuse_broken(request.source, plan, usable, set_aside, broken)
    known = load_roles(request.datasets)
    mine = known.get(plan.task, {})
    roles = assign_roles(usable, mine, validation_share=plan.validation_share, test_share=plan.test_share)
    store_roles(request.datasets, known | {plan.task: mine | roles})
    patients = [
        Patient(hash=patient, role=roles[patient], folder=folders[patient], **_record(folder / folders[patient]))
        for patient in usable
    ]
    manifest = sealed(
        Manifest(
            schema_version=SCHEMA_VERSION,
            medgan=medgan.__version__,
            task=plan.windowed(),
            spacing_mm=plan.spacing_mm,
            size=plan.size,
            phantom=_phantom([found.pairs[patient] for patient in usable]),
            simulation=plan.simulation.model_dump() if plan.simulation else {},
            patients=patients,
            set_aside=[f"patient {patient} set aside: {reason}" for patient, reason in sorted(set_aside.items())],
            passed_over=dict(sorted(found.survey.passed_over.items())),
            inputs=_inputs(request, plan, key),
        )
    )
    write_report(manifest, folder)
    store_manifest(folder, manifest)


def _default_name(request: Request, key: bytes) -> str:
    """Task, size, and 8 hex digits of where the source lies and of what else is asked for, so that none meet."""
    text = json.dumps([str(request.source.resolve()), dict(request.settings)], sort_keys=True)
    return f"{request.task.name}-{request.size}px-{hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:8]}"


def _up_to_date(request: Request, folder: Path, key: bytes) -> bool:
    """Whether the data set was made of the very same files by the very same plan."""
    plan = read_plan(folder)
    if plan is None or not (folder / FILE_NAME).exists():
        return False
    _refuse_other_plan(request, folder, plan)
    return read_manifest(folder).inputs == _inputs(request, plan, key)


def _inputs(request: Request, plan: Plan, key: bytes) -> str:
    """Keyed digest of the plan and of every file's relative path, size and time of change."""
    digest = hmac.new(key, f"{SCHEMA_VERSION} {plan.model_dump_json()}".encode(), hashlib.sha256)
    for path in sorted(path for path in request.source.rglob("*") if path.is_file()):
        _add_state(digest, path, request.source)
    return digest.hexdigest()


def _state(one: Pair, plan: Plan, key: bytes) -> str:
    """8 hex digits of a patient's files and of the plan, which name the arrays made of them."""
    digest = hmac.new(key, f"{SCHEMA_VERSION} {plan.model_dump_json(exclude=SPLITTING)}".encode(), hashlib.sha256)
    for series in (one.source, one.target):
        for path in series.files if series else ():
            _add_state(digest, path, path.parent)
    return digest.hexdigest()[:8]


def _add_state(digest: hmac.HMAC, path: Path, root: Path) -> None:
    status = path.stat()
    digest.update(
        f"\0{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
    )


def _found(request: Request, key: bytes, plan: Plan | None) -> Found:
    """Pairs, and patients set aside; what headers tell of broken series shows here."""
    matches = {
        name: getattr(plan, name) if plan else str(request.settings.get(name, ""))
        for name in ("source_match", "target_match")
    }
    try:
        surveyed = survey(request.source)
        pairs, problems = pair(surveyed.series, request.task, root=request.source, **matches)
    except InputError as error:
        raise InputError(_placed(error, request.source)) from None
    broken = {patient_hash(one.patient_id, key): one.reason for one in surveyed.problems}
    set_aside = {patient_hash(one.patient_id, key): one.reason for one in problems}
    usable = {}
    for one in pairs:
        patient = patient_hash(one.target.patient_id, key)
        try:
            _ = one.target.affine, one.source and one.source.affine
        except InputError as error:
            broken[patient] = str(error)
        else:
            usable[patient] = one
    missing = {patient: reason for patient, reason in broken.items() if patient not in usable}
    return Found(surveyed, dict(sorted(usable.items())), set_aside | missing, frozenset(missing))


def _planned(request: Request, folder: Path, found: Found) -> Plan:
    """The plan in the folder, or the first one; facts are written anew."""
    plan = read_plan(folder)
    if plan is None:
        if not found.pairs:
            _refuse_broken(request.source, None, [], found.set_aside, found.broken)
        plan = first_plan(found.pairs, request.task, size=request.size, settings=request.settings)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, plan.model_dump(mode="json"))
    _refuse_other_plan(request, folder, plan)
    write_json(folder / FINGERPRINT, facts(found.pairs))
    return plan


def _refuse_other_plan(request: Request, folder: Path, plan: Plan) -> None:
    asked = {"task": request.task.name, "size": request.size, **request.settings}
    tree = plan.model_dump(mode="json")
    for path, value in asked.items():
        section, _, name = path.partition(".")
        there = tree[section].get(name) if name and tree.get(section) else tree.get(section)
        if json.loads(json.dumps(value)) != there:
            raise InputError(
                f"{folder / PLAN}: says {path} {there}, asked for is {value}; edit the plan, or choose another folder"
            )


def _refuse_little_room(folder: Path, plan: Plan, found: Found) -> None:
    needed = sum(len(one.target.planes) for one in found.pairs.values()) * plan.size**2 * BYTES_A_PIXEL
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{folder}: expected {needed / 1e9:.1f} GB of free disk; got {free / 1e9:.1f} GB")


@contextmanager
def _room_on_disk(request: Request) -> Iterator[None]:
    """A disk that is full in the middle ends in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        place = request.out or request.datasets
        raise JobError(f"{place}: {error.strerror}; what was finished is kept, the same command goes on") from None


def _convert_all(jobs: list[Job], plan: Plan, processes: int | None, progress: Progress) -> dict[str, str]:
    """Converts patients; returns the reasons of those who cannot be used."""
    num_slices = sum(len(series.files) for job in jobs for series in (job.pair.source, job.pair.target) if series)
    worth = max(1, num_slices // SLICES_WORTH_A_PROCESS)
    reasons = {}
    results = each(partial(convert, plan=plan), jobs, processes=min(processes or os.cpu_count() or 1, worth))
    for done, (job, reason) in enumerate(results, start=1):
        if reason is not None:
            reasons[job.patient] = reason
        progress(done, len(jobs))
    return reasons


def _refuse_broken(
    source: Path, plan: Plan | None, usable: Sequence[str], set_aside: Mapping[str, str], broken: Set[str]
) -> None:
    most = plan.most_broken if plan else 1.0
    if usable and len(broken) <= most * (len(broken) + len(usable)):
        return
    reasons = "".join(f"\n  patient {patient} set aside: {reason}" for patient, reason in sorted(set_aside.items()))
    raise InputError(
        f"{source}: expected at least 1 patient that can be used, and at most {most:.0%} broken; "
        f"got {len(usable)} usable and {len(broken)} broken{reasons}"
    )


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD).read_text())


def _phantom(pairs: Sequence[Pair]) -> bool:
    kinds = {series.phantom for one in pairs for series in (one.source, one.target) if series}
    if len(kinds) > 1:
        raise InputError("expected either patients or phantoms, got both in one folder: they are never mixed")
    return kinds.pop()


def _placed(error: InputError, source: Path) -> str:
    return str(error) if str(source) in str(error) else f"{source}: {error}"
