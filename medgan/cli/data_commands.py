"""Defines the commands about images: phantoms, prepare, features; and doctor, about images and studies."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from medgan.cli.options import Output, Settings, StudyUri, TaskName, TrackingUri, held_back, stoppable
from medgan.errors import InputError
from medgan.paths import Place

app = typer.Typer()
SHOWN = 3
"""This many files of a folder are named one by one where they hold the same kind of identifier."""


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="folder to write, new or empty")],
    task: TaskName = "pet2ct",
    patients: Annotated[int, typer.Option(help="number of patients")] = 12,
    slices: Annotated[int, typer.Option(help="slices a patient, 4 mm apart")] = 20,
    matrix: Annotated[int, typer.Option(help="rows and columns of a CT or MR slice")] = 128,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
) -> None:
    """Write phantom patients as DICOM series: PET and CT, MR, or PET alone, as the task needs them."""
    from medgan.data.phantoms.phantom_patients import write_phantoms

    folder = write_phantoms(out, task=task, patients=patients, slices=slices, matrix=matrix, seed=seed)
    print(f"wrote {patients} patients to {folder}")


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="folder of DICOM or NIfTI files, any layout")],
    task: TaskName = "pet2ct",
    size: Annotated[
        int | None, typer.Option(help="rows and columns of a slice, in pixels (default: the plan's in --out, else 256)")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="folder of this data set, or URL to copy it to (default: one in datasets/ of --output)"),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="patients read at once (default: one a CPU core)")] = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="write plan.json, to be edited, and stop")] = False,
    output: Output = None,
    settings: Annotated[list[str], typer.Option("--set", help="field of the plan, such as spacing_mm=2")] = [],  # noqa: B006 - typer's way
) -> None:
    """Turn images into a de-identified training set, split by patient; again, it adds what is new.

    Writes fingerprint.json (facts), plan.json (what is made of them; edit it and run again), the arrays, dataset.json
    and report.html. Fields of the plan by --set: spacing_mm, source_match, target_match, registration=rigid,
    simulation.severity (mr_motion), simulation.dose_fraction (pet_denoise), and the others plan.json shows.
    """
    from medgan.processes.crew import get_ready

    get_ready("medgan.data.prepare.convert_patient")  # it imports while this process does
    with held_back():
        from medgan.cli.terminal import Terminal
        from medgan.config import at_least_one, parse_assignment
        from medgan.data.prepare.plan import read_plan
        from medgan.data.prepare.prepare_dataset import PrepareRequest
        from medgan.data.prepare.prepare_dataset import plan_only as write_plan
        from medgan.data.prepare.prepare_dataset import prepare as prepare_dataset
        from medgan.paths import find_place, is_remote
        from medgan.tasks import task_named
        from medgan.workflows.events import advancing

    url, folder = out, None
    if out and not is_remote(out):
        url, folder = None, Path(out).expanduser().absolute()
    plan = read_plan(folder) if folder else None
    request = PrepareRequest(
        source=source.expanduser().absolute(),
        task=task_named(task),
        size=size or (plan.size if plan else 256),
        datasets=find_place(output).datasets,
        settings=dict(parse_assignment(text) for text in settings),
        out=folder,
        processes=at_least_one("--processes", processes) if processes is not None else None,
    )
    with stoppable(), Terminal() as terminal:
        if plan_only:
            print(f"{write_plan(request)}: edit it, then run the same command without --plan-only")
            return
        folder = prepare_dataset(request, advancing(terminal, "patients prepared"))
        if url:
            from medgan.data.remote import publish  # fsspec takes a moment, which few need

            publish(folder, url)
    _show_dataset(folder, url)


def _show_dataset(folder: Path, url: str | None) -> None:
    """Prints what a prepared data set holds, and where it is."""
    from medgan.data.manifest import described, read_manifest

    manifest = read_manifest(folder)
    for note in manifest.notes:
        print(note)
    print(described(manifest))
    if {one.role for one in manifest.patients} == {"test"}:
        print("too few patients to split: all are test patients, on whom a model can be measured")
    print(f"data set {folder}, digest {manifest.digest[:12]}")
    print(f"report   {folder / 'report.html'}")
    if url:
        print(f"copied   {url}")


@app.command()
def features(
    data: Annotated[str, typer.Option(help="folder of images, any layout, or a prepared data set's folder or URL")],
    task: TaskName = "pet2ct",
    size: Annotated[int, typer.Option(help="rows and columns of a slice, in pixels")] = 256,
    out: Annotated[Path | None, typer.Option(help="weights file to write (default: weights/ in --output)")] = None,
    output: Output = None,
    settings: Settings = [],  # noqa: B006 - typer's way
) -> None:
    """Teach a feature extractor on your own target images, for style and content losses in your own domain."""
    from medgan.cli.terminal import Terminal
    from medgan.config import parse_assignment
    from medgan.paths import find_place
    from medgan.tasks import task_named
    from medgan.workflows.learn_features import FeaturesRequest, learn_features

    request = FeaturesRequest(
        task=task_named(task),
        place=find_place(output),
        data=data,
        size=size,
        out=out.expanduser().absolute() if out else None,
        overrides=dict(parse_assignment(text) for text in settings),
    )
    blocks = "--set 'loss.style_blocks=[1,2]' --set 'loss.content_blocks=[1,2,3,4]'"
    with stoppable(), Terminal() as terminal:
        weights = learn_features(request, terminal)
        terminal.say("\nUse them in any training or search:")
        terminal.say(f"  --set extractor.network=in_domain --set extractor.weights={weights} {blocks}")


@app.command()
def doctor(
    study: Annotated[str | None, typer.Argument(help="name of the study to compare")] = None,
    phi: Annotated[Path | None, typer.Option(help="folder to search for what identifies a patient")] = None,
    against: Annotated[
        Path | None, typer.Option(help="with --phi: folder of the patients' DICOM, whose identifiers to look for")
    ] = None,
    model: Annotated[str | None, typer.Option(help="registered model whose aliases to check, by name")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="with STUDY or --model: mend what disagrees")] = False,
    output: Output = None,
    tracking_uri: TrackingUri = None,
    study_uri: StudyUri = None,
) -> None:
    """Compare a study's database, checkpoints and MLflow; or a model's aliases; or search a folder for identifiers.

    STUDY: what disagrees, a line each; --repair mends it by the study database, while no driver runs the study.

    --model NAME: whether `previous` is what the champion took over from, as an interrupted promotion may have left it.

    --phi FOLDER: names, ids, birth dates, accession numbers, UIDs, paths that hold one; what is found is named by kind
    and file, never repeated.

    Exit codes: 0 nothing disagrees or is found, or all of it was mended; 1 something is left; 2 refused input.
    """
    from medgan.paths import find_place

    _refuse_mixed({"STUDY": study, "--phi": phi, "--model": model}, against=against, repair=repair)
    if model is not None:
        left = _aliases(model, find_place(output, tracking_uri, study_uri), repair=repair)
    elif study is not None:
        left = _compare(study, find_place(output, tracking_uri, study_uri), repair=repair)
    else:
        assert phi is not None, "checked above"
        left = _search(phi.expanduser(), against.expanduser() if against else None)
    if left:
        raise SystemExit(1)


def _refuse_mixed(given: Mapping[str, Any], *, against: Path | None, repair: bool) -> None:
    """Refuses all but one of STUDY, --phi and --model, and options that do not go with it."""
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InputError("E-CLI-02", asked=" and ".join(chosen) or "none")
    if "--phi" not in chosen and against is not None:
        raise InputError("E-CLI-03", asked=chosen[0])
    if "--phi" in chosen and repair:
        raise InputError("E-CLI-04", phi=given["--phi"])


def _aliases(model: str, place: Place, *, repair: bool) -> int:
    """Returns how many disagreements are left."""
    from medgan.registry.aliases import disagreement, mend
    from medgan.registry.versions import reached

    with reached(place.tracking_uri):
        wrong = disagreement(model, uri=place.tracking_uri)
        if wrong and repair:
            mend(model, uri=place.tracking_uri)
    if wrong is None:
        print(f"{model}: nothing disagrees")
        return 0
    said = f"{model}: previous names {wrong.is_on or 'no version'}, should name {wrong.belongs_on or 'none'}"
    print(f"{said}: set right" if repair else said)
    return 0 if repair else 1


def _compare(study: str, place: Place, *, repair: bool) -> int:
    """Returns how many disagreements are left."""
    from medgan.search.consistency import open_stores
    from medgan.search.repair import examine
    from medgan.search.repair import repair as mend

    stores = open_stores(study, place)
    left = (mend if repair else examine)(stores, print)
    told = f"{left} disagreement{'s' if left > 1 else ''}{' left' if repair else ''}"
    print(f"study {study}: {told if left else 'nothing disagrees'}")
    return left


def _search(folder: Path, against: Path | None) -> int:
    """Returns how many identifiers were found."""
    from medgan.deid.find_identifiers import find_identifiers

    scan = find_identifiers(folder, against=against)
    for line in _grouped([(one.file, one.what) for one in scan.findings]):
        print(line)
    looked = f", {scan.num_values} known identifiers looked for" if against else ""
    unread = f"; {scan.num_unread} damaged or unreadable files in --against" if scan.num_unread else ""
    print(f"{scan.num_files} files searched{looked}{unread}: {len(scan.findings)} findings")
    if not against:
        print(
            "looked for DICOM headers and UIDs only; --against DICOM_FOLDER looks for these patients' own identifiers"
        )
    return len(scan.findings)


def _grouped(findings: Sequence[tuple[str, str]]) -> list[str]:
    """Returns a line for each file and what it holds; more than `SHOWN` alike in one folder share a line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for file, what in findings:
        groups.setdefault((str(PurePosixPath(file).parent), what), []).append(file)
    lines = []
    for (folder, what), files in groups.items():
        shared = len(files) > SHOWN
        lines += [f"{folder}: {what} in {len(files)} files"] if shared else [f"{file}: {what}" for file in files]
    return lines
