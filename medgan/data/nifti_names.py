"""Finds out from names and folders of NIfTI images whose they are, from which session, and of which modality."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MODALITIES = {
    **dict.fromkeys(("ct", "ctres", "ctac"), "CT"),
    **dict.fromkeys(("pet", "pt", "suv", "suvbw"), "PT"),
    **dict.fromkeys(("mr", "mri", "t1", "t2", "flair", "pd", "t1w", "t2w"), "MR"),
}
"""This maps a part of a file's or a folder's name, without case, to the DICOM Modality."""
MASKS = frozenset(["mask", "seg", "dseg", "label", "labels"])
"""A file with one of these parts in its name, without case, holds no intensities."""
RESAMPLED = frozenset(["ctres", "res", "resampled", "resliced"])
"""An image with one of these parts in its name is second choice: it was interpolated onto another image's grid."""
NO_PATIENT = frozenset(
    ["anat", "func", "nifti", "nii", "image", "images", "scan", "scans", "data", "volumes", "files", *MODALITIES]
)
"""A folder whose name has no other words groups images by kind (BIDS: data types)."""
SAME_DATASET = frozenset(["derivatives", "rawdata", "sourcedata"])
"""These folders hold the same persons under the same labels (BIDS, "Storage of derived datasets")."""
SHARED = "nifti"
"""All images get this frame of reference, and this study if they name no session; geometry shows what overlaps."""
ISSUED = "\x1f"
"""This separates a patient's ID from its issuer, or from the folders above it; no DICOM text holds it (PS3.5 6.1.2)."""
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9+]+)(?:_(ses-[A-Za-z0-9+]+))?(?=[_\-. ]|$)")
Folder = tuple[str, ...]


class NiftiName(NamedTuple):
    """Holds what names say about an image.

    Attributes:
        study: session, or the folder where sessions of one patient lie in several folders.
        modalities: what the names allow, best one.
        words: parts of the file's name, without case.
        by_folder: whether a folder names the patient.
    """

    patient_id: str
    study: str
    modalities: frozenset[str]
    words: frozenset[str]
    by_folder: bool

    @property
    def is_mask(self) -> bool:
        """Returns whether the image is a mask or a label image."""
        return bool(self.words & MASKS)


class _PathParts(NamedTuple):
    """Holds the parts of one path: BIDS subject and session, what else the file's name says, and the folder."""

    subject: str
    session: str
    rest: str
    words: frozenset[str]
    modalities: frozenset[str]
    folder: Folder
    file_name: str


def named(paths: Sequence[Path], root: Path, *, patient_level: int = 0) -> tuple[dict[Path, NiftiName], int]:
    """Returns what the names say about each image, and the level of folders that names patients.

    Parts of a file's name lie between `_`, `-`, `.` and spaces. One of them, or else a folder's name, gives the
    modality. If a file's name begins with `sub-` and a label, these are the patient, and `ses-` and a label after
    them the session (BIDS, "Entities"). Otherwise the rest of the name is the patient, but only where it is not the
    same in folder after folder; then a folder is the patient, and its subfolders are sessions.

    Args:
        root: folder that the search began in.
        patient_level: which folder below the root names the patient, from 1; 0: the first one in which the paths
            differ.
    """
    parts = {path: _parts(path, root) for path in paths}
    of_folders = _named_by_folder(parts.values())
    level = patient_level or _first_difference({one.folder for one in of_folders})
    patients = _subjects(parts.values()) | _names_of(of_folders, level, root)
    repeated = {rest for rest, places in _folders_of_rests(parts.values()).items() if len(places) > 1}
    return {
        path: NiftiName(
            patients.get(one, one.rest), _study(one, repeated), one.modalities, one.words, one in of_folders
        )
        for path, one in parts.items()
    }, level


def _study(one: _PathParts, repeated: set[str]) -> str:
    """Returns the session, or the folder: two folders under a name that both have give no pair."""
    by_folder = not one.subject and (not one.rest or one.rest in repeated)
    return "/".join((SHARED, *one.folder)) if by_folder else one.session or SHARED


def _folders_of_rests(parts: Collection[_PathParts]) -> Mapping[str, set[Folder]]:
    found: dict[str, set[Folder]] = defaultdict(set)
    for one in parts:
        found[one.rest].add(one.folder)
    return found


