from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from refusal import refusal

from medgan.data.dicom.writer import ModelFacts
from medgan.data.reader import find_series, read_volume
from medgan.data.series import SYNTHETIC_LABEL
from medgan.errors import InputError, JobError
from medgan.inference.dicom_folder import translate_folder
from medgan.inference.translator import Translator
from medgan.locks import held

Build = Callable[..., Translator]
REAL_PET = Path(__file__).parents[4] / "shared/data/sts_petct/STS_001/PET"


def test_translate_folder_writes_single_series_into_output_folder(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    assert translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lines.append) == [out]
    (series,) = find_series(out)
    assert series.modality == "CT" and len(series.files) == 3
    assert lines == [f"series 1 of 1: 3 slices written to {out}"]


def test_translate_folder_names_folders_by_number_not_patient(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    add_patient("P2")
    out = tmp_path / "out"
    folders = translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None)
    assert [str(folder.relative_to(out)) for folder in folders] == ["series-001", "series-002"]
    assert [find_series(folder)[0].patient_id for folder in folders] == ["P1", "P2"]


def test_translate_folder_skips_other_modalities_with_note(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    lines: list[str] = []
    translate_folder(translator_of(), pet_folder, pet_folder / "ct", facts=facts, progress=lines.append)
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lines.append)
    assert lines[1] == "skipped 3 CT slices in 1 series: synthetic"
    for path in (pet_folder / "ct").iterdir():
        header = pydicom.dcmread(path)
        del header.SyntheticData, header.SeriesDescription
        header.save_as(path)
    translate_folder(translator_of(), pet_folder, tmp_path / "more", facts=facts, progress=lines.append)
    assert lines[3] == "skipped 3 CT slices in 1 series: the task pet2ct translates PT"


