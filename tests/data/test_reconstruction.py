import pytest

from medgan.data.nuclides import NUCLIDES, nuclide_named, nuclide_of_half_life
from medgan.data.prepare.reconstruction import kind_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("B30f", "soft"), ("Br40d", "soft"), ("I31f", "soft"), ("B45f", "soft"), ("B70f", "sharp"), ("Bl57d", "sharp"),
        ("Hr60", "sharp"), ("STANDARD", "soft"), ("SOFT", "soft"), ("LUNG", "sharp"), ("BONEPLUS", "sharp"),
        ("B", "soft"), ("YB", "sharp"), ("FC08", "soft"), ("FC26", "soft"), ("FC51", "sharp"), ("", "unknown"),
        ("another text", "unknown"),
    ],
)  # fmt: skip
def test_kind_of_kernel_follows_the_vendors(kernel, kind):
    assert kind_of(kernel) == kind


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("^18^Fluorine", "F-18"),
        ("F-18", "F-18"),
        ("18F", "F-18"),
        ("Zr-89", "Zr-89"),
        ("^68^Gallium", "Ga-68"),
        ("FDG", ""),
    ],
)
def test_nuclide_is_named_in_many_ways(text, name):
    assert nuclide_named(text, NUCLIDES) == name


@pytest.mark.parametrize(("half_life_s", "name"), [(6586.2, "F-18"), (6588, "F-18"), (109.8, ""), (282240, "Zr-89")])
def test_nuclide_is_told_by_half_life_within_two_percent(half_life_s, name):
    assert nuclide_of_half_life(half_life_s, NUCLIDES) == name