def _parts(path: Path, root: Path) -> _PathParts:
    name = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    subject = _SUBJECT.match(name)
    label, session = subject.groups("") if subject else ("", "")
    pieces = re.split(r"([_\-. ]+)", name[subject.end() :] if subject else name)  # names and separators in turn
    rest = _rest(pieces)
    words = frozenset(piece.lower() for piece in pieces[::2])
    above = tuple(re.sub(r"\.zip$", "", folder, flags=re.IGNORECASE) for folder in path.relative_to(root).parts[:-1])
    modalities = {MODALITIES[word] for word in words & MODALITIES.keys()} or _of_folders(above)
    while above and _groups_by_kind(above[-1]):
        above = above[:-1]
    return _PathParts(label, session, rest, words, frozenset(modalities), above, path.name)


def _rest(pieces: Sequence[str]) -> str:
    """Returns a file's name, given as names and separators in turn, without what says the kind of image."""
    rest = ""
    for separator, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        if piece.lower() not in MODALITIES.keys() | RESAMPLED:
            rest += separator + piece if rest else piece
    return rest


def _groups_by_kind(folder: str) -> bool:
    """Returns whether a folder's name says only what kind of images it holds, such as "ct_scans"."""
    return {word.lower() for word in re.split(r"[_\-. ]+", folder)} <= NO_PATIENT


def _of_folders(above: Folder) -> set[str]:
    """Returns the modalities that the nearest folder with one in its name gives."""
    for folder in reversed(above):
        words = {word.lower() for word in re.split(r"[_\-. ]+", folder)}
        if found := {MODALITIES[word] for word in words & MODALITIES.keys()}:
            return found
    return set()


def _named_by_folder(parts: Collection[_PathParts]) -> set[_PathParts]:
    """Returns the images whose file name names no patient.

    Such names say the same in folder after folder: more folders share the rest of a name than a folder has rests. Where
    a folder has images of two modalities under one rest, and again under another, the rests are patients.
    """
    plain = [one for one in parts if not one.subject and not one.words & MASKS]
    places = _folders_of_rests(plain)
    modalities: dict[tuple[Folder, str], set[frozenset[str]]] = defaultdict(set)
    for one in plain:
        modalities[one.folder, one.rest].add(one.modalities)
    rests = Counter(place for place, _ in modalities)
    pairs = Counter(place for (place, _), found in modalities.items() if len(found) > 1)

    def constant(rest: str) -> bool:
        own = places.get(rest, set())
        many = len(own) > max((rests[one] for one in own), default=0)
        return not rest or (many and max(pairs[one] for one in own) < 2)

    return {one for one in parts if not one.subject and constant(one.rest)}


def _first_difference(folders: set[Folder]) -> int:
    """Returns the first level at which the folders differ, from 1; 0 where there is no folder."""
    if not folders:
        return 0
    shared = os.path.commonprefix(sorted(folders)) if len(folders) > 1 else next(iter(folders))[:-1]
    return len(shared) + 1


def _names_of(images: set[_PathParts], level: int, root: Path) -> dict[_PathParts, str]:
    """Returns the patients that folders name; what lies above the folder tells patients of one name apart."""
    names = {}
    for one in images:
        *above, last = one.folder[:level] or (root.absolute().name,)
        names[one] = _within(last, above)
    return names


def _within(name: str, above: Sequence[str]) -> str:
    """Returns the name with the folders above it in the place of an issuer: it may stand for itself without them."""
    return f"{name}{ISSUED}{'/'.join(above)}" if above else name


def _dataset(one: _PathParts) -> Folder:
    """Returns the folder of the BIDS data set that an image belongs to."""
    above = one.folder[: one.folder.index(one.subject)] if one.subject in one.folder else one.folder
    cut = [number for number, folder in enumerate(above) if folder.lower() in SAME_DATASET]
    return above[: cut[0]] if cut else above


def _subjects(parts: Collection[_PathParts]) -> dict[_PathParts, str]:
    """Returns the BIDS subjects; those of two data sets are two persons."""
    return {one: _within(one.subject, _dataset(one)) for one in parts if one.subject}
