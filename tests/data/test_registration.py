from dataclasses import replace

import numpy as np
import pytest
from refusal import refusal
from scipy.spatial.transform import Rotation

from medgan.data.phantoms.phantom_patients import phantom_volumes
from medgan.data.prepare.registration import Agreement, agreement, register_rigid
from medgan.data.prepare.resample import grid_of, resample
from medgan.data.volume import Volume
from medgan.errors import InputError

MIDDLE = np.zeros(3)  # phantoms are centered


@pytest.fixture(scope="module")
def pelvis():
    """CT and PET of one phantom."""
    return phantom_volumes(3, slices=16, matrix=80, seed=0)


def displaced(volume, degrees, shift_mm):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = shift_mm
    return replace(volume, affine=motion @ volume.affine)


def errors(volume, reference):
    """Returns the distance at the center in mm and the angle in degrees between two positions of the same voxels."""
    off = volume.affine @ np.linalg.inv(reference.affine)
    angle = Rotation.from_matrix(off[:3, :3]).magnitude()
    return np.linalg.norm((off @ [*MIDDLE, 1])[:3] - MIDDLE), np.rad2deg(angle)


def agreement_over(source, target, above):
    """Returns the agreement before registration; `above` is the threshold of the source's body."""
    seen = resample(source, grid_of(target), -1000 if source.unit == "HU" else 0)
    return agreement(seen, target, seen.array > above, target.array > -300)


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((0, 0, 4), (6, 0, 0)), ((2, -2, 2.8), (-3, 4, 3.3))], ids=["in-plane", "any"]
)
def test_register_rigid_brings_displaced_ct_back(pelvis, degrees, shift_mm):
    ct, _ = pelvis
    moving = displaced(ct, degrees, shift_mm)
    corrected, after = register_rigid(moving, ct)
    off_mm, off_degrees = errors(corrected, ct)
    assert off_mm < 1
    assert off_degrees < 0.5
    before = agreement_over(moving, ct, -300)
    assert after.mask_overlap > before.mask_overlap
    assert after.mask_overlap > 0.99
    assert after.mutual_information > before.mutual_information + 0.1
    assert corrected.array is moving.array, "no voxel is interpolated"


def test_register_rigid_leaves_aligned_pet_in_place(pelvis):
    ct, pet = pelvis
    corrected, after = register_rigid(pet, ct)
    off_mm, off_degrees = errors(corrected, pet)
    assert off_mm < 2
    assert off_degrees < 2
    assert after.mask_overlap > 0.9


def test_register_rigid_improves_agreement_of_displaced_pet(pelvis):
    ct, pet = pelvis
    moving = displaced(pet, (0, 0, 5), (9, -7, 0))
    corrected, after = register_rigid(moving, ct)
    before = agreement_over(moving, ct, 0.1)
    assert errors(corrected, pet)[0] < 3
    assert after.mask_overlap > before.mask_overlap
    assert after.mutual_information > before.mutual_information


def test_register_rigid_finds_ct_of_other_frame_of_reference(pelvis):
    ct, _ = pelvis
    moving = displaced(replace(ct, frame_of_reference="other"), (0, 0, 3), (250, -120, 900))
    corrected, _ = register_rigid(moving, replace(ct, frame_of_reference="fixed"))
    assert errors(corrected, ct)[0] < 1
    assert corrected.frame_of_reference == "fixed"


def test_register_rigid_with_same_seed_finds_same_position(pelvis):
    ct, pet = pelvis
    first, again = (register_rigid(displaced(pet, (0, 0, 2), (3, 0, 0)), ct, seed=0)[0].affine for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_register_rigid_refuses_images_that_do_not_overlap(pelvis):
    ct, _ = pelvis
    with pytest.raises(InputError, check=refusal("E-REGISTER-04")):
        register_rigid(displaced(ct, (0, 0, 0), (5000, 0, 0)), ct)


def test_register_rigid_refuses_image_without_body(pelvis):
    ct, _ = pelvis
    air = ct.with_array(np.full_like(ct.array, -1000))
    with pytest.raises(InputError, check=refusal("E-REGISTER-03", unit="HU")):
        register_rigid(air, ct)


def image(values):
    return Volume(np.array(values, np.float32).reshape(1, 2, 4), np.eye(4), "", "SUV")


def test_agreement_equals_value_worked_by_hand():
    """Sum of the entropies over joint entropy: independent bits (1 + 1) / 2 = 1; bit and opposite (1 + 1) / 1 = 2."""
    everywhere, half = np.ones((1, 2, 4), bool), np.arange(8).reshape(1, 2, 4) < 4
    bits, other = image([0, 0, 1, 1, 0, 0, 1, 1]), image([0, 1, 0, 1, 0, 1, 0, 1])
    assert agreement(bits, other, everywhere, everywhere) == Agreement(1.0, pytest.approx(1.0))
    opposite = bits.with_array(1 - bits.array)
    assert agreement(bits, opposite, everywhere, half) == Agreement(pytest.approx(2 / 3), pytest.approx(2.0))


def test_agreement_is_symmetric(pelvis):
    ct, pet = pelvis
    seen = resample(pet, grid_of(ct), 0)
    body, active = ct.array > -300, seen.array > 0.1
    forth, back = agreement(seen, ct, active, body), agreement(ct, seen, body, active)
    assert forth.mask_overlap == back.mask_overlap
    assert forth.mutual_information == pytest.approx(back.mutual_information)


def test_agreement_refuses_images_on_two_grids(pelvis):
    ct, pet = pelvis
    expected = refusal("E-REGISTER-01", array_shape=(15, 60, 60), array_shape_2=ct.array.shape)
    with pytest.raises(InputError, check=expected):
        agreement(pet, ct, pet.array > 0.1, ct.array > -300)


def test_agreement_refuses_image_without_body():
    nothing = np.zeros((1, 2, 4), bool)
    with pytest.raises(InputError, check=refusal("E-REGISTER-02", sizes="0", sizes_2="8")):
        agreement(image(range(8)), image(range(8)), nothing, ~nothing)
