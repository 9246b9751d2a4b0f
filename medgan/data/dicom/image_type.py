"""Tells images that hold other values than their modality from Image Type (0008,0008) and its siblings."""

from collections.abc import Mapping

LOCALIZERS = {"LOCALIZER", "SCANOSCOPE", "SCOUT", "SCANOGRAM", "TOPOGRAM", "SURVEY"}
PROJECTIONS = {"PROJECTION IMAGE", "MIP", "MINIP", "MPR THICK MIP", "VOLREND", "VOLUME RENDERING", "SSD", "VRT"}
NOT_MAGNITUDE = {
    "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "VELOCITY MAP": "phase", "PHASE CONTRAST": "phase",
    "R": "real part", "REAL": "real part", "I": "imaginary part", "IMAGINARY": "imaginary part",
}  # fmt: skip
"""Values 3 and later of an MR image's Image Type (vendors' words), or Complex Image Component (C.8.13.3.1.1)."""


def reason_to_pass_over(values: Mapping[str, str]) -> str:
    """Returns why an image is no slice of a body in its modality's own values, or nothing.

    Args:
        values: text of Image Type, Modality and Complex Image Component, several values with a backslash in between.
    """
    words = values.get("ImageType", "").upper().split("\\")
    kinds = {word.strip() for word in words[2:]}
    if kinds & LOCALIZERS:
        return "localizer"
    if kinds & PROJECTIONS:
        return "projection"
    if values.get("Modality") == "MR":
        component = values.get("ComplexImageComponent", "").upper()
        kinds = {component} if component else kinds
        other = next((NOT_MAGNITUDE[word] for word in sorted(kinds) if word in NOT_MAGNITUDE), "")
        return f"MR {other} image" if other and "M" not in kinds else ""
    return ""
