"""Searches a folder for what identifies patients: DICOM headers, UIDs, and the values of a given DICOM folder."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pydicom
from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medgan.data.dicom.tolerance import DAMAGE, tolerant
from medgan.data.reader import UNREADABLE as NOT_ALLOWED
from medgan.data.reader import UNREADABLE_FOLDER, files_below
from medgan.deid.packed_files import UNREADABLE, layers
from medgan.deid.value_search import Needles
from medgan.errors import InputError
from medgan.tasks import TASKS

# These are the common ones of PS3.15 table E.1-1; every person's name (PN) and UID (UI) is searched for too.
KEYWORDS = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientBirthDate", "PatientAddress",
    "PatientTelephoneNumbers", "MedicalRecordLocator", "AccessionNumber", "StudyID", "AdmissionID", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers", "ResponsibleOrganization", "DeviceSerialNumber", "StationName", "DetectorID",
    "PlateID",
)  # fmt: skip
IDENTIFYING_TAGS = frozenset(tag_for_keyword(keyword) for keyword in KEYWORDS)
WELL_KNOWN = "1.2.840.10008."  # the Standard's own UIDs, PS3.6 annex A
UID = re.compile(r"2\.25\.\d{20,39}|(?:1\.[0-3]|2\.\d{1,2})(?:\.\d{1,60}){4,}")
UID_BYTES = re.compile(UID.pattern.encode())
BASE64 = re.compile(rb"(?<![\w+/])[\w+/]{1000,}")  # such long text holds any short name by chance
UID_MIN_LENGTH, UID_MAX_LENGTH = 20, 64
COMMON = frozenset([
    "anon", "anonym", "anonymous", "anonymized", "anonymised", "deidentified", "de-identified", "doctor", "hospital",
    "medgan", "no", "none", "patient", "phantom", "radiology", "removed", "research", "unknown", "unnamed", "yes",
    *TASKS,  # folders of data are named after them
])  # fmt: skip
MIN_LENGTH = 4
WINDOW_BYTES = 1 << 22
Values = dict[str, str]
"""This maps an identifying value to its kind."""


@dataclass(frozen=True)
class Finding:
    """Describes an identifier in one file.

    Attributes:
        file: path relative to the folder that was searched; an identifier in it is redacted as `***`.
        what: kind of the identifier, never its value.
    """

    file: str
    what: str


@dataclass(frozen=True)
class Scan:
    """Holds what a search found.

    Attributes:
        findings: one for each kind in each file, sorted.
        num_values: number of values of the DICOM folder that were searched for.
        num_unread: number of files of that folder that cannot be read or have a damaged DICOM header: not all their
            values were searched for.
    """

    findings: list[Finding]
    num_files: int
    num_values: int
    num_unread: int


def find_identifiers(folder: Path, *, against: Path | None = None) -> Scan:
    """Searches every file below a folder, its name, and what is packed in it (see `layers`).

    It finds DICOM files whose header identifies a person, text that looks like a UID, and with `against` each value
    that identifies a person in those headers (see `Needles`). It ignores values that would be found everywhere: below
    4 characters, letters or digits alone below 5, words such as "anonymous". A name that is also a word is found
    wherever that word is. It does not search base64, compressed PDF, and archives other than gzip and zip.

    Args:
        folder: folder that was made from patients' images and must hold no identifier.
        against: DICOM folder that it was made from.

    Raises:
        InputError: a folder is missing, or `against` holds no DICOM file with identifying values.
    """
    if not folder.is_dir():
        raise InputError("E-DEID-01", folder=folder)
    values, num_unread = _values_of(against, apart_from=folder) if against else ({}, 0)
    needles = Needles(values)
    paths, num_closed = _files(folder)
    findings = set()
    if num_closed:
        findings.add(Finding(".", f"not searched: {num_closed} folders or files that may not be read"))
    for path in paths:
        name = path.relative_to(folder).as_posix().encode(errors="replace").decode()
        in_name = {f"{kind} in the file's name" for kind in _kinds_in(name.encode(), needles)}
        redacted = _redacted(name, needles, values) if in_name else name
        findings |= {Finding(redacted, what) for what in in_name | _kinds_in_file(path, needles)}
    ordered = sorted(findings, key=lambda one: (one.file, one.what))
    return Scan(ordered, num_files=len(paths), num_values=len(values), num_unread=num_unread)


def _files(folder: Path) -> tuple[list[Path], int]:
    """Returns the files below a folder, and the number of files and folders that may not be read."""
    passed_over: Counter[str] = Counter()
    return list(files_below(folder, passed_over)), passed_over[NOT_ALLOWED] + passed_over[UNREADABLE_FOLDER]


def _kinds_in_file(path: Path, needles: Needles) -> set[str]:
    kinds = set()
    try:
        with path.open("rb") as file:
            for layer in layers(file):
                kinds |= _kinds_in_layer(layer, needles)
    except UNREADABLE:
        kinds.add("not searched to its end: damaged, encrypted or not readable")
    return kinds


def _kinds_in_layer(layer: IO[bytes], needles: Needles) -> set[str]:
    header, damaged = _header_values(layer)
    kinds = {f"DICOM file with {', '.join(sorted(set(header.values())))}"} if header else set()
    if damaged:
        kinds.add("DICOM file whose header is damaged")
    overlap = max(needles.longest, UID_MAX_LENGTH) + 1
    text = b""
    while part := layer.read(WINDOW_BYTES):
        text = text[-overlap:] + part
        plain = text if b"\0" in text else BASE64.sub(b"", text)
        kinds |= needles.kinds_in(plain) if header else _kinds_in(plain, needles)
    return kinds


def _kinds_in(text: bytes, needles: Needles) -> set[str]:
    """Returns the kinds of values in `text`, and "UID" if it holds a UID that the Standard does not define."""
    uids = (match[0].decode() for match in UID_BYTES.finditer(text))
    any_uid = any(len(uid) >= UID_MIN_LENGTH and not uid.startswith(WELL_KNOWN) for uid in uids)
    return needles.kinds_in(text) | ({"UID"} if any_uid else set())


def _redacted(name: str, needles: Needles, values: Iterable[str]) -> str:
    for value in sorted(values, key=len, reverse=True):
        name = re.sub(re.escape(value), "***", name, flags=re.IGNORECASE)
    name = UID.sub("***", name)
    return "***" if _kinds_in(name.encode(), needles) else name  # it is there in another spelling, as in a URL


def _values_of(folder: Path, *, apart_from: Path) -> tuple[Values, int]:
    """Returns values to search for, of headers below a folder and of its path, and the number of unread files."""
    if not folder.is_dir():
        raise InputError("E-DEID-02", folder=folder)
    found: Values = {}
    paths, num_unread = _files(folder)
    for path in paths:
        try:
            with path.open("rb") as file:
                header, damaged = _header_values(file)
        except OSError:
            header, damaged = {}, True
        found |= header
        num_unread += damaged
    if not found:
        raise InputError("E-DEID-03", num_paths=len(paths), num_unread=num_unread)
    whole = folder.resolve()
    parts = {*whole.parts, *(part for path in paths for part in path.relative_to(folder).parent.parts)}
    parts = {part for part in parts - set(apart_from.resolve().parts) if re.search(r"\d", part)}
    places = dict.fromkeys([*sorted(parts), str(whole)], "path of the DICOM files")
    return {value: kind for value, kind in (places | found).items() if _worth_a_search(value, kind)}, num_unread


def _worth_a_search(value: str, kind: str) -> bool:
    if kind == "UID":
        return value.count(".") >= 4  # shorter ones look like versions
    plain = value.isalpha() or value.isdigit()
    return len(value) >= MIN_LENGTH + plain and value.lower() not in COMMON


def _header_values(file: IO[bytes]) -> tuple[Values, bool]:
    """Returns the identifying values in a header, none if the file is no DICOM, and whether the header is damaged."""
    values: Values = {}
    file.seek(128)
    magic = file.read(4)
    file.seek(0)
    if magic != b"DICM":
        return values, False
    try:
        with tolerant():
            for value, kind in _identifying(pydicom.dcmread(file, stop_before_pixels=True)):
                values[value] = kind
    except DAMAGE:
        return values, True
    finally:
        file.seek(0)
    return values, False


def _identifying(header: Dataset) -> Iterator[tuple[str, str]]:
    for tag in header.keys():  # noqa: SIM118 - iterating over the dataset itself would convert every element
        representation = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
        if representation == "SQ":
            for item in header[tag].value or ():
                yield from _identifying(item)
        elif representation in ("PN", "UI") or tag in IDENTIFYING_TAGS:
            kind = "UID" if representation == "UI" else dictionary_description(tag)
            value = header[tag].value
            for one in value if isinstance(value, MultiValue) else [value]:
                yield from dict.fromkeys(_forms(one, representation), kind).items()


def _forms(value: object, representation: str) -> list[str]:
    """Returns a value, also a name's components (PS3.5 6.2.1) or a date with hyphens; none if it identifies nobody."""
    text = str(value or "").strip()
    if not text or text.lower() in COMMON or text.startswith(WELL_KNOWN):
        return []
    if representation == "PN":
        return [text, *(part for part in re.split(r"[\^=\s,]+", text) if part)]
    if representation == "DA":
        return [text, f"{text[:4]}-{text[4:6]}-{text[6:]}"]
    return [text]
