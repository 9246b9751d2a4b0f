"""A series that crashes its reader is told, and every other series of the folder is translated.

MEDGAN_MUTATIONS (60,40) is the number of series with a changed frame, and of those with a changed file.
"""

import os
import random
import shutil
from collections import Counter

import hostile_dicom as hostile
import numpy as np
import pydicom
import pytest
from image_fixtures import write_series
from refusal import refusal

from medgan.data.dicom.attributes import ModelFacts
from medgan.data.reader import find_series
from medgan.errors import JobError
from medgan.inference.dicom_folder import translate_folder
from medgan.processes.crew import Crew, Limit

NUM_FRAMES, NUM_FILES = (int(number) for number in os.environ.get("MEDGAN_MUTATIONS", "60,40").split(","))
NUM_GOOD = 10
pytestmark = pytest.mark.timeout(120 + NUM_FRAMES + NUM_FILES)
FACTS = ModelFacts(name="medgan-pet2ct", version="7", digest="ab" * 32)


def write_pet(folder, number):
    pixels = 200 * np.arange(17 * 12, dtype=np.int16).reshape(17, 12)
    return write_series(
        folder, modality="PT", patient=f"P{number}", study=f"1.2.3.{number}", frame=f"1.2.9.{number}", num=3,
        pixels=pixels, RescaleIntercept=0, RescaleSlope=0.001, Units="GML", SUVType="BW", PatientWeight="70",
        CorrectedImage=["ATTN", "DECY"],
    )  # fmt: skip


@pytest.fixture
def translated(translator_of, tmp_path):
    """Translates the folder `source`; returns what was said, and the IDs of the patients whose series were written."""

    def run():
        lines = []
        with Crew(2, Limit(1 << 30, 30.0)) as callers, pytest.raises(JobError) as caught:
            translate_folder(translator_of(), tmp_path / "source", tmp_path / "out", facts=FACTS,
                             progress=lines.append, callers=callers)  # fmt: skip
        return caught.value, lines, Counter(one.patient_id for one in find_series(tmp_path / "out"))

    return run


@pytest.mark.parametrize("path", hostile.CRASHES, ids=lambda path: path.stem)
def test_frame_that_crashes_its_reader_costs_its_series_only(translated, tmp_path, path):
    for number in range(3):
        write_pet(tmp_path / f"source/{number}", number)
    bad = sorted((tmp_path / "source/1").iterdir())[1]
    hostile.put_frame(bad, path.read_bytes(), path.stem.split("_")[1])
    for each in (tmp_path / "source/1").iterdir():
        dataset = pydicom.dcmread(each)
        dataset.Rows = dataset.Columns = 64
        if each != bad:
            dataset.PixelData = bytes(2 * 64 * 64)
        dataset.save_as(each)
    error, lines, written = translated()
    assert refusal("E-TRANSLATE-02", num_failed=1, num_wanted=3)(error)
    assert written == {"P0": 1, "P2": 1}
    assert len([line for line in lines if line.startswith("series 2 of 3: not translated")]) == 1


def test_changed_frames_and_files_cost_no_good_series(translated, tmp_path):
    chance, source = random.Random(1), tmp_path / "source"
    template = {name: write_pet(tmp_path / name, 0) for name in hostile.SYNTAXES}
    frames = {}
    for name, folder in template.items():
        first = sorted(folder.iterdir())[0]
        hostile.recode(first, hostile.SYNTAXES[name])
        frames[name] = hostile.frame_of(first)
    for number in range(NUM_FRAMES + NUM_FILES):
        folder = write_pet(source / f"bad-{number:05d}", 1000 + number)
        changed = sorted(folder.iterdir())[1]
        if number < NUM_FRAMES:
            name = chance.choice(sorted(frames))
            hostile.put_frame(changed, hostile.mutated(frames[name], chance), name)
        else:
            changed.write_bytes(hostile.mutated(changed.read_bytes(), chance))
    for number in range(NUM_GOOD):
        write_pet(source / f"good-{number}", number)
    for folder in template.values():
        shutil.rmtree(folder)
    error, lines, written = translated()
    assert error.code in ("E-TRANSLATE-02", "E-TRANSLATE-03")
    assert {f"P{number}" for number in range(NUM_GOOD)} <= set(written)
    not_translated = [line for line in lines if "not translated" in line]
    print(f"{len(written)} patients written, {len(not_translated)} series not translated")
    assert not any("P1" in line for line in not_translated)
