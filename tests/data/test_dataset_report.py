"""The report shows the content of a data set, loads nothing and is the same every time."""

import base64
import io
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from refusal import refusal

from medgan.data.manifest import SCHEMA_VERSION, IntensityScale, Manifest, Patient
from medgan.data.prepare.dataset_report import write_report
from medgan.data.prepare.pair_picture import PICTURE, PairSide, draw_pair
from medgan.errors import InputError
from medgan.tasks import TASKS

pytestmark = pytest.mark.unit

SIZE = 32
XMLNS = 'xmlns="http://www.w3.org/2000/svg"'  # a name, nothing is loaded
HU, SUV = IntensityScale(slope=1.0, intercept=0.0), IntensityScale(slope=0.001, intercept=10.0)


def patient(name, *, slices=3, **changes):
    facts = {
        "hash": name, "role": "train", "folder": name, "slices": slices, "slice_numbers": list(range(4, 4 + slices)),
        "dropped": 0, "source": SUV, "target": HU, "source_window": (0, 10), "target_window": (-1000, 2000),
        "affine": np.eye(4).tolist(), "overlap": 0.87654, "mutual_information": 1.23456, "sha256": {}, "notes": [],
        "drawn": {},
    }  # fmt: skip
    return Patient(**facts | changes)


def manifest_of(*patients, **changes):
    facts = {
        "schema_version": SCHEMA_VERSION, "medgan": "1.2.3", "task": TASKS["pet2ct"], "spacing_mm": 1.5, "size": SIZE,
        "phantom": False, "simulation": {}, "patients": list(patients), "set_aside": [], "passed_over": {},
        "inputs": "", "digest": "d1g357",
    }  # fmt: skip
    return Manifest(**facts | changes)


def store(folder, one, *, size=SIZE):
    """Stores the picture of a patient: PET at the left and CT at the top."""
    source = np.full((one.slices, size, size), -10_000, np.int16)
    source[..., : size // 2] = 0  # 10 SUV
    target = np.full((one.slices, size, size), -1000, np.int16)
    target[:, : size // 2] = 400
    (folder / one.folder).mkdir(parents=True)
    (folder / one.folder / PICTURE).write_text(drawn(source, target))


def drawn(source, target):
    task = TASKS["pet2ct"]
    return draw_pair(PairSide(task.source, source, SUV, (0, 10)), PairSide(task.target, target, HU, (-1000, 2000)))


@pytest.fixture
def report(tmp_path):
    """Writes the report of patients and gives its text."""

    def written(*patients, **changes):
        for one in patients:
            if not (tmp_path / one.folder).exists():
                store(tmp_path, one)
        path = write_report(manifest_of(*patients, **changes), tmp_path)
        assert path == tmp_path / "report.html"
        return path.read_text()

    return written


def pictures(text):
    """Returns the three images of each patient, float RGB (H, W, 3)."""
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)
        for data in re.findall(r'href="data:image/jpeg;base64,(.*?)"', text)
    ]
    return [images[first : first + 3] for first in range(0, len(images), 3)]


def visible(text):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_report_head_states_task_grid_roles_and_digest(report):
    text = visible(report(patient("aa11"), patient("bb22", role="test"), patient("cc33")))
    for expected in (
        "Data set pet2ct", "For research only", "by keyed hash only", "PT [SUV] to CT [HU]",
        "32 x 32 pixels of 1.5 mm", "3: 2 train, 1 test", "Slices 9", "MedGAN 1.2.3", "d1g357",
    ):  # fmt: skip
        assert expected in text
    assert "phantoms" not in text


def test_report_states_that_phantoms_are_not_persons(report):
    assert "computed phantoms, not persons" in report(patient("aa11"), phantom=True)


def test_report_lists_patients_slices_and_files_left_out(report):
    text = visible(
        report(
            patient("aa11", dropped=2),
            patient("bb22", dropped=5),
            patient("cc33"),
            set_aside=["patient dd44 set aside: no CT"],
            passed_over={"localizer": 7, "no image": 1},
        )
    )
    assert "patient set aside patient dd44 set aside: no CT" in text
    assert "slices dropped 7 of 2 patients" in text
    assert "files passed over 7: localizer" in text
    assert "files passed over 1: no image" in text


def test_report_states_that_nothing_was_left_out(report):
    assert "Left out Nothing." in visible(report(patient("aa11")))


