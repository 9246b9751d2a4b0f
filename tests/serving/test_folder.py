from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medgan.data.series import find_series, read_volume
from medgan.errors import InputError
from medgan.serving.derive import ModelFacts
from medgan.serving.folder import translate_folder
from medgan.serving.translate import Translator

Build = Callable[..., Translator]
REAL_PET = Path(__file__).parents[3] / "shared/data/sts_petct/STS_001/PET"


def test_a_single_series_goes_straight_into_the_output_folder(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    assert translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lines.append) == [out]
    (series,) = find_series(out)
    assert series.modality == "CT" and len(series.files) == 3
    assert lines == [f"series 1 of 1: 3 slices written to {out}"]


def test_every_patient_gets_a_folder_whose_name_tells_nothing(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    add_patient("P2")
    out = tmp_path / "out"
    folders = translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None)
    assert [str(folder.relative_to(out)) for folder in folders] == ["series-001", "series-002"]
    assert [find_series(folder)[0].patient_id for folder in folders] == ["P1", "P2"]


def test_other_modalities_are_skipped_with_a_note(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    lines: list[str] = []
    translate_folder(translator_of(), pet_folder, pet_folder / "ct", facts=facts, progress=lines.append)
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lines.append)
    assert lines[1] == "skipped 3 CT slices in 1 series: the task pet2ct translates PT"


def test_a_folder_without_the_source_modality_is_refused(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    out = tmp_path / "ct"
    translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None)
    with pytest.raises(InputError, match="expected a PT series; found 3 CT slices in 1 series"):
        translate_folder(translator_of(), out, tmp_path / "out", facts=facts, progress=lambda _: None)


def test_a_taken_output_folder_is_refused_before_anything_is_read(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medgan.serving.folder.find_series", lambda _: pytest.fail("read the source"))
    with pytest.raises(InputError, match="expected a new or an empty folder"):
        translate_folder(translator_of(), pet_folder, pet_folder, facts=facts, progress=lambda _: None)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:StudyID of the source series is invalid")
def test_a_real_pet_becomes_a_valid_ct_in_the_same_place(
    translator_of: Build, facts: ModelFacts, tmp_path: Path, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    if not REAL_PET.is_dir():
        pytest.skip(f"no real PET in {REAL_PET}")
    out = tmp_path / "out"
    translate_folder(translator_of(size=64), REAL_PET, out, facts=facts, progress=lambda _: None)
    (source,), (series,) = find_series(REAL_PET), find_series(out)
    pet, ct = read_volume(source), read_volume(series)
    assert (series.patient_id, series.study_uid) == (source.patient_id, source.study_uid)
    assert ct.frame_of_reference == pet.frame_of_reference and len(ct.array) == len(pet.array)
    np.testing.assert_allclose(ct.affine[2], [0, 0, 3.27, pet.affine[2, 3]], atol=1e-9)
    assert [error for path in sorted(out.iterdir()) for error in dciodvfy_errors(path)] == []
    first: Dataset = pydicom.dcmread(out / "00001.dcm")
    assert first.SyntheticData == "YES" and first.PatientIdentityRemoved == "YES"
