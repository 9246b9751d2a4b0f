"""The rules of promotion as files: read, defaulted, refused with the line."""

import pytest
from pydantic import ValidationError
from refusal import refusal

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


def test_read_rules_without_file_returns_defaults():
    assert read_rules(None) == Rules()
    assert Rules().metrics == {"ssim", "psnr"}, "which every task measures, with any extractor and at any size"


def test_read_rules_reads_every_rule(write):
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


def test_read_rules_takes_defaults_for_missing_rules(write):
    assert read_rules(write("min_patients: 3\n")) == Rules(min_patients=3)


def test_rules_round_trip_through_json(write):
    rules = read_rules(write(FULL))
    assert Rules.model_validate_json(rules.model_dump_json()) == rules


def test_rules_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Rules().alpha = 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 0.05\nmin_patient: 6\n", refusal("E-RULES-02")),
        ("alpha: five\n", refusal("E-RULES-02")),
        ("\nalpha: 0\n", refusal("E-RULES-02")),
        ("alpha: 0.5\n", refusal("E-RULES-02")),
        ("margin: -1\n", refusal("E-RULES-02")),
        ("margin: .inf\n", refusal("E-RULES-02")),
        ("min_patients: 6.5\n", refusal("E-RULES-02")),
        ("min_patients: yes\n", refusal("E-RULES-02")),
        ("primary: sim\n", refusal("E-RULES-02")),
        ("primary: [ssim]\n", refusal("E-RULES-02")),
        ("alpha: 0.05\nfloors:\n  ssim: 0.6\n  sim: 0.6\n", refusal("E-RULES-02")),
        ("floors:\n  ssim: 0.6\n  psnr: high\n", refusal("E-RULES-02")),
        ("worst_patient:\n  ssim: -0.1\n", refusal("E-RULES-02")),
        ("floors: 0.6\n", refusal("E-RULES-02")),
        ("floors:\n  1: 0.6\n", refusal("E-RULES-02")),
        ("1: 2\n", refusal("E-RULES-02")),
        ("margin: 1e-3\n", refusal("E-RULES-02")),  # text, to YAML
        ("extractor: vgg\n", refusal("E-RULES-02")),
        ("ledger: true\n", refusal("E-RULES-02")),
        ("alpha: 0.05\nmargin: 0\nalpha: 0.1\n", refusal("E-RULES-04", place="alpha", lines="1")),
        ("floors:\n  ssim: 0.6\n  ssim: 0.7\n", refusal("E-RULES-04", place="ssim", lines="2")),
        ("", refusal("E-RULES-01", content="None")),
        ("- alpha\n", refusal("E-RULES-01", content="['alpha']")),
        ("alpha: [0.05\n", refusal("E-RULES-03")),
        ("alpha: 2020-13-45\n", refusal("E-RULES-03")),
        (b"alpha: \xff\n", refusal("E-RULES-03")),
    ],
)
def test_read_rules_refuses_wrong_rule_with_line_and_value(write, text, message):
    with pytest.raises(InputError, check=message):
        read_rules(write(text))


def test_read_rules_refuses_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, check=refusal("E-RULES-03")):
        read_rules(tmp_path / "none.yaml")
    with pytest.raises(InputError, check=refusal("E-RULES-03")):
        read_rules(tmp_path)
