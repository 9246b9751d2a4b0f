"""Computes the time between an injection and the moment to which a PET series is corrected for decay (QIBA)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from medgan.errors import InputError

GE = (0x0009, "GEMS_PETD_01")
GE_SCAN = 0x0D
UNDATED = "19000101"
EARLY_S = 600.0  # a dynamic scan may begin this long before its injection
DAY_S = 86400.0
SAME_S = 60.0  # two statements of one time may differ by rounding
LONGEST_SCAN_S = 3 * 3600.0
STUDY_CLOCKS = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
DATE_TIME, TIME = "Radiopharmaceutical Start DateTime", "Radiopharmaceutical Start Time"
_STAMP = re.compile(r"(\d{8})(\d{2,6}(?:\.\d*)?)([+-]\d{4})?")  # VR DT, to the hour at least
_OFFSET = re.compile(r"[+-]\d{4}")


@dataclass(frozen=True)
class Injection:
    """Holds what an item of the Radiopharmaceutical Information Sequence says about its time.

    Attributes:
        stamp: Radiopharmaceutical Start DateTime (0018,1078), or empty.
        clock: Radiopharmaceutical Start Time (0018,1072), or empty.
        nuclide: name of the nuclide, for messages.
        hours: shortest and longest plausible time from the injection to the scan.
        half_life_s: half-life in seconds.
    """

    stamp: str
    clock: str
    nuclide: str
    hours: tuple[float, float]
    half_life_s: float


def elapsed_s(headers: Sequence[Any], injection: Injection) -> tuple[float, list[str]]:
    """Returns the seconds from the injection to the decay correction's reference, and notes on how they were found.

    The DateTime decides. Where it is missing or not plausible, as de-identification leaves it, the Time does, on the
    day of the scan or the day before; this cannot be for a nuclide whose scans come days after the injection.

    Raises:
        InputError: a time is missing or not valid, all were set to one value, or the result is not plausible.
    """
    _refuse_one_clock(headers, injection)
    scan, notes = _scan_start(headers, injection.half_life_s)
    by_stamp = _by_stamp(headers[0], injection, scan)
    if by_stamp is not None and _plausible(by_stamp, injection):
        return _agreed(headers[0], by_stamp, injection, scan, notes)
    if by_stamp is not None and not injection.clock:
        return _checked(by_stamp, injection), notes
    if injection.half_life_s > DAY_S:
        raise InputError("E-SUV-15", nuclide=injection.nuclide, name=DATE_TIME)
    seconds = _checked(_by_clock(_clock(injection), scan), injection)
    if injection.stamp and injection.clock:
        notes = [*notes, f"{DATE_TIME} is not usable; {TIME} was used"]
    elif injection.hours[1] * 3600 >= DAY_S:
        notes = [*notes, f"{DATE_TIME} is missing; the injection was taken to be within a day before the scan"]
    return seconds, notes + _early(seconds)


def _agreed(
    header: Any, by_stamp: float, injection: Injection, scan: datetime, notes: list[str]
) -> tuple[float, list[str]]:
    """Returns the seconds by the DateTime, unless the Time says something else.

    The Time counts where the DateTime has a time zone and the header does not say in which zone its times are.
    """
    by_clock = _by_clock(injection.clock, scan) if injection.clock else by_stamp
    off = abs(by_stamp - by_clock) % DAY_S
    if min(off, DAY_S - off) <= SAME_S:
        return by_stamp, notes + _early(by_stamp)
    found, local = _STAMP.fullmatch(injection.stamp), str(header.get("TimezoneOffsetFromUTC", "") or "")
    if found and found[3] and not _OFFSET.fullmatch(local.strip()):
        note = f"the time zone of {DATE_TIME} is not that of the scan, which is not known; {TIME} was used"
        return _checked(by_clock, injection), [*notes, note]
    raise InputError("E-SUV-17", minutes=min(off, DAY_S - off) / 60)


def _refuse_one_clock(headers: Sequence[Any], injection: Injection) -> None:
    """Raises InputError where all times are one, as after a de-identification: no decay can be told from them."""
    texts = {str(header.get(name) or "") for header in headers for name in STUDY_CLOCKS}
    stamp = _STAMP.fullmatch(injection.stamp)
    texts |= {injection.clock, stamp[2] if stamp else ""}
    clocks = {text.split(".")[0].replace(":", "").strip().ljust(6, "0") for text in texts - {""}}
    if len(clocks) == 1 and len(headers) > 1 and (injection.clock or injection.stamp):
        raise InputError("E-SUV-16", name=TIME)


def _plausible(seconds: float, injection: Injection) -> bool:
    low, high = (hours * 3600 for hours in injection.hours)
    return low - EARLY_S <= seconds <= high


def _early(seconds: float) -> list[str]:
    return [f"injected {-seconds:.0f} s after the scan's start"] if seconds < 0 else []


def _checked(seconds: float, injection: Injection) -> float:
    if _plausible(seconds, injection):
        return seconds
    other_half = any(_plausible(seconds + shift * 3600, injection) for shift in (-12, 12))
    hint = "; perhaps a.m. was typed for p.m. or the reverse" if other_half else ""
    low, high = injection.hours
    raise InputError("E-SUV-07", nuclide=injection.nuclide, low=low, high=high, hours=seconds / 3600, hint=hint)


def _by_stamp(header: Any, injection: Injection, scan: datetime) -> float | None:
    if not _STAMP.fullmatch(injection.stamp) or scan.year == int(UNDATED[:4]):
        return None
    return (scan - _stamp(header, injection.stamp, DATE_TIME)).total_seconds()


def _clock(injection: Injection) -> str:
    if injection.clock or not injection.stamp:
        return injection.clock
    found = _STAMP.fullmatch(injection.stamp)
    if not found:
        raise InputError("E-SUV-08", name=DATE_TIME)
    return found[2]


def _by_clock(clock: str, scan: datetime) -> float:
    """Returns the seconds since the last time that the clock showed the injection's time, or a few minutes ahead."""
    start = _parse(scan.strftime("%Y%m%d"), clock, TIME)
    seconds = (scan - start).total_seconds()
    return seconds + DAY_S if seconds < -EARLY_S else seconds


