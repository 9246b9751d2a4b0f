"""Good patients with one value changed each: everybody is used with the right numbers, or set aside with the reason."""

import os
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from field_patients import NUM_SLICES, SOP_CLASSES, STEP_MM, hashed, nifti, patient, prepared, put, save
from scipy import ndimage

NUM_CHANGES = int(os.environ.get("MEDGAN_FIELD_CHANGES", "200"))
NUM_BODIES = 4
FACTORS = (5, 7.5, 10, 60, 1000, 1e6)
BLANKS = {
    "CT": ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "PixelSpacing",
           "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType",
           "SliceThickness", "StudyDate", "StudyTime", "SeriesTime", "ImageType", "PatientSex", "InstanceNumber"],
    "PT": ["PatientWeight", "Units", "DecayCorrection", "CorrectedImage", "RescaleSlope", "RescaleIntercept",
           "SeriesTime", "SeriesDate", "AcquisitionTime", "AcquisitionDate", "StudyDate", "FrameReferenceTime",
           "ActualFrameDuration", "PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID", "SliceThickness"],
    "dose": ["RadiopharmaceuticalStartTime", "RadionuclideTotalDose", "RadionuclideHalfLife"],
}  # fmt: skip


class Change(NamedTuple):
    """Says what was changed, and which words in a reason name it."""

    what: str
    names: str


def dose(slices):
    return [one.RadiopharmaceuticalInformationSequence[0] for one in slices]


def scaled(random, ct, pt):
    """Multiplies or divides one value by 5 or more."""
    factor = float(random.choice(FACTORS)) ** random.choice([-1, 1])
    side = ct if random.random() < 0.5 else pt
    keyword, datasets, names = [
        ("PatientWeight", pt, "PatientWeight"),
        ("RadionuclideTotalDose", dose(pt), "RadionuclideTotalDose"),
        ("RadionuclideHalfLife", dose(pt), "RadionuclideHalfLife"),
        ("RescaleSlope", side, "Rescale Slope"),
        ("RescaleIntercept", ct, "Rescale Intercept"),
        ("SliceThickness", side, "Slice Thickness"),
        ("ImagePositionPatient", side, "Image Position|same position"),
        ("PixelSpacing", side, "Pixel Spacing|pixel spacing"),
        ("PixelSpacing", side, "Pixel Spacing|pixel spacing"),
    ][int(random.integers(9))]
    axes = {"ImagePositionPatient": [2], "PixelSpacing": [[0], [1], [0, 1]][int(random.integers(3))]}.get(keyword, [0])
    for one in datasets:
        before = one[keyword].value
        values = [
            float(value) for value in (before if keyword in ("ImagePositionPatient", "PixelSpacing") else [before])
        ]
        after = [f"{value * (factor if axis in axes else 1):.8g}" for axis, value in enumerate(values)]
        setattr(one, keyword, after if len(after) > 1 else after[0])
    return Change(f"{keyword} {axes} of {side[0].Modality} x {factor:g}", names)


def off_by_hours(random, _ct, pt):
    """Moves a clock by 6 hours or more, in either direction."""
    hours = int(random.integers(6, 19))
    field = random.choice(["injection", "SeriesTime", "AcquisitionTime", "both"])
    if field == "injection":
        for item in dose(pt):
            item.RadiopharmaceuticalStartTime = f"{(9 + hours) % 24:02d}0000"
    for one in pt:
        for keyword in {"both": ("SeriesTime", "AcquisitionTime"), "injection": ()}.get(field, (field,)):
            setattr(one, keyword, f"{(10 + hours) % 24:02d}0000")
    return Change(f"{field} + {hours} h", "Radiopharmaceutical Start Time")


def blank(random, ct, pt):
    """Empties or removes one attribute."""
    where = random.choice(list(BLANKS))
    keyword = str(random.choice(BLANKS[where]))
    removed = random.random() < 0.5
    for one in {"CT": ct, "PT": pt, "dose": dose(pt)}[where]:
        if removed:
            delattr(one, keyword)
        else:
            one[keyword].value = None
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword).replace("UID", "UID")
    words = {"Corrected Image": "ATTN", "Image Position Patient": "Image Position",
             "Image Orientation Patient": "Image Orientation", "Frame Of Reference UID": "frame of reference",
             "Study Instance UID": "Study Instance UID"}.get(words, words)  # fmt: skip
    return Change(f"no {where} {keyword}", f"{keyword}|{words}")


def exchanged(random, ct, pt):
    """Exchanges the modality of one series, with its SOP Class or without."""
    side = ct if random.random() < 0.5 else pt
    other = {"CT": "PT", "PT": "CT"}[side[0].Modality]
    whole = random.random() < 0.5
    for one in side:
        one.Modality = other
        if whole:
            one.SOPClassUID = SOP_CLASSES[other]
    return Change(f"called {other}", "Modality|got only|Units|HU|SUV|ATTN|Rescale")


def flipped(random, ct, pt):
    """Reverses the direction of rows, of columns, or of both."""
    side = ct if random.random() < 0.5 else pt
    signs = [(-1, 1), (1, -1), (-1, -1)][int(random.integers(3))]
    for one in side:
        a, b = signs
        one.ImageOrientationPatient = [a, 0, 0, 0, b, 0]
    return Change(f"{side[0].Modality} flipped {signs}", "Image Orientation|orientation|do not meet")


