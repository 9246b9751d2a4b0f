"""The resampled PET of the real patients against an independent resampling by physical points."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medgan.data.prepare.resample import grid_of, resample
from medgan.data.reader import find_series, read_volume

TOLERANCE_SUV = 1e-3


def read_independently(folder):
    """Returns a series as SimpleITK sorts, places and rescales it."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.Cast(sitk.ReadImage(names), sitk.sitkFloat32)


def pet_on_ct(pet, ct):
    """Returns the PET's value at the position of each CT voxel, NaN outside, by SimpleITK alone."""
    return sitk.GetArrayFromImage(sitk.Resample(pet, ct, sitk.Transform(), sitk.sitkLinear, float("nan")))


def largest_difference(ours, theirs):
    inside = ~np.isnan(ours) & ~np.isnan(theirs)
    assert inside.mean() > 0.1
    return np.abs(ours - theirs)[inside].max()


@pytest.mark.real
def test_resample_of_all_real_pets_equals_simpleitk(real):
    patients = sorted(path for path in real.iterdir() if path.is_dir())
    assert len(patients) == 18
    worst = {}
    for patient in patients:
        pet, ct = (read_volume(find_series(patient / name)[0]) for name in ("PET", "CT"))
        ours = resample(pet, grid_of(ct), np.nan).array
        theirs = pet_on_ct(read_independently(patient / "PET"), read_independently(patient / "CT"))
        assert ours.shape == theirs.shape
        worst[patient.name] = largest_difference(ours, theirs)
    assert max(worst.values()) < TOLERANCE_SUV, worst


@pytest.mark.real
def test_resample_differs_where_pet_origin_is_off_by_two_slices(real, tmp_path):
    for number, path in enumerate(sorted((real / "STS_019" / "PET").iterdir())):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient[2] += 2 * float(header.SliceThickness)
        header.save_as(tmp_path / f"{number}.dcm")
    pet, ct = read_volume(find_series(tmp_path)[0]), read_volume(find_series(real / "STS_019" / "CT")[0])
    theirs = pet_on_ct(read_independently(real / "STS_019" / "PET"), read_independently(real / "STS_019" / "CT"))
    assert largest_difference(resample(pet, grid_of(ct), np.nan).array, theirs) > 100 * TOLERANCE_SUV
