"""Lists the nuclides of PET: half-lives, and the doses and delays within which a scan is plausible."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, PositiveFloat

Range = tuple[float, float]


class Nuclide(BaseModel, frozen=True, extra="forbid"):
    """Holds what is plausible for one nuclide.

    Attributes:
        half_life_s: half-life in seconds (DDEP evaluations, rounded).
        dose_mbq: lowest and highest injected activity in MBq.
        hours: shortest and longest time from the injection to the scan, in hours.
    """

    half_life_s: PositiveFloat
    dose_mbq: Range
    hours: Range


NUCLIDES: Mapping[str, Nuclide] = {
    "O-15": Nuclide(half_life_s=122.2, dose_mbq=(50, 4000), hours=(0, 0.5)),
    "Rb-82": Nuclide(half_life_s=76.4, dose_mbq=(100, 4000), hours=(0, 0.5)),
    "N-13": Nuclide(half_life_s=597.9, dose_mbq=(50, 2000), hours=(0, 1.5)),
    "C-11": Nuclide(half_life_s=1221.8, dose_mbq=(20, 2000), hours=(0, 2.5)),
    "Ga-68": Nuclide(half_life_s=4063.0, dose_mbq=(10, 600), hours=(0, 4.5)),
    "F-18": Nuclide(half_life_s=6586.2, dose_mbq=(10, 1200), hours=(0, 5)),
    "Sc-44": Nuclide(half_life_s=14550.0, dose_mbq=(10, 600), hours=(0, 26)),
    "Cu-64": Nuclide(half_life_s=45721.0, dose_mbq=(20, 1500), hours=(0, 73)),
    "Y-86": Nuclide(half_life_s=53064.0, dose_mbq=(10, 600), hours=(0, 73)),
    "Zr-89": Nuclide(half_life_s=282280.0, dose_mbq=(5, 400), hours=(0, 360)),
    "I-124": Nuclide(half_life_s=360800.0, dose_mbq=(5, 400), hours=(0, 360)),
    "Y-90": Nuclide(half_life_s=230550.0, dose_mbq=(100, 20000), hours=(0, 120)),
}
HALF_LIFE_TOLERANCE = 0.02
ELEMENTS = {
    "oxygen": "O", "rubidium": "Rb", "nitrogen": "N", "carbon": "C", "gallium": "Ga", "fluorine": "F",
    "scandium": "Sc", "copper": "Cu", "yttrium": "Y", "zirconium": "Zr", "iodine": "I",
}  # fmt: skip
_WORDS = re.compile(r"\^?(\d{1,3})\^?|([A-Za-z]+)")


def nuclide_named(text: str, known: Mapping[str, Nuclide]) -> str:
    """Returns the nuclide that a text names, such as "^18^Fluorine", "F-18" or "18F"; empty if it names none."""
    numbers, words = set(), set()
    for number, word in _WORDS.findall(text):
        numbers.add(number)
        words.add(ELEMENTS.get(word.lower(), word))
    found = [name for name in known if {*name.split("-")} <= numbers | words]
    return found[0] if len(found) == 1 else ""


def nuclide_of_half_life(half_life_s: float, known: Mapping[str, Nuclide]) -> str:
    """Returns the nuclide of a half-life in seconds, within 2 %; empty if there is none."""
    off = {name: abs(half_life_s / one.half_life_s - 1) for name, one in known.items()}
    nearest = min(off, key=off.__getitem__)
    return nearest if off[nearest] <= HALF_LIFE_TOLERANCE else ""
