"""Tells a CT's soft-tissue reconstruction from a sharp one by its Convolution Kernel (0018,1210)."""

import re
from typing import Literal

from medgan.data.series import Series

Kind = Literal["soft", "sharp", "unknown"]
HIGHEST_SOFT = 45  # Siemens: the number in B30f, Br40d or I31f grows with sharpness
SOFT = frozenset(["STANDARD", "SOFT", "A", "B", "C", "SA", "SB", "SC", "EA", "EB", "EC", "SMOOTH"])
SHARP = frozenset(
    ["LUNG", "BONE", "BONEPLUS", "EDGE", "DETAIL", "CHEST", "ULTRA", "D", "E", "F", "L", "YA", "YB", "YC", "YD"]
)
"""Words of GE, and letters of Philips."""
HIGHEST_SOFT_CANON = 29  # FC01 to FC19: body; FC20 to FC29: head; higher ones: bone, lung
_SIEMENS = re.compile(r"[A-Z][A-Za-z]?(\d{2})[a-z]?(?:\s.*)?")
_CANON = re.compile(r"FC(\d{2})")


def kind_of(kernel: str) -> Kind:
    """Returns whether a kernel is soft or sharp; "unknown" for an empty or unlisted one."""
    name = kernel.split("\\")[0].strip()
    word = name.upper()
    if word in SOFT:
        return "soft"
    if word in SHARP:
        return "sharp"
    if canon := _CANON.match(word):
        return "soft" if int(canon[1]) <= HIGHEST_SOFT_CANON else "sharp"
    if siemens := _SIEMENS.fullmatch(name):
        return "soft" if int(siemens[1]) <= HIGHEST_SOFT else "sharp"
    return "unknown"


def rank(series: Series, wanted: Literal["soft", "sharp", "any"]) -> int:
    """Returns 2 for the wanted reconstruction, 1 where the kernel is unknown, 0 for the other one."""
    kind = kind_of(series.kernel)
    if series.modality != "CT" or wanted == "any" or kind == "unknown":
        return 1
    return 2 if kind == wanted else 0