def test_report_row_states_facts_of_patient(report):
    text = visible(report(patient("aa11", role="validation", dropped=2, notes=["first choice", "second"])))
    assert "aa11 validation 3 2 0 to 10 -1000 to 2000 0.877 1.235 first choice second" in text
    assert "aa11 validation, slice 5 of the target series" in text


def test_report_shows_settings_of_simulated_sources(report):
    task = TASKS["mr_motion"]
    text = visible(report(patient("aa11"), task=task, simulation={"degrees": 5.0, "transforms": 2.0}))
    assert "Sources simulated motion: degrees 5, transforms 2" in text
    assert "MR is shown in its own window." in text


def test_report_escapes_text_of_manifest(report):
    text = report(
        patient("<i>h", folder="h", notes=["<script>alert(1)</script>"]),
        set_aside=['<img src="x">'],
        passed_over={"a & <b>": 1},
        medgan="<u>",
        digest='"><p>',
    )
    for forbidden in ("<script", '<img src="x"', "& <b>", "<u>", '"><p>', "<i>"):
        assert forbidden not in text
    assert "&lt;script&gt;alert(1)" in text


def test_report_loads_nothing_from_outside(report):
    text = report(patient("aa11"))
    assert "default-src 'none'" in text
    without_pictures = re.sub(r"base64,[^\"]*", "", text).replace(XMLNS, "")
    for forbidden in ("://", "<script", "<link", "url(", "@import", "onload"):
        assert forbidden not in without_pictures
    assert set(re.findall(r'<image[^>]*href="([^"]{10})', text)) == {"data:image"}
    assert "src=" not in text


def test_report_closes_every_tag(report):
    class Balance(HTMLParser):
        stack: list[str] = []

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img", "br"):
                self.stack.append(tag)

        def handle_endtag(self, tag):
            assert self.stack.pop() == tag

    parser = Balance()
    parser.feed(report(patient("aa11", notes=["one", "two"]), set_aside=["x"]))
    assert parser.stack == []


def test_report_of_same_data_has_same_bytes(report):
    assert report(patient("aa11"), patient("bb22")) == report(patient("aa11"), patient("bb22"))


def test_report_shows_three_images_of_every_patient(report):
    assert [len(images) for images in pictures(report(patient("aa11"), patient("bb22", slices=1)))] == [3, 3]


def test_report_images_are_square_with_rows_running_down(report):
    source, target, both = pictures(report(patient("aa11")))[0]
    assert source.shape == target.shape == both.shape == (192, 192, 3)  # 32 pixels, six times as large
    middle = len(target) // 2
    assert target[: middle - 5].mean() > 250, "400 HU are white and at the top"
    assert target[middle + 5 :].mean() < 5
    assert source[:, : middle - 5].mean() < 5, "10 SUV are black and at the left"
    assert source[:, middle + 5 :].mean() > 250
    red, _, blue = both[middle + 10 :, : middle - 5].mean((0, 1))
    assert red > blue + 100, "the source is warm where it lies over nothing"
    assert both[middle + 10 :, middle + 5 :].mean() < 5, "and clear where there is none"


def test_report_histogram_spans_window_and_stands_on_axis(report):
    text = report(patient("aa11"))
    for edge in ("0", "10", "-1000", "2000"):
        assert f">{edge}</text>" in text
    steps = [float(level) for level in re.findall(r"V([\d.]+)", re.search(r'<path d="M[^"]*H[^"]*"', text)[0])]
    top, bottom = min(steps), steps[-1]
    assert steps[0] == pytest.approx(top, abs=0.1), "half of the PET is 0 SUV, in the first bin"
    assert steps[-2] == pytest.approx(top, abs=0.1), "and half 10, in the last"
    assert set(steps[1:-2]) == {bottom}


def test_draw_pair_of_noise_is_small_and_fast():
    random = np.random.default_rng(0)
    shape = (20, 256, 256)
    start = time.process_time()
    picture = drawn(random.integers(-10_000, 0, shape, np.int16), random.integers(-300, 400, shape, np.int16))
    assert time.process_time() - start < 1
    assert len(picture) < 450_000


def test_write_report_refuses_missing_picture_without_path(tmp_path):
    expected = refusal("E-PREPARE-01", patient_hash="aa11", picture="picture.svg")
    with pytest.raises(InputError, check=expected) as caught:
        write_report(manifest_of(patient("aa11")), tmp_path)
    assert str(tmp_path) not in str(caught.value)
