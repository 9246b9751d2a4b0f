"""Computes the factor from PET pixel values to SUV body weight (PS3.3 C.8.9.1, QIBA FDG-PET profile)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgan.data.dicom.decay import Injection, elapsed_s
from medgan.data.dicom.tolerance import redacted
from medgan.data.nuclides import Nuclide, nuclide_named, nuclide_of_half_life
from medgan.data.plausibility import BOUNDS, Bounds
from medgan.errors import InputError

PHILIPS = (0x7053, "Philips PET Private Group")
PHILIPS_SUV, PHILIPS_ACTIVITY = 0x00, 0x09
LARGEST_MBQ = 1e5  # an enhanced image's dose is in MBq (PS3.3 C.8.22.4); what is larger was written in Bq


@dataclass(frozen=True)
class SuvFactor:
    """Holds the factor that turns a series' rescaled values into SUV body weight, in g/ml.

    Attributes:
        made_of: the header's values that the factor is made of, in words.
        notes: choices that a person should know about.
    """

    factor: float
    made_of: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Dose:
    """Holds one item of the Radiopharmaceutical Information Sequence."""

    mbq: float
    nuclide: str
    half_life_s: float
    elapsed_s: float
    notes: tuple[str, ...]


def suv_factor(headers: Sequence[Any], bounds: Bounds = BOUNDS) -> SuvFactor:
    """Returns the factor that turns a PET series' rescaled values into SUV body weight.

    Raises:
        InputError: the Units are not GML (SUV body weight), BQML or Philips' CNTS, the image is not corrected for
            attenuation, or a value that the conversion needs is missing or beyond its bounds.
    """
    header = headers[0]
    _check_attenuation(header)
    units = str(header.get("Units", "") or "none")
    if units == "GML":
        suv_type = str(header.get("SUVType", "") or "BW")
        if suv_type != "BW":
            raise InputError("E-SUV-01", suv_type=redacted(suv_type))
        return SuvFactor(1.0, "Units GML")
    if units == "BQML":
        return _suv_per_activity(headers, bounds)
    if units == "CNTS":
        return _suv_per_count(headers, bounds)
    raise InputError("E-SUV-02", units=redacted(units))


def _suv_per_activity(headers: Sequence[Any], bounds: Bounds) -> SuvFactor:
    weight_kg = _number(headers[0], "PatientWeight")
    low, high = bounds.weight_kg
    if not low <= weight_kg <= high:
        hint = "; perhaps it is in grams" if low <= weight_kg / 1000 <= high else ""
        raise InputError("E-SUV-11", weight_kg=weight_kg, low=low, high=high, hint=hint)
    dose = _dose(headers, bounds)
    remaining = 2.0 ** (-dose.elapsed_s / dose.half_life_s) if dose.elapsed_s else 1.0
    made_of = (
        f"PatientWeight {weight_kg:g} kg, RadionuclideTotalDose {dose.mbq:g} MBq of {dose.nuclide or 'a nuclide'}, "
        f"scanned {dose.elapsed_s / 60:.0f} min after the injection"
    )
    return SuvFactor(weight_kg / (1000.0 * dose.mbq * remaining), made_of, dose.notes)


def _suv_per_count(headers: Sequence[Any], bounds: Bounds) -> SuvFactor:
    without_creator: list[str] = []
    factor = _philips(headers[0], PHILIPS_SUV, without_creator)
    if factor:
        return SuvFactor(factor, f"Philips' SUV scale factor {factor:g}", tuple(without_creator))
    activity = _philips(headers[0], PHILIPS_ACTIVITY, without_creator)
    if activity:
        found = _suv_per_activity(headers, bounds)
        made_of = f"Philips' activity factor {activity:g}, {found.made_of}"
        return SuvFactor(activity * found.factor, made_of, (*found.notes, *without_creator))
    suv, activity_factor = (private(headers[0], *PHILIPS, one) or "none" for one in (PHILIPS_SUV, PHILIPS_ACTIVITY))
    raise InputError("E-SUV-03", suv=redacted(suv), activity=redacted(activity_factor))


def _philips(header: Any, offset: int, without_creator: list[str]) -> float:
    """Returns one of Philips' private factors, or 0 if there is none; notes where its creator was removed."""
    text = private(header, *PHILIPS, offset)
    element = header.get((PHILIPS[0], 0x1000 + offset)) if not text else None
    if element is not None and "philips" in str(header.get("Manufacturer", "")).lower():
        text = _plain(element.value)
        without_creator[:] = [f"(7053,{0x1000 + offset:04x}) was used although its private creator was removed"]
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def private(header: Any, group: int, creator: str, offset: int) -> str:
    """Returns a private attribute as text, empty if there is none."""
    try:
        return _plain(header.private_block(group, creator)[offset].value)
    except KeyError:
        return ""


