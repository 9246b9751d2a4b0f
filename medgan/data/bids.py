"""Reads the sidecar of a NIfTI image of PET (BIDS, "Positron Emission Tomography"): unit, dose, weight, times."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgan.data.dicom.suv import SuvFactor
from medgan.data.nuclides import nuclide_named
from medgan.data.plausibility import Bounds
from medgan.data.unpack import UNREADABLE, opened
from medgan.errors import InputError

SUV_UNITS = frozenset(["suv", "suvbw", "g/ml", "gml", "g/cm3"])
ACTIVITY_UNITS = {"bq/ml": 1.0, "bqml": 1.0, "kbq/ml": 1e3, "mbq/ml": 1e6, "nci/ml": 37.0, "uci/ml": 3.7e4}
DOSE_UNITS = {"bq": 1.0, "kbq": 1e3, "mbq": 1e6, "gbq": 1e9, "mci": 3.7e7, "uci": 3.7e4}
WEIGHTS = ("BodyWeight", "PatientWeight", "SubjectWeight")
HIGHEST_BYTES = 1 << 24
LARGEST = 1e15


def sidecar_place(path: Path) -> Path:
    """Returns where the JSON file of a NIfTI image would be."""
    name = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return path.with_name(f"{name}.json")


def sidecar_of(path: Path) -> Mapping[str, Any]:
    """Returns the fields of the JSON file beside a NIfTI image; none where it is missing or cannot be read."""
    try:
        with opened(sidecar_place(path)) as file:
            tree = json.loads(file.read(HIGHEST_BYTES))
    except (*UNREADABLE, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def suv_of_sidecar(fields: Mapping[str, Any], bounds: Bounds) -> SuvFactor:
    """Returns the factor from a NIfTI image's values to SUV body weight; 1 where no sidecar gives a unit.

    The activity is corrected for decay to Image Decay Correction Time, in seconds after Time Zero, as is Injection
    Start (BIDS 1.9, PET).

    Raises:
        InputError: the unit is neither SUV nor an activity concentration, or a field that the SUV needs is missing or
            not plausible.
    """
    unit = str(fields.get("Units", "") or "")
    plain = unit.lower().replace(" ", "").replace("µ", "u")
    if not unit or plain in SUV_UNITS:
        return SuvFactor(1.0, f"Units {unit}" if unit else "the file's own values, which are taken as SUV")
    if plain not in ACTIVITY_UNITS:
        raise InputError("E-NIFTI-04", name="Units", expected="SUV, g/mL, Bq/mL or kBq/mL", given=_short(unit))
    weight_kg = _weight(fields, bounds)
    dose_bq = _dose(fields)
    name = nuclide_named(str(fields.get("TracerRadionuclide", "") or ""), bounds.nuclides)
    if not name:
        raise InputError("E-NIFTI-04", name="TracerRadionuclide", expected="a nuclide of PET", given="none")
    nuclide = bounds.nuclides[name]
    low, high = nuclide.dose_mbq
    if not low <= dose_bq / 1e6 <= high:
        expected = f"{low:g} to {high:g} MBq of {name}"
        raise InputError("E-NIFTI-04", name="InjectedRadioactivity", expected=expected, given=f"{dose_bq / 1e6:g} MBq")
    if fields.get("ImageDecayCorrected") is not True:
        raise InputError("E-NIFTI-04", name="ImageDecayCorrected", expected="true", given="no true")
    seconds = _number(fields, "ImageDecayCorrectionTime", "s") - _number(fields, "InjectionStart", "s")
    hours_low, hours_high = nuclide.hours
    if not hours_low * 3600 - 600 <= seconds <= hours_high * 3600:
        expected = f"{hours_low:g} to {hours_high:g} hours after InjectionStart"
        given = f"{seconds / 3600:.2f} hours"
        raise InputError("E-NIFTI-04", name="ImageDecayCorrectionTime", expected=expected, given=given)
    remaining = 2.0 ** (-seconds / nuclide.half_life_s)
    factor = ACTIVITY_UNITS[plain] * weight_kg * 1000 / (dose_bq * remaining)
    made_of = (
        f"Units {unit}, weight {weight_kg:g} kg, InjectedRadioactivity {dose_bq / 1e6:g} MBq of {name}, "
        f"corrected to {seconds / 60:.0f} min after the injection"
    )
    return SuvFactor(factor, made_of, (f"PET in {unit} converted to SUV with the sidecar",))


def _weight(fields: Mapping[str, Any], bounds: Bounds) -> float:
    name = next((one for one in WEIGHTS if one in fields), WEIGHTS[0])
    weight_kg, (low, high) = _number(fields, name, "kg"), bounds.weight_kg
    if not low <= weight_kg <= high:
        raise InputError("E-NIFTI-04", name=name, expected=f"{low:g} to {high:g} kg", given=f"{weight_kg:g}")
    return weight_kg


def _dose(fields: Mapping[str, Any]) -> float:
    """Returns the injected activity in Bq."""
    unit = str(fields.get("InjectedRadioactivityUnits", "") or "none")
    scale = DOSE_UNITS.get(unit.lower().replace("µ", "u"))
    if scale is None:
        raise InputError("E-NIFTI-04", name="InjectedRadioactivityUnits", expected="MBq or Bq", given=_short(unit))
    return _number(fields, "InjectedRadioactivity", unit) * scale


def _number(fields: Mapping[str, Any], name: str, unit: str) -> float:
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST and value == value:
        return float(value)
    given = "none" if value is None else "no number"
    raise InputError("E-NIFTI-04", name=name, expected=f"a number in {unit}", given=given)


def _short(text: str) -> str:
    return text if len(text) <= 16 else "another text"