def shifted(random, ct, pt):
    """Shifts one image by more than half of the body."""
    side, axis = (ct if random.random() < 0.5 else pt), int(random.integers(3))
    half = (165, 115, STEP_MM * NUM_SLICES / 2)[axis]
    shift = float(random.uniform(half, 3 * half) * random.choice([-1, 1]))
    for one in side:
        place = [float(value) for value in one.ImagePositionPatient]
        place[axis] += round(shift, 3)
        one.ImagePositionPatient = place
    return Change(f"{side[0].Modality} shifted along {'xyz'[axis]} by {shift:.0f}", "Image Position|do not meet")


def nifti_changed(random, ct, pt):
    """Changes one of two NIfTI images: its values, its affine, or its name; returns what replaces both."""
    images = {"CT": ct, "PT": pt}
    side = str(random.choice(["CT", "PT"]))
    image, kind = images[side], random.choice(["values", "rows", "place", "names"])
    affine = image.affine.copy()
    if kind == "values":
        factor = float(random.choice(FACTORS)) ** random.choice([-1, 1])
        image = type(image)(np.float32(factor) * image.get_fdata(dtype=np.float32), affine)
        change = Change(f"NIfTI {side} x {factor:g}", "SUV|HU|body fills")
    elif kind == "names":
        images = {"CT": pt, "PT": ct}
        return images, Change("NIfTI names exchanged", "HU|SUV")
    elif kind == "rows":
        rows = [[0], [1], [2], [0, 1]][int(random.integers(4))]
        affine[rows] *= -1
        change = Change(f"NIfTI {side} affine rows {rows} negated", "affine|do not meet")
    else:
        axis = int(random.integers(3))
        half = (165, 115, STEP_MM * NUM_SLICES / 2)[axis]
        affine[axis, 3] += random.uniform(half, 3 * half) * random.choice([-1, 1])
        change = Change(f"NIfTI {side} shifted along {'xyz'[axis]}", "affine|do not meet")
    image = type(image)(image.get_fdata(dtype=np.float32), affine) if kind != "values" else image
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    images[side] = image
    return images, change


DICOM_CHANGES = [scaled, scaled, off_by_hours, blank, exchanged, flipped, shifted]


def write_all(folder, random, number_of_changes):
    """Writes every changed patient, and the unchanged bodies; returns change and body of each by name."""
    changes = {}
    for body in range(NUM_BODIES):
        write(folder, f"GOOD{body}", *patient(f"GOOD{body}", seed=body))
    for number in range(number_of_changes):
        name, body = f"P{number:04d}", int(random.integers(NUM_BODIES))
        if number % 4 == 3:
            images, change = nifti_changed(random, nifti("CT", body), nifti("PT", body))
            for side, image in images.items():
                put(image, folder / f"{name}_{side.lower()}.nii")
        else:
            ct, pt = patient(name, seed=body)
            change = random.choice(DICOM_CHANGES)(random, ct, pt)
            write(folder, name, ct, pt)
        changes[name] = (change, body)
    return changes


def write(folder, name, ct, pt):
    save(ct, folder / name / "CT")
    save(pt, folder / name / "PT")


def right(outcome, good):
    """Whether numbers and places are those of the unchanged body: SUV 1 %, 1 HU, half a voxel."""
    if outcome.source.shape != good.source.shape:
        return False
    for found, true, tolerance in ((outcome.source, good.source, 0.01), (outcome.target, good.target, 1.0)):
        inside = np.abs(true) > 0.3 if tolerance < 1 else true > -300
        off = np.median(np.abs(found - true)[inside] / (np.abs(true)[inside] if tolerance < 1 else 1.0))
        moved = max(np.abs(ndimage.shift(true, step, order=1, mode="nearest") - true).mean() for step in HALF)
        if off > tolerance or np.abs(found - true).mean() > moved:
            return False
    return True


HALF = ((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))


@pytest.mark.timeout(1800)
def test_changed_patient_is_used_rightly_or_set_aside_with_reason(tmp_path):
    folder = tmp_path / "images"
    changes = write_all(folder, np.random.default_rng(17), NUM_CHANGES)
    _, outcomes = prepared(folder, size=48, processes=2)
    good = [outcomes[hashed(folder, f"GOOD{body}")] for body in range(NUM_BODIES)]
    assert all(one.reason == "" and one.suv == pytest.approx(1, abs=0.1) for one in good)
    counts, wrong, unnamed = Counter(), [], []
    for name, (change, body) in changes.items():
        outcome = outcomes.get(hashed(folder, name)) or outcomes.get(hashed(folder, ""))
        if outcome is None:
            wrong.append((name, change, "lost"))
        elif outcome.reason:
            counts["set aside"] += 1
            if not re.search(f"{change.names}|got only", outcome.reason):
                unnamed.append((name, change, outcome.reason))
        elif right(outcome, good[body]):
            counts["used"] += 1
        else:
            wrong.append((name, change, outcome[1:5]))
    print(counts, f"{len(wrong)} wrong, {len(unnamed)} unnamed", *wrong, *unnamed, sep="\n")
    assert (wrong, unnamed) == ([], [])
