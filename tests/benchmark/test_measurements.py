import json

import pytest

from medgan.benchmark.measurements import Measurement, Spread, spread_of, table_text, write_json

pytestmark = pytest.mark.unit

COMMON = {"part": "step", "settings": "quick", "device": "cpu, 2 threads"}
ROWS = [
    Measurement(
        figure="engine",
        unit="images/s",
        value=Spread(40.0, 39.0, 41.25),
        ratio=Spread(1.5, 1.4, 1.6),
        against="plain",
        wanted=">= 1.3x",
        note="mind the heat",
        **COMMON,
    ),
    Measurement(figure="plain", unit="images/s", value=Spread(27.123456, 27, 28), **COMMON),
    Measurement("step", "engine", "paper", "cpu, 2 threads", note="no CUDA device"),
]


def test_spread_of_is_median_and_quartiles():
    assert spread_of([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0, 4.0)
    assert spread_of([7.0]) == (7.0, 7.0, 7.0)


def test_table_text_has_one_table_for_each_setting():
    assert table_text(ROWS).splitlines() == [
        "step: quick; cpu, 2 threads",
        "  figure  median  quartiles    unit      ratio  quartiles   against  wanted",
        "  engine  40      39 to 41.25  images/s  1.5    1.4 to 1.6  plain    >= 1.3x",
        "  plain   27.12   27 to 28     images/s",
        "  engine: mind the heat",
        "",
        "step: paper; cpu, 2 threads",
        "  figure  median        quartiles",
        "  engine  not measured  no CUDA device",
    ]


def test_write_json_holds_rows_and_versions(tmp_path):
    write_json(tmp_path / "found.json", ROWS, {"versions": {"torch": "2"}})
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["versions"] == {"torch": "2"}
    assert found["rows"][0]["ratio"] == {"median": 1.5, "low": 1.4, "high": 1.6}
    assert found["rows"][2]["value"] is None
    assert found["rows"][2]["note"] == "no CUDA device"