def _scan_start(headers: Sequence[Any], half_life_s: float) -> tuple[datetime, list[str]]:
    """Returns the time to which the values are decay corrected, and notes.

    Enhanced images state it. For classic images it is the series' time; but if the series was made after the
    acquisition, GE's private scan time, or the time that Frame Reference Time counts from, or else the earliest
    acquisition (QIBA, SUV vendor-neutral pseudo-code).
    """
    header = headers[0]
    if header.get("DecayCorrectionDateTime") or header.get("DecayCorrected"):
        return _stamp(header, str(header.get("DecayCorrectionDateTime") or ""), "Decay Correction DateTime"), []
    acquired = {
        number: _moment(one, "AcquisitionDate", "AcquisitionTime")
        for number, one in enumerate(headers)
        if one.get("AcquisitionTime")
    }
    if not acquired:
        return _moment(header, "SeriesDate", "SeriesTime"), []
    first = min(acquired, key=acquired.__getitem__)
    if not header.get("SeriesTime"):
        return acquired[first], ["Series Time is missing; the earliest Acquisition Time was used"]
    series = _moment(header, "SeriesDate", "SeriesTime")
    if series <= acquired[first]:
        return series, []
    scan = _private_scan(header)
    if scan:
        return _stamp(header, scan, "GE's scan time"), []
    return _reference(headers[first], acquired[first], half_life_s)


def _reference(header: Any, acquired: datetime, half_life_s: float) -> tuple[datetime, list[str]]:
    """Returns the moment that Frame Reference Time (0054,1300) counts from, in a series that was made anew later."""
    try:
        reference_s = float(header.get("FrameReferenceTime") or 0) / 1000
        frame_s = float(header.get("ActualFrameDuration") or 0) / 1000
    except (TypeError, ValueError):
        return acquired, []
    if not (0 < reference_s < LONGEST_SCAN_S and 0 < frame_s < LONGEST_SCAN_S):
        return acquired, []
    decay = math.log(2) * frame_s / half_life_s
    average_s = math.log(decay / -math.expm1(-decay)) * frame_s / decay  # when the activity had its mean in the frame
    start = acquired - timedelta(seconds=max(0.0, reference_s - average_s))
    return start, ["the series was made anew; its time was computed from Frame Reference Time"]


def _private_scan(header: Any) -> str:
    try:
        value = header.private_block(*GE)[GE_SCAN].value
    except KeyError:
        return ""
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value or "")).strip(" \0")


def _stamp(header: Any, text: str, name: str) -> datetime:
    """Returns the time of a DT, in the time zone of the header's dates and times if both zones are known."""
    found = _STAMP.fullmatch(text.strip(" \0"))
    date, clock, zone = found.groups() if found else ("-", "", None)
    moment = _parse(date, clock, name)
    local = str(header.get("TimezoneOffsetFromUTC", "") or "").strip()
    if zone and _OFFSET.fullmatch(local):
        moment += _offset(local) - _offset(zone)
    return moment


def _offset(zone: str) -> timedelta:
    minutes = int(zone[1:3]) * 60 + int(zone[3:5])
    return timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def _moment(header: Any, date: str, time: str) -> datetime:
    day = str(header.get(date, "") or header.get("SeriesDate", "") or header.get("StudyDate", "") or UNDATED)
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
