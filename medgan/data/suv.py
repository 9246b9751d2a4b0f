"""PET pixel values to SUV body weight, from what the DICOM header says (PS3.3 C.8.9.1, QIBA FDG-PET profile)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from medgan.errors import InputError


def suv_factor(headers: Sequence[Any]) -> float:
    """What a PET series' rescaled values are multiplied by to become SUV body weight, in g/ml.

    Args:
        headers: DICOM headers of all slices of one series.

    Raises:
        InputError: the Units are not GML (SUV body weight) or BQML, the image is not corrected for attenuation,
            or a value that the conversion needs is missing.
    """
    header = headers[0]
    _check_attenuation(header)
    units = str(header.get("Units", "") or "none")
    if units == "GML":
        suv_type = str(header.get("SUVType", "") or "BW")
        if suv_type != "BW":
            raise InputError(f"PT: expected SUV Type BW (body weight), got {suv_type}")
        return 1.0
    if units != "BQML":
        raise InputError(f"PT: expected Units GML (SUV) or BQML (activity), got {units}")
    weight_kg = _number(header, "PatientWeight")
    nuclide = _radiopharmaceutical(header)
    dose_bq = _number(nuclide, "RadionuclideTotalDose")
    return 1000.0 * weight_kg / (dose_bq * _remaining(headers, nuclide))


def _check_attenuation(header: Any) -> None:
    corrected = header.get("CorrectedImage") or "ATTN"  # empty: the Standard allows unknown
    names = [corrected] if isinstance(corrected, str) else [str(name) for name in corrected]
    if "ATTN" not in names:
        raise InputError(f"PT: expected images corrected for attenuation (ATTN), got {', '.join(names)}")


def _radiopharmaceutical(header: Any) -> Any:
    sequence = header.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise InputError("PT: Units BQML need a Radiopharmaceutical Information Sequence; it is missing")
    return sequence[0]


def _remaining(headers: Sequence[Any], nuclide: Any) -> float:
    """The fraction of the injected activity left at the moment the pixel values are decay corrected to."""
    correction = str(headers[0].get("DecayCorrection", "") or "none")
    if correction == "ADMIN":
        return 1.0
    if correction != "START":
        raise InputError(f"PT: expected Decay Correction START or ADMIN, got {correction}")
    scan = _scan_start(headers)
    elapsed_s = (scan - _injection(headers[0], nuclide, scan)).total_seconds()
    if not 0 <= elapsed_s < 86400:
        raise InputError(f"PT: expected a scan within a day after the injection, got {elapsed_s / 3600:.1f} hours")
    return 2.0 ** (-elapsed_s / _number(nuclide, "RadionuclideHalfLife"))


def _scan_start(headers: Sequence[Any]) -> datetime:
    """Series time, unless the series was made after it was acquired: then the earliest acquisition."""
    series = _moment(headers[0], "SeriesDate", "SeriesTime")
    acquired = [
        _moment(header, "AcquisitionDate", "AcquisitionTime") for header in headers if header.get("AcquisitionTime")
    ]
    return min([series, *acquired])


def _injection(header: Any, nuclide: Any, scan: datetime) -> datetime:
    stamp = str(nuclide.get("RadiopharmaceuticalStartDateTime", "") or "")
    if stamp:
        return _parse(stamp[:8], stamp[8:].split("+")[0].split("-")[0], "Radiopharmaceutical Start DateTime")
    clock = str(nuclide.get("RadiopharmaceuticalStartTime", "") or "")
    start = _parse(scan.strftime("%Y%m%d"), clock, "Radiopharmaceutical Start Time")
    return start - timedelta(days=1) if start > scan else start  # injected before midnight, scanned after it


def _moment(header: Any, date: str, time: str) -> datetime:
    day = str(header.get(date, "") or header.get("SeriesDate", "") or header.get("StudyDate", "") or "")
    return _parse(day, str(header.get(time, "") or ""), time)


def _parse(date: str, time: str, name: str) -> datetime:
    digits = time.replace(":", "").strip()
    try:
        day = datetime.strptime(date.strip(), "%Y%m%d")
        clock = datetime.strptime(digits.split(".")[0].ljust(6, "0")[:6], "%H%M%S")
        fraction = float(f"0.{digits.split('.')[1]}") if "." in digits else 0.0
    except ValueError as error:
        raise InputError(f"PT: {name} is missing or not a DICOM date and time; SUV needs it") from error
    if not digits:
        raise InputError(f"PT: {name} is missing or not a DICOM date and time; SUV needs it")
    seconds = clock.hour * 3600 + clock.minute * 60 + clock.second + fraction
    return day + timedelta(seconds=seconds)


def _number(header: Any, keyword: str) -> float:
    value = header.get(keyword)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not number > 0:
        raise InputError(f"PT: {keyword} is {value!r}; SUV needs a number above 0")
    return number
