"""Phantoms of benchmarks and tests: the same images in the same roles every time, so that figures can be compared."""

from medgan.benchmark.phantom_dataset import prepared_phantoms


def test_phantoms_have_the_same_roles_and_arrays_every_time(tmp_path):
    made = [prepared_phantoms(tmp_path / name, size=32, patients=3, slices=4).manifest.patients for name in ("a", "b")]
    one, again = ([(patient.hash, patient.role, patient.sha256) for patient in patients] for patients in made)
    assert one == again
    assert {role for _, role, _ in one} == {"train", "validation", "test"}
