"""Promotion rules are read from a file, with defaults; a wrong rule is refused with its line."""

import pytest
from pydantic import ValidationError
from refusal import refusal

from medgan.errors import InputError, messages
from medgan.metrics.validation_metrics import DIRECTIONS
from medgan.registry.promotion_rules import Rules, read_rules

pytestmark = pytest.mark.unit

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


NO_METRIC = messages()["E-METRIC-02"].format(directions=", ".join(DIRECTIONS), name="sim")


def wrong(line, message):
    """Returns a check that an error names a wrong rule, with its line."""
    return refusal("E-RULES-02", place=f", line {line}", message=message)


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "rules.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def test_read_rules_without_file_returns_defaults():
    assert read_rules(None) == Rules()
    assert Rules().metrics == {"ssim", "psnr"}, "which every task measures, with any extractor and at any size"


def test_read_rules_reads_every_rule(write):
    rules = read_rules(write(FULL))
    assert set(rules.model_dump()) == rules.model_fields_set, "the file above names every rule"
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


def test_read_rules_takes_defaults_for_missing_rules(write):
    assert read_rules(write("min_patients: 3\n")) == Rules(min_patients=3)


def test_rules_round_trip_through_json(write):
    rules = read_rules(write(FULL))
    assert Rules.model_validate_json(rules.model_dump_json()) == rules


def test_rules_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Rules().alpha = 0.1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "alpha: 0.05\nmin_patient: 6\n",
            wrong(2, f"expected one of {', '.join(Rules.model_fields)}; got 'min_patient'"),
        ),
        ("alpha: five\n", wrong(1, "alpha: Input should be a valid number; got 'five'")),
        ("\nalpha: 0\n", wrong(2, "alpha: Input should be greater than 0; got 0")),
        ("alpha: 0.5\n", wrong(1, "alpha: Input should be less than 0.5; got 0.5")),
        ("margin: -1\n", wrong(1, "margin: Input should be greater than or equal to 0; got -1")),
        ("margin: .inf\n", wrong(1, "margin: Input should be a finite number; got inf")),
        ("min_patients: 6.5\n", wrong(1, "min_patients: Input should be a valid integer; got 6.5")),
        ("min_patients: yes\n", wrong(1, "min_patients: Input should be a valid integer; got True")),
        ("primary: sim\n", wrong(1, f"primary: {NO_METRIC}")),
        ("primary: [ssim]\n", wrong(1, "primary: Input should be a valid string; got ['ssim']")),
        ("alpha: 0.05\nfloors:\n  ssim: 0.6\n  sim: 0.6\n", wrong(4, f"floors.sim: {NO_METRIC}")),
        ("floors:\n  ssim: 0.6\n  psnr: high\n", wrong(3, "floors.psnr: Input should be a valid number; got 'high'")),
        (
            "worst_patient:\n  ssim: -0.1\n",
            wrong(2, "worst_patient.ssim: Input should be greater than or equal to 0; got -0.1"),
        ),
        ("floors: 0.6\n", wrong(1, "floors: Input should be a valid dictionary; got 0.6")),
        ("floors:\n  1: 0.6\n", wrong(2, "floors.1: Input should be a valid string; got 1")),
        ("1: 2\n", wrong(1, "1: Keys should be strings; got 1")),
        ("margin: 1e-3\n", wrong(1, "margin: Input should be a valid number; got '1e-3'")),  # text, to YAML
        ("extractor: vgg\n", wrong(1, "extractor: Input should be 'any' or 'pretrained'; got 'vgg'")),
        ("ledger: true\n", wrong(1, "ledger: Input should be 'report' or 'block'; got True")),
        ("alpha: 0.05\nmargin: 0\nalpha: 0.1\n", refusal("E-RULES-04", line=3, place="alpha", lines=1)),
        ("floors:\n  ssim: 0.6\n  ssim: 0.7\n", refusal("E-RULES-04", line=3, place="ssim", lines=2)),
        ("", refusal("E-RULES-01", content="None")),
        ("- alpha\n", refusal("E-RULES-01", content="['alpha']")),
        ("alpha: [0.05\n", refusal("E-RULES-03")),
        ("alpha: 2020-13-45\n", refusal("E-RULES-03")),
        (b"alpha: \xff\n", refusal("E-RULES-03")),
    ],
)
def test_read_rules_refuses_wrong_rule_with_line_and_value(write, text, expected):
    with pytest.raises(InputError, check=expected):
        read_rules(write(text))


def test_read_rules_refuses_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, check=refusal("E-RULES-03", path=path)):
            read_rules(path)
