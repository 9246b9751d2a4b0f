"""The rules of promotion as files: read, defaulted, refused with the line."""

import pytest
from pydantic import ValidationError

from medgan.errors import InputError
from medgan.registry.promotion_rules import Rules, read_rules

FULL = """\
# for CT
primary: mae_hu_body
margin: 2
alpha: 0.01
non_inferior: {ssim: 0.01, lpips: 0.02}
worst_patient:
  mae_hu_body: 10.5
min_patients: 9
floors:
  ssim: 0.6
  bias_hu: -0.5
max_latency_ms: 50
max_memory_gb: 4
extractor: pretrained
ledger: block
"""


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "rules.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def test_without_a_file_the_rules_are_the_default_ones():
    assert read_rules(None) == Rules()
    assert Rules().metrics == {"ssim", "psnr"}, "which every task measures, with any extractor and at any size"


def test_every_rule_can_stand_in_a_file(write):
    rules = read_rules(write(FULL))
    assert set(rules.model_dump()) == rules.model_fields_set, "the file above names them all"
    assert rules == Rules(
        primary="mae_hu_body",
        margin=2.0,
        alpha=0.01,
        non_inferior={"ssim": 0.01, "lpips": 0.02},
        worst_patient={"mae_hu_body": 10.5},
        min_patients=9,
        floors={"ssim": 0.6, "bias_hu": -0.5},
        max_latency_ms=50.0,
        max_memory_gb=4.0,
        extractor="pretrained",
        ledger="block",
    )
    assert rules.metrics == {"mae_hu_body", "ssim", "lpips", "bias_hu"}


def test_what_a_file_leaves_out_is_the_default(write):
    assert read_rules(write("min_patients: 3\n")) == Rules(min_patients=3)


def test_rules_come_back_from_json_as_they_were(write):
    rules = read_rules(write(FULL))
    assert Rules.model_validate_json(rules.model_dump_json()) == rules


def test_rules_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Rules().alpha = 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 0.05\nmin_patient: 6\n", "line 2: expected one of primary, margin, .*, ledger; got 'min_patient'"),
        ("alpha: five\n", "line 1: alpha: Input should be a valid number; got 'five'"),
        ("\nalpha: 0\n", "line 2: alpha: Input should be greater than 0; got 0"),
        ("alpha: 0.5\n", "line 1: alpha: Input should be less than 0.5; got 0.5"),
        ("margin: -1\n", "line 1: margin: Input should be greater than or equal to 0; got -1"),
        ("margin: .inf\n", "line 1: margin: Input should be a finite number; got inf"),
        ("min_patients: 6.5\n", "line 1: min_patients: Input should be a valid integer; got 6.5"),
        ("min_patients: yes\n", "line 1: min_patients: Input should be a valid integer; got True"),
        ("primary: sim\n", "line 1: primary: metric: expected a name that begins with one of ssim, .*; got 'sim'"),
        ("primary: [ssim]\n", r"line 1: primary: Input should be a valid string; got \['ssim'\]"),
        ("alpha: 0.05\nfloors:\n  ssim: 0.6\n  sim: 0.6\n", "line 4: floors.sim: metric: expected a name.*; got 'sim'"),
        ("floors:\n  ssim: 0.6\n  psnr: high\n", "line 3: floors.psnr: Input should be a valid number; got 'high'"),
        ("worst_patient:\n  ssim: -0.1\n", "line 2: worst_patient.ssim: .*greater than or equal to 0; got -0.1"),
        ("floors: 0.6\n", "line 1: floors: Input should be a valid dictionary; got 0.6"),
        ("floors:\n  1: 0.6\n", "line 2: floors.1: Input should be a valid string; got 1"),
        ("1: 2\n", "line 1: 1: Keys should be strings; got 1"),
        ("margin: 1e-3\n", "line 1: margin: Input should be a valid number; got '1e-3'"),  # text, to YAML
        ("extractor: vgg\n", "line 1: extractor: Input should be 'any' or 'pretrained'; got 'vgg'"),
        ("ledger: true\n", "line 1: ledger: Input should be 'report' or 'block'; got True"),
        ("alpha: 0.05\nmargin: 0\nalpha: 0.1\n", "line 3: alpha stands on line 1 already"),
        ("floors:\n  ssim: 0.6\n  ssim: 0.7\n", "line 3: ssim stands on line 2 already"),
        ("", "rules.yaml: expected lines such as `min_patients: 6`; got None"),
        ("- alpha\n", r"rules.yaml: expected lines such as `min_patients: 6`; got \['alpha'\]"),
        ("alpha: [0.05\n", "rules.yaml: expected a YAML file; .*line 2"),
        ("alpha: 2020-13-45\n", "rules.yaml: expected a YAML file; month must be in 1..12"),
        (b"alpha: \xff\n", "rules.yaml: expected a YAML file; .*decode"),
    ],
)
def test_a_refusal_names_the_line_what_was_expected_and_what_came(write, text, message):
    with pytest.raises(InputError, match=message):
        read_rules(write(text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="rules .*none.yaml: expected a YAML file; .*No such file"):
        read_rules(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="expected a YAML file; .*Is a directory"):
        read_rules(tmp_path)
