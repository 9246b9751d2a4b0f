import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgan.data.dicom.geometry import Plane, stack_affine
from medgan.errors import InputError


def planes(places, **more):
    """Axial slices at these heights in mm."""
    plane = Plane((-10.0, 5.0, 0.0), (1.0, 0, 0, 0, 1.0, 0), (2.0, 1.5), (5, 6))._replace(**more)
    return tuple(plane._replace(position=(-10.0, 5.0, float(place))) for place in places)


def test_the_affine_is_the_standards():
    affine = stack_affine(planes([7, 10, 13]), "CT")
    np.testing.assert_allclose(affine @ [3, 1, 2, 1], [-10 + 3 * 1.5, 5 + 2.0, 13, 1])


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.5, 8))
def test_a_turned_stack_keeps_its_spacing_and_right_angles(yaw, pitch, step):
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    turn = turn @ [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    stack = tuple(
        Plane(tuple(turn @ [1, 2, step * index]), (*turn[:, 0], *turn[:, 1]), (2.0, 1.5), (5, 6)) for index in range(4)
    )
    affine = stack_affine(stack, "MR")
    np.testing.assert_allclose(affine[:3, :3].T @ affine[:3, :3], np.diag([1.5, 2.0, step]) ** 2, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([0], "CT: expected at least 2 slices, got 1"),
        ([0, 3, 3, 6], "CT: 2 slices lie at one place; expected one .*phases, echoes or time points"),
        ([0, 0, 0, 3, 3, 3], "CT: 3 slices lie at one place"),
        ([0, 0], "CT: 2 slices lie at one place"),
        ([0, 3, 9, 12], "varies from 3.00 to 6.00 mm; expected one spacing within 1%; a slice seems to be missing"),
        ([0, 3, 12, 15, 18], "varies from 3.00 to 9.00 mm; .*; 2 slices seem to be missing"),
        ([0, 2.9, 7.0], "varies from 2.90 to 4.10 mm; expected one spacing within 1%$"),
        ([0, 3, 6.05, 9], "varies from 2.95 to 3.05 mm"),
    ],
)  # fmt: skip
def test_no_regular_stack_is_refused(places, message):
    with pytest.raises(InputError, match=message):
        stack_affine(planes(places), "CT")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"size": (4, 6)}, "MR: slices of 5 x 6 and of 4 x 6 pixels .*; expected one size"),
        ({"pixel_spacing": (2.0, 1.6)}, "MR: pixel spacings .* mm; expected one spacing"),
        ({"orientation": (0, 1.0, 0, -1.0, 0, 0)}, "MR: slice orientations .*; expected one orientation"),
        ({"position": (-9.0, 5.0, 6.0)}, "MR: neighboring slices are shifted in-plane by 1.00 mm; .*no gantry tilt"),
    ],
)
def test_a_slice_unlike_the_others_is_refused(more, message):
    stack = planes([0, 3, 6, 9])
    with pytest.raises(InputError, match=message):
        stack_affine((*stack[:2], stack[2]._replace(**more), stack[3]), "MR")


def test_a_tilted_gantry_is_refused():
    stack = tuple(
        plane._replace(position=(0.0, 1.0 * number, 3.0 * number)) for number, plane in enumerate(planes(range(4)))
    )
    with pytest.raises(InputError, match="shifted in-plane by 1.00 mm"):
        stack_affine(stack, "CT")