def _plain(value: object) -> str:
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value or "")).strip(" \0")


def _check_attenuation(header: Any) -> None:
    corrected = header.get("CorrectedImage") or "ATTN"  # empty: the Standard allows unknown
    names = [corrected] if isinstance(corrected, str) else [str(name) for name in corrected]
    if "ATTN" not in names:
        raise InputError("E-SUV-04", names=", ".join(map(redacted, names)))


def _dose(headers: Sequence[Any], bounds: Bounds) -> _Dose:
    """Returns the injection of this scan; of several, the only plausible one."""
    items = list(headers[0].get("RadiopharmaceuticalInformationSequence") or [])
    if not items:
        raise InputError("E-SUV-05")
    if len(items) == 1:
        return _checked_dose(headers, items[0], bounds)
    plausible = []
    for item in items:
        try:
            plausible.append(_checked_dose(headers, item, bounds))
        except InputError:
            continue
    if len(plausible) != 1:
        raise InputError("E-SUV-12", num_items=len(items), num_plausible=len(plausible))
    (dose,) = plausible
    note = f"1 of {len(items)} injections is plausible for this scan: {dose.nuclide}, {dose.mbq:g} MBq"
    return _Dose(dose.mbq, dose.nuclide, dose.half_life_s, dose.elapsed_s, (*dose.notes, note))


def _checked_dose(headers: Sequence[Any], item: Any, bounds: Bounds) -> _Dose:
    header, notes = headers[0], []
    mbq = _number(item, "RadionuclideTotalDose") / 1e6
    if header.get("ReferencedFrameNumber") and 1e6 * mbq < LARGEST_MBQ:
        mbq *= 1e6
        notes.append(f"RadionuclideTotalDose {mbq:g} of an enhanced image was read as MBq")
    correction = str(header.get("DecayCorrection", "") or "none")
    if correction not in ("START", "ADMIN"):
        raise InputError("E-SUV-06", correction=redacted(correction))
    name, half_life_s = _nuclide(item, bounds.nuclides, needed=correction == "START")
    nuclide = bounds.nuclides.get(name)
    _check_dose(mbq, name, nuclide.dose_mbq if nuclide else _widest(bounds.nuclides))
    if correction == "ADMIN" or nuclide is None:
        return _Dose(mbq, name, half_life_s, 0.0, tuple(notes))
    stamp, clock = (
        str(item.get(f"Radiopharmaceutical{kind}", "") or "").strip(" \0") for kind in ("StartDateTime", "StartTime")
    )
    seconds, more = elapsed_s(headers, Injection(stamp, clock, name, nuclide.hours, half_life_s))
    return _Dose(mbq, name, half_life_s, seconds, (*notes, *more))


def _widest(nuclides: Mapping[str, Nuclide]) -> tuple[float, float]:
    return min(one.dose_mbq[0] for one in nuclides.values()), max(one.dose_mbq[1] for one in nuclides.values())


def _check_dose(mbq: float, nuclide: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if low <= mbq <= high:
        return
    units = {"MBq": 1e6, "kBq": 1e3, "GBq": 1e9, "mCi": 3.7e7}
    likely = [unit for unit, becquerels in units.items() if low <= mbq * becquerels <= high]
    hint = f"; perhaps it is in {' or '.join(likely)}" if likely else ""
    raise InputError("E-SUV-13", becquerels=mbq * 1e6, nuclide=nuclide or "PET", low=low, high=high, hint=hint)


def _nuclide(item: Any, known: Mapping[str, Nuclide], *, needed: bool) -> tuple[str, float]:
    """Returns the nuclide's name and half-life in seconds; ("", 0) where the header names none and none is needed."""
    code = (item.get("RadionuclideCodeSequence") or [{}])[0]
    named = nuclide_named(str(code.get("CodeMeaning", "") or ""), known)
    if not item.get("RadionuclideHalfLife") and (named or not needed):
        return named, known[named].half_life_s if named else 0.0
    half_life_s = _number(item, "RadionuclideHalfLife")
    name = nuclide_of_half_life(half_life_s, known)
    if name and name == (named or name):
        return name, half_life_s
    in_minutes = nuclide_of_half_life(half_life_s * 60, known)
    hint = f"; perhaps it is in minutes ({in_minutes})" if in_minutes else ""
    raise InputError("E-SUV-14", half_life_s=half_life_s, expected=_expected(named, known), hint=hint)


def _expected(named: str, known: Mapping[str, Nuclide]) -> str:
    return f"{named} ({known[named].half_life_s:g} s)" if named else f"a nuclide of PET ({', '.join(known)})"


def _number(header: Any, keyword: str) -> float:
    value = header.get(keyword)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError("E-SUV-10", keyword=keyword, value=redacted(value))
    return number
