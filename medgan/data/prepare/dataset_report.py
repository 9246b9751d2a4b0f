"""Writes `report.html`, which displays a prepared data set in one file without scripts that loads no other file."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from medgan.data.atomic_write import write_atomically
from medgan.data.manifest import Manifest, Patient
from medgan.data.prepare.pair_picture import CT_WINDOW_HU, PICTURE
from medgan.data.prepare.split import ROLES
from medgan.errors import InputError

FILE_NAME = "report.html"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1b1f23; background: #fff; max-width: 1180px; margin: 2em auto;
  padding: 0 1em; }}
h1 {{ font-size: 1.5em; }} h2 {{ font-size: 1.15em; margin-top: 2em; }} h3 {{ font-size: 1em; margin: 1.6em 0 0.3em; }}
h3 small {{ font-weight: normal; color: #57606a; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.3em 0.9em 0.3em 0; border-bottom: 1px solid #d8dee4; }}
th {{ font-weight: 600; }} thead th {{ color: #57606a; font-size: 0.87em; vertical-align: bottom; }}
td {{ font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
td:first-child, .linked td:nth-child(2), th[scope=row] {{ white-space: nowrap; width: 1%; }}
.notice {{ background: #fff8e1; border-left: 4px solid #d9a406; padding: 0.6em 1em; }}
svg {{ max-width: 100%; height: auto; display: block; }} a {{ color: #0a58a8; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="notice">For research only, not for diagnosis. Patients appear by keyed hash only; their pictures are
nevertheless health data. {persons}</p>
{body}
</body>
</html>
"""


def write_report(manifest: Manifest, folder: Path) -> Path:
    """Writes `report.html` into a data set's folder and returns its path; the same data give the same bytes.

    Raises:
        InputError: a patient's picture is missing.
    """
    sections = [
        _facts(manifest),
        "<h2>Left out</h2>",
        _left_out(manifest),
        "<h2>Patients</h2>",
        _patient_table(manifest),
        "<h2>Pictures</h2>",
        f"<p>The middle slice, then the values of all slices. {_explanation(manifest)}</p>",
        *(_picture_section(manifest, patient, folder) for patient in manifest.patients),
    ]
    persons = "These are computed phantoms, not persons." if manifest.phantom else ""
    page = _PAGE.format(title=escape(f"Data set {manifest.task.name}"), persons=persons, body="\n".join(sections))
    path = folder / FILE_NAME
    write_atomically(path, page.encode())
    return path


def _facts(manifest: Manifest) -> str:
    task = manifest.task
    roles = Counter(patient.role for patient in manifest.patients)
    num_slices = sum(patient.slices for patient in manifest.patients)
    facts = {
        "Translation": f"{task.source.modality} [{task.source.unit}] to {task.target.modality} [{task.target.unit}]",
        "Grid": f"{manifest.size} x {manifest.size} pixels of {manifest.spacing_mm:g} mm",
        "Patients": f"{len(manifest.patients)}: " + ", ".join(f"{roles[role]} {role}" for role in ROLES if roles[role]),
        "Slices": str(num_slices),
        "Made by": f"MedGAN {manifest.medgan}",
        "Digest": manifest.digest,
    }
    if manifest.simulation:
        settings = ", ".join(f"{name} {value:g}" for name, value in sorted(manifest.simulation.items()))
        facts["Sources simulated"] = f"{task.simulation}: {settings}"
    return _table([], facts.items())


def _left_out(manifest: Manifest) -> str:
    dropped = [patient.dropped for patient in manifest.patients if patient.dropped]
    slices = f"{sum(dropped)} of {len(dropped)} patients, which show nothing of the source"
    rows = [
        *(("patient set aside", reason) for reason in manifest.set_aside),
        *([("slices dropped", slices)] if dropped else []),
        *(("files passed over", f"{number}: {reason}") for reason, number in sorted(manifest.passed_over.items())),
    ]
    return _table(["what", "how many and why"], rows) if rows else "<p>Nothing.</p>"


def _patient_table(manifest: Manifest) -> str:
    task = manifest.task
    names = [
        "patient", "role", "slices", "dropped", f"source window [{task.source.unit}]",
        f"target window [{task.target.unit}]", "overlap", "mutual information", "notes",
    ]  # fmt: skip
    rows = [
        (
            patient.hash, patient.role, patient.slices, patient.dropped, _range(patient.source_window),
            _range(patient.target_window), f"{patient.overlap:.3f}", f"{patient.mutual_information:.3f}",
            "\n".join(patient.notes),
        )
        for patient in manifest.patients
    ]  # fmt: skip
    meaning = (
        "Overlap is the Dice coefficient of the body in source and target; low values ask for a look at the picture."
    )
    return f"<p>{meaning}</p>\n{_table(names, rows, link=True)}"


def _explanation(manifest: Manifest) -> str:
    texts = {"CT": f"CT is shown from {_range(CT_WINDOW_HU)} HU", "PT": "PET is shown inverted, dark where uptake is"}
    modalities = dict.fromkeys((manifest.task.source.modality, manifest.task.target.modality))
    sentences = [texts.get(modality, f"{modality} is shown in its own window") for modality in modalities]
    return escape(". ".join(sentences) + ". Dashed lines are the window that networks see.")


def _picture_section(manifest: Manifest, patient: Patient, folder: Path) -> str:
    middle = patient.slices // 2
    name = escape(patient.hash)
    place = f"{patient.role}, slice {patient.slice_numbers[middle]} of the target series"
    heading = f'<h3 id="{name}">{name} <small>{escape(place)}</small></h3>'
    return f"{heading}\n{_picture(folder, patient)}"


def _picture(folder: Path, patient: Patient) -> str:
    try:
        return (folder / patient.folder / PICTURE).read_text()
    except OSError as error:
        raise InputError("E-PREPARE-01", patient_hash=patient.hash, picture=PICTURE) from error


def _range(window: tuple[float, float]) -> str:
    return f"{window[0]:.4g} to {window[1]:.4g}"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]], *, link: bool = False) -> str:
    """Returns an HTML table; without names, a row's first cell is its heading; `link` links this cell to a picture."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [f"<thead><tr>{head}</tr></thead>"] if names else []
    for row in rows:
        first, *others = (escape(str(cell)).replace("\n", "<br>") for cell in row)
        label = f'<a href="#{first}">{first}</a>' if link else first
        opening = "<td>" if names else '<th scope="row">'
        closing = opening[:3].replace("<", "</") + ">"
        lines.append(f"<tr>{opening}{label}{closing}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>")
    opening = '<table class="linked">' if link else "<table>"
    return opening + "\n" + "\n".join(lines) + "\n</table>"
