import pytest
from refusal import refusal

from medgan.data.prepare.pairing import overlap_mm, pair
from medgan.data.prepare.patients import find
from medgan.data.reader import find_series
from medgan.data.series import SYNTHETIC_LABEL
from medgan.errors import InputError
from medgan.tasks import TASKS

TASK = TASKS["pet2ct"]


def stack(first, num):
    return [(0.0, 0.0, first + 3.0 * index) for index in range(num)]


def test_source_and_target_of_a_patient_are_paired(make_series, tmp_path):
    for patient in ("P1", "P2"):
        make_series(tmp_path / patient / "a", patient=patient)
        make_series(tmp_path / patient / "b", patient=patient, modality="PT")
    pairs, problems = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert [(one.source.modality, one.target.modality, one.target.patient_id) for one in pairs] == [
        ("PT", "CT", "P1"),
        ("PT", "CT", "P2"),
    ]
    assert not problems
    assert overlap_mm(pairs[0].source, pairs[0].target) == pytest.approx(9)


def test_the_largest_overlap_wins_and_the_choice_is_noted(make_series, tmp_path):
    make_series(tmp_path / "pet", modality="PT", positions=stack(0, 10))
    make_series(tmp_path / "far", positions=stack(21, 10))
    make_series(tmp_path / "near", positions=stack(3, 9))
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert len(one.target.files) == 9
    assert one.note == "took 1 of 2 possible pairs in 1 study: 10 PT and 9 CT slices that overlap by 24 mm"


@pytest.mark.parametrize("mark", [{"SyntheticData": "YES"}, {"SeriesDescription": f"{SYNTHETIC_LABEL} (CT by medgan)"}])
def test_what_a_network_made_is_no_ground_truth(make_series, tmp_path, mark):
    make_series(tmp_path / "pet", modality="PT", positions=stack(0, 10))
    make_series(tmp_path / "real", positions=stack(0, 9))
    make_series(tmp_path / "made", positions=stack(0, 10), **mark)
    found = find(tmp_path, TASK, b"key", source_match="", target_match="")
    assert [len(one.target.files) for one in found.pairs.values()] == [9]
    assert found.passed_over == {"synthetic image": 10}


def test_where_one_side_is_synthetic_alone_it_is_told(make_series, tmp_path):
    make_series(tmp_path / "pet", modality="PT")
    make_series(tmp_path / "made", SyntheticData="YES")
    with pytest.raises(InputError, check=refusal("E-PAIR-01")):
        find(tmp_path, TASK, b"key", source_match="", target_match="")


def test_attenuation_corrected_pet_wins(make_series, tmp_path):
    make_series(tmp_path / "ct")
    make_series(tmp_path / "nac", modality="PT", CorrectedImage=["DECY"], num=5)
    make_series(tmp_path / "ac", modality="PT", CorrectedImage=["DECY", "ATTN"])
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert one.source.attenuation_corrected


def test_of_two_studies_the_better_overlap_is_taken(make_series, tmp_path):
    for study, num in (("1.2.3", 4), ("1.2.4", 7)):
        make_series(tmp_path / study / "ct", study=study, num=num)
        make_series(tmp_path / study / "pt", study=study, num=num, modality="PT")
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert one.target.study_uid == one.source.study_uid == "1.2.4"
    assert "in 2 studies" in one.note


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"frame": "1.2.10"}, "no PT and CT share a study and a frame of reference"),
        ({"study": "1.2.10"}, "no PT and CT share a study and a frame of reference"),
        ({"positions": stack(50, 3)}, "PT and CT do not overlap along the slice normal"),
        ({"patient": "P0"}, "expected PT and CT; got only"),
    ],
)
def test_a_patient_without_a_pair_is_a_problem_with_its_reason(make_series, tmp_path, more, reason):
    make_series(tmp_path / "ct")
    make_series(tmp_path / "pt", modality="PT", **more)
    pairs, problems = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert not pairs
    assert reason in problems[0].reason


def test_series_without_patient_id_are_a_problem(make_series, tmp_path):
    make_series(tmp_path / "ct", patient="")
    make_series(tmp_path / "pt", patient="", modality="PT")
    assert "expected a Patient ID" in pair(find_series(tmp_path), TASK, root=tmp_path)[1][0].reason


def test_one_modality_alone_is_refused(make_series, tmp_path):
    with pytest.raises(InputError, check=refusal("E-PAIR-01", expected="PT and CT")):
        pair(find_series(make_series(tmp_path)), TASK, root=tmp_path)


def test_a_task_that_simulates_its_sources_takes_the_longest_target_alone(make_series, tmp_path):
    make_series(tmp_path / "t1", modality="MR", num=4)
    make_series(tmp_path / "t2", modality="MR", num=6)
    (one,), problems = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert (one.source, len(one.target.files), problems) == (None, 6, [])
    assert one.note == "took the longest of 2 MR series; target_match=TEXT takes others"


def test_text_in_the_path_tells_given_sources_from_targets(make_series, tmp_path):
    make_series(tmp_path / "dicom" / "moved", modality="MR")
    make_series(tmp_path / "dicom" / "still", modality="MR")
    series = find_series(tmp_path)
    (one,), _ = pair(series, TASKS["mr_motion"], root=tmp_path, source_match="moved", target_match="still")
    assert ("moved" in str(one.source.files[0]), "still" in str(one.target.files[0])) == (True, True)
    with pytest.raises(InputError, check=refusal("E-PAIR-01")):
        pair(series, TASKS["mr_motion"], root=tmp_path, source_match="T9", target_match="still")
    with pytest.raises(InputError, check=refusal("E-PAIR-01", expected="PT", found="0 PT")):
        pair(series, TASKS["pet_denoise"], root=tmp_path)


def test_a_series_of_several_phases_is_not_taken_where_there_is_a_stack(make_series, tmp_path):
    make_series(tmp_path / "phases", modality="MR", positions=stack(0, 4) * 2)
    make_series(tmp_path / "plain", modality="MR", num=4)
    (one,), _ = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert len(one.target.files) == 4


def test_a_patient_without_the_modality_is_named(make_series, tmp_path):
    make_series(tmp_path / "mr", modality="MR")
    make_series(tmp_path / "ct", patient="P2")
    pairs, problems = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert len(pairs) == 1
    assert [one.reason for one in problems] == ["expected MR; got only CT"]
