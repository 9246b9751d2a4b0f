"""Computes the factor from PET pixel values to SUV body weight (PS3.3 C.8.9.1, QIBA FDG-PET profile)."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from medgan.data.dicom.header import redacted
from medgan.errors import InputError

PHILIPS = (0x7053, "Philips PET Private Group")
PHILIPS_SUV, PHILIPS_ACTIVITY = 0x00, 0x09
GE = (0x0009, "GEMS_PETD_01")
GE_SCAN = 0x0D
_STAMP = re.compile(r"(\d{8})(\d{2,6}(?:\.\d*)?)([+-]\d{4})?")  # VR DT, to the hour at least
_OFFSET = re.compile(r"[+-]\d{4}")


def suv_factor(headers: Sequence[Any]) -> float:
    """Returns the factor that turns a PET series' rescaled values into SUV body weight, in g/ml.

    Raises:
        InputError: the Units are not GML (SUV body weight), BQML or Philips' CNTS, the image is not corrected for
            attenuation, or a value that the conversion needs is missing.
    """
    header = headers[0]
    _check_attenuation(header)
    units = str(header.get("Units", "") or "none")
    if units == "GML":
        suv_type = str(header.get("SUVType", "") or "BW")
        if suv_type != "BW":
            raise InputError("E-SUV-01", suv_type=redacted(suv_type))
        return 1.0
    if units == "BQML":
        return _suv_per_activity(headers)
    if units == "CNTS":
        return _suv_per_count(headers)
    raise InputError("E-SUV-02", units=redacted(units))


def _suv_per_activity(headers: Sequence[Any]) -> float:
    weight_kg = _number(headers[0], "PatientWeight")
    nuclide = _radiopharmaceutical(headers[0])
    dose_bq = _number(nuclide, "RadionuclideTotalDose")
    return 1000.0 * weight_kg / (dose_bq * _remaining(headers, nuclide))


def _suv_per_count(headers: Sequence[Any]) -> float:
    factor = _philips(headers[0], PHILIPS_SUV)
    if factor:
        return factor
    activity = _philips(headers[0], PHILIPS_ACTIVITY)
    if activity:
        return activity * _suv_per_activity(headers)
    suv, activity_factor = (_private(headers[0], *PHILIPS, one) or "none" for one in (PHILIPS_SUV, PHILIPS_ACTIVITY))
    raise InputError("E-SUV-03", suv=redacted(suv), activity=redacted(activity_factor))


def _philips(header: Any, offset: int) -> float:
    """Returns one of Philips' private factors, or 0 if there is none."""
    try:
        value = float(_private(header, *PHILIPS, offset))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _private(header: Any, group: int, creator: str, offset: int) -> str:
    """Returns a private attribute as text, empty if there is none."""
    try:
        value = header.private_block(group, creator)[offset].value
    except KeyError:
        return ""
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value or "")).strip(" \0")


def _check_attenuation(header: Any) -> None:
    corrected = header.get("CorrectedImage") or "ATTN"  # empty: the Standard allows unknown
    names = [corrected] if isinstance(corrected, str) else [str(name) for name in corrected]
    if "ATTN" not in names:
        raise InputError("E-SUV-04", names=", ".join(map(redacted, names)))


def _radiopharmaceutical(header: Any) -> Any:
    sequence = header.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise InputError("E-SUV-05")
    return sequence[0]


def _remaining(headers: Sequence[Any], nuclide: Any) -> float:
    """Returns the fraction of the injected activity that is left at the time of the decay correction."""
    correction = str(headers[0].get("DecayCorrection", "") or "none")
    if correction == "ADMIN":
        return 1.0
    if correction != "START":
        raise InputError("E-SUV-06", correction=redacted(correction))
    scan = _scan_start(headers)
    elapsed_s = (scan - _injection(headers[0], nuclide, scan)).total_seconds()
    if not 0 <= elapsed_s < 86400:
        raise InputError("E-SUV-07", hours=elapsed_s / 3600)
    return 2.0 ** (-elapsed_s / _number(nuclide, "RadionuclideHalfLife"))


def _scan_start(headers: Sequence[Any]) -> datetime:
    """Returns the time to which the values are decay corrected.

    Enhanced images state it. For classic images it is the series' time; but if the series was made after the
    acquisition, GE's private scan time, or else the earliest acquisition (QIBA, SUV vendor-neutral pseudo-code).
    """
    header = headers[0]
    if header.get("DecayCorrectionDateTime") or header.get("DecayCorrected"):
        return _stamp(header, str(header.get("DecayCorrectionDateTime") or ""), "Decay Correction DateTime")
    series = _moment(header, "SeriesDate", "SeriesTime")
    acquired = [_moment(one, "AcquisitionDate", "AcquisitionTime") for one in headers if one.get("AcquisitionTime")]
    if not acquired or series <= min(acquired):
        return series
    scan = _private(header, *GE, GE_SCAN)
    return _stamp(header, scan, "GE's scan time") if scan else min(acquired)


def _injection(header: Any, nuclide: Any, scan: datetime) -> datetime:
    stamp = str(nuclide.get("RadiopharmaceuticalStartDateTime", "") or "")
    if stamp:
        return _stamp(header, stamp, "Radiopharmaceutical Start DateTime")
    clock = str(nuclide.get("RadiopharmaceuticalStartTime", "") or "")
    start = _parse(scan.strftime("%Y%m%d"), clock, "Radiopharmaceutical Start Time")
    return start - timedelta(days=1) if start > scan else start  # injected before midnight, scanned after it


def _stamp(header: Any, text: str, name: str) -> datetime:
    """Returns the time of a DT, in the time zone of the header's dates and times if both zones are known."""
    found = _STAMP.fullmatch(text.strip(" \0"))
    date, clock, zone = found.groups() if found else ("", "", None)
    moment = _parse(date, clock, name)
    local = str(header.get("TimezoneOffsetFromUTC", "") or "").strip()
    if zone and _OFFSET.fullmatch(local):
        moment += _offset(local) - _offset(zone)
    return moment


def _offset(zone: str) -> timedelta:
    minutes = int(zone[1:3]) * 60 + int(zone[3:5])
    return timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def _moment(header: Any, date: str, time: str) -> datetime:
    day = str(header.get(date, "") or header.get("SeriesDate", "") or header.get("StudyDate", "") or "")
    return _parse(day, str(header.get(time, "") or ""), time)


def _parse(date: str, time: str, name: str) -> datetime:
    digits = time.replace(":", "").strip()
    try:
        day = datetime.strptime(date.strip().replace(".", ""), "%Y%m%d")
        clock = datetime.strptime(digits.split(".")[0].ljust(6, "0")[:6], "%H%M%S")
        fraction = float(f"0.{digits.split('.')[1]}") if "." in digits else 0.0
        moment = day + timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second + fraction)
    except (ValueError, OverflowError) as error:
        raise InputError("E-SUV-08", name=name) from error
    if not digits:
        raise InputError("E-SUV-09", name=name)
    return moment


def _number(header: Any, keyword: str) -> float:
    value = header.get(keyword)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError("E-SUV-10", keyword=keyword, value=redacted(value))
    return number