def test_translate_folder_refuses_synthetic_series(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    for path in pet_folder.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.SeriesDescription = (
            f"{SYNTHETIC_LABEL} (PT by medgan)"  # as if another program had removed the attribute
        )
        header.save_as(path)
    found = "3 PT slices in 1 series, synthetic"
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-06", source=pet_folder, modality="PT", reasons=found)):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)


def test_translate_folder_reports_slices_added_after_translation(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    late = pet_folder / "one" / "2.dcm"
    late.rename(tmp_path / "late.dcm")
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    (tmp_path / "late.dcm").rename(late)
    lines: list[str] = []
    with pytest.raises(JobError, check=refusal("E-TRANSLATE-02", num_failed=1, num_wanted=1)):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lines.append)
    assert lines[0].endswith("out was made of 2 files of a series that has 3 now; remove it to have it made anew")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_translate_folder_translates_new_series_beside_series_that_grew(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    add_patient("P2")
    late = pet_folder / "one" / "2.dcm"
    late.rename(tmp_path / "late.dcm")
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    (tmp_path / "late.dcm").rename(late)
    add_patient("P3")
    with pytest.raises(JobError, check=refusal("E-TRANSLATE-02", num_failed="1", num_wanted="3")):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    assert [len(list(folder.iterdir())) for folder in sorted((tmp_path / "out").iterdir())] == [2, 3, 3]


def test_translate_folder_fails_where_last_slice_is_unreadable(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    (pet_folder / "one" / "2.dcm").write_bytes(b"")
    lines: list[str] = []
    with pytest.raises(JobError, check=refusal("E-TRANSLATE-03", source=pet_folder, num_unreadable=1)):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lines.append)
    assert lines == ["skipped 1 file: empty file", f"series 1 of 1: 2 slices written to {tmp_path / 'out'}"]


def test_translate_folder_refuses_unwritable_output_before_reading(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medgan.inference.dicom_folder.survey", lambda _: pytest.fail("read the source"))
    expected = refusal("E-TRANSLATE-04", out="/proc/out", parent="/proc", strerror=os.strerror(errno.ENOENT))
    with pytest.raises(InputError, check=expected):
        translate_folder(translator_of(), pet_folder, Path("/proc/out"), facts=facts, progress=lambda _: None)


def test_translate_folder_writes_subfolder_of_mount_point(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    assert translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None) == [
        out / "series-001"
    ]
    assert translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None) == []


def test_translate_folder_refuses_source_without_modality(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    out = tmp_path / "ct"
    translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None)
    found = "3 CT slices in 1 series, synthetic"
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-06", source=out, modality="PT", reasons=found)):
        translate_folder(translator_of(), out, tmp_path / "out", facts=facts, progress=lambda _: None)


def test_translate_folder_refuses_used_output_folder_before_reading(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medgan.inference.dicom_folder.survey", lambda _: pytest.fail("read the source"))
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-05", out=pet_folder, facts=facts)):
        translate_folder(translator_of(), pet_folder, pet_folder, facts=facts, progress=lambda _: None)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:StudyID of the source series is invalid")
def test_real_pet_becomes_valid_ct_in_same_place(
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


def test_translate_folder_continues_interrupted_run(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    add_patient("P2")
    add_patient("P3")
    out, lines = tmp_path / "out", []
    translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lambda _: None)
    before = (out / "series-001" / "00001.dcm").read_bytes()
    shutil.rmtree(out / "series-002")
    (out / ".series-002.0123abcd.partial").mkdir()
    again = translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lines.append)
    assert again == [out / "series-002"] and find_series(again[0])[0].patient_id == "P2"
    assert lines == ["2 of 3 series are there already", f"series 1 of 1: 3 slices written to {again[0]}"]
    assert (out / "series-001" / "00001.dcm").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["series-001", "series-002", "series-003"]
    assert translate_folder(translator_of(), pet_folder, out, facts=facts, progress=lines.append) == []
    assert lines[-1] == "3 of 3 series are there already"


def test_translate_folder_refuses_locked_output_and_keeps_partial_work(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    partial = tmp_path / ".out.0123abcd.partial"
    partial.mkdir()
    with (
        held(tmp_path / ".out.lock", "the other run", limit_s=0),
        pytest.raises(InputError, check=refusal("E-LOCK-01", lock_file=tmp_path / ".out.lock")),
    ):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    assert partial.is_dir()


def test_translate_folder_keeps_partial_work_of_similar_names(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    own, others = tmp_path / ".o*t.0123abcd.partial", [".out.0123abcd.partial", ".o*t.b.0123abcd.partial"]
    for partial in (own, *(tmp_path / name for name in others)):
        partial.mkdir()
    translate_folder(translator_of(), pet_folder, tmp_path / "o*t", facts=facts, progress=lambda _: None)
    assert not own.exists() and all((tmp_path / name).is_dir() for name in others)


def test_translate_folder_refuses_output_of_other_version(
    pet_folder: Path, translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    newer = replace(facts, version="8")
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-05", out=tmp_path / "out", facts=newer)):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=newer, progress=lambda _: None)


def test_translate_folder_refuses_more_series_beside_single_series(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)
    add_patient("P2")
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-01", out=tmp_path / "out", num_left=1)):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lambda _: None)


def test_translate_folder_translates_other_series_beside_damaged_one(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    for patient in ("P2", "P3"):
        add_patient(patient)
    broken = pet_folder / "P2" / "1.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    lines: list[str] = []
    with pytest.raises(JobError, check=refusal("E-TRANSLATE-02", num_failed="1", num_wanted="3")):
        translate_folder(translator_of(), pet_folder, tmp_path / "out", facts=facts, progress=lines.append)
    assert [line.partition(":")[0] for line in lines] == ["series 1 of 3", "series 2 of 3", "series 3 of 3"]
    assert lines[1].startswith("series 2 of 3: not translated: PT: ") and "slice 1" in lines[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["series-001", "series-003"]


def test_translate_folder_reports_slices_done_and_total(
    pet_folder: Path, add_patient: Callable[[str], None], translator_of: Build, facts: ModelFacts, tmp_path: Path
) -> None:
    add_patient("P2")
    reported: list[tuple[int, int]] = []
    translate_folder(
        translator_of(),
        pet_folder,
        tmp_path / "out",
        facts=facts,
        progress=lambda _: None,
        advance=lambda done, total: reported.append((done, total)),
    )
    assert reported == [(3, 6), (6, 6)]
