import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refusal

from medgan.data.dicom.geometry import Plane, stack_affine
from medgan.data.dicom.irregular_stack import regular_grid
from medgan.errors import InputError

pytestmark = pytest.mark.unit

AXIAL, TURNED = (1.0, 0, 0, 0, 1.0, 0), (0, 1.0, 0, -1.0, 0, 0)


def planes(places, **more):
    """Returns axial slices at these heights in mm."""
    plane = Plane((-10.0, 5.0, 0.0), AXIAL, (2.0, 1.5), (5, 6))._replace(**more)
    return tuple(plane._replace(position=(-10.0, 5.0, float(place))) for place in places)


def test_stack_affine_equals_affine_of_dicom_standard():
    affine = stack_affine(planes([7, 10, 13]), "CT")
    np.testing.assert_allclose(affine @ [3, 1, 2, 1], [-10 + 3 * 1.5, 5 + 2.0, 13, 1])


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.5, 8))
def test_stack_affine_of_rotated_stack_keeps_spacing_and_right_angles(yaw, pitch, step):
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    turn = turn @ [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    stack = tuple(
        Plane(tuple(turn @ [1, 2, step * index]), (*turn[:, 0], *turn[:, 1]), (2.0, 1.5), (5, 6)) for index in range(4)
    )
    affine = stack_affine(stack, "MR")
    np.testing.assert_allclose(affine[:3, :3].T @ affine[:3, :3], np.diag([1.5, 2.0, step]) ** 2, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0], refusal("E-GEOMETRY-01", modality="CT", num_planes="1")),
        ([0, 3, 3, 6], refusal("E-GEOMETRY-03", modality="CT", most="2")),
        ([0, 0, 0, 3, 3, 3], refusal("E-GEOMETRY-03", modality="CT", most="3")),
        ([0, 0], refusal("E-GEOMETRY-03", modality="CT", most="2")),
        ([0, 3, 9, 12], refusal("E-GEOMETRY-04", lowest="3.0", highest="6.0", hint="; a slice seems to be missing")),
        ([0, 3, 12, 15, 18], refusal("E-GEOMETRY-04", lowest=3.0, highest=9.0, hint="; 2 slices seem to be missing")),
        ([0, 2.9, 7.0], refusal("E-GEOMETRY-04", lowest="2.9", highest="4.1", hint="")),
        ([0, 3, 6.3, 9], refusal("E-GEOMETRY-04", lowest="2.7", highest="3.3")),
    ],
)  # fmt: skip
def test_stack_affine_refuses_irregular_stack(places, expected):
    with pytest.raises(InputError, check=expected):
        stack_affine(planes(places), "CT")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"size": (4, 6)},
            refusal("E-GEOMETRY-05", modality="MR", first_size=5, first_size_2=6, plane_size=4, plane_size_2=6),
        ),
        (
            {"pixel_spacing": (2.0, 1.6)},
            refusal("E-GEOMETRY-06", modality="MR", pixel_spacing=(2.0, 1.5), pixel_spacing_2=(2.0, 1.6)),
        ),
        ({"orientation": TURNED}, refusal("E-GEOMETRY-07", modality="MR", orientation=AXIAL, orientation_2=TURNED)),
        ({"position": (-9.0, 5.0, 6.0)}, refusal("E-GEOMETRY-02", modality="MR", shift_mm="1.0")),
    ],
)
def test_stack_affine_refuses_slice_that_differs_from_rest(more, expected):
    stack = planes([0, 3, 6, 9])
    with pytest.raises(InputError, check=expected):
        stack_affine((*stack[:2], stack[2]._replace(**more), stack[3]), "MR")


def test_regular_grid_takes_tilted_gantry_and_refuses_a_slice_that_is_elsewhere():
    tilted = tuple(
        plane._replace(position=(0.0, 1.0 * number, 3.0 * number)) for number, plane in enumerate(planes(range(6)))
    )
    assert regular_grid(tilted, "CT").shape[0] == 6
    loose = (*tilted[:3], tilted[3]._replace(position=(5e5, 3.0, 9.0)), *tilted[4:])
    with pytest.raises(InputError, check=refusal("E-GEOMETRY-09", modality="CT")):
        regular_grid(loose, "CT")


def test_stack_affine_refuses_tilted_gantry():
    stack = tuple(
        plane._replace(position=(0.0, 1.0 * number, 3.0 * number)) for number, plane in enumerate(planes(range(4)))
    )
    with pytest.raises(InputError, check=refusal("E-GEOMETRY-02", modality="CT", shift_mm="1.0")):
        stack_affine(stack, "CT")
