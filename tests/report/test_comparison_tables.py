"""The tables of a comparison are written as files, and a conclusion says which differences they show."""

import csv
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from medgan.report.comparison_statistics import MethodResults, Results, Run
from medgan.report.comparison_tables import write_tables
from medgan.report.narrative import metric_text, power, table_conclusion

pytestmark = pytest.mark.unit

PATIENTS = 6


def run(seed, ssim, *, patients=PATIENTS, **others):
    """Returns a run in which each patient has slightly different values."""
    values = {"ssim": ssim, "psnr": 20 * ssim, "ssim_body": ssim / 2, "mae_hu": 100 / ssim, "bias_hu": 3.0, **others}
    return Run(
        seed,
        {f"{place:012x}": {name: value + place / 1000 for name, value in values.items()} for place in range(patients)},
        slices_seen=12_345,
        minutes=3.04,
    )


def method(name, *values, trained=True, **others):
    return MethodResults(name, tuple(run(seed, value, **others) for seed, value in enumerate(values)), trained)


DIVERGED = Run(2, None, "diverged: the output | is <not> finite")


def results(*methods, reference="medgan", table="Table I", title="PET -> CT on 18 patients"):
    names = tuple(one.name for one in methods)
    return Results(title, {"data": "18 patients & more"}, {table: names}, {one.name: one for one in methods}, reference)


def usual():
    return results(
        method("cgan", 0.60, 0.62, 0.61),
        MethodResults("pan", (run(0, 0.55), run(1, 0.56), DIVERGED)),
        MethodResults("id_cgan", (DIVERGED, DIVERGED, DIVERGED)),
        method("medgan", 0.63, 0.66, 0.64),
        method("mean image", 0.70, trained=False),
    )


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heading, rule, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert set(rule) == {"---"}
    return heading, {row[0]: dict(zip(heading, row, strict=True)) for row in rows}


def written(tmp_path, found, pictures=()):
    return {path.name: path.read_text() for path in write_tables(found, tmp_path / "tables", pictures)}


def lines_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_markdown_has_row_per_method_and_column_per_metric(tmp_path):
    heading, rows = rows_of(written(tmp_path, usual())["tables.md"])
    assert heading == [
        "method", "SSIM ↑", "PSNR (dB) ↑", "MAE (HU) ↓", "images seen (thousands)", "p, SSIM against medgan", "runs",
    ]  # fmt: skip
    assert list(rows) == ["cgan", "pan", "id_cgan", "medgan", "mean image"]
    assert rows["cgan"]["SSIM ↑"] == "0.612 ± 0.010"
    assert rows["cgan"]["images seen (thousands)"] == "12.3"
    assert rows["cgan"]["p, SSIM against medgan"] == "0.094", "2 / 2^6, of three tests"
    assert rows["medgan"]["p, SSIM against medgan"] == "-"


def test_markdown_prints_best_trained_method_bold(tmp_path):
    _, rows = rows_of(written(tmp_path, usual())["tables.md"])
    assert rows["medgan"]["SSIM ↑"].startswith("**0.64")
    assert rows["medgan"]["MAE (HU) ↓"].startswith("**"), "the lowest is the best error"
    assert "±" not in rows["mean image"]["SSIM ↑"] and "*" not in rows["mean image"]["SSIM ↑"]
    assert rows["mean image"]["runs"] == rows["mean image"]["images seen (thousands)"] == "-"


def test_markdown_counts_failed_runs_with_reason(tmp_path):
    _, rows = rows_of(written(tmp_path, usual())["tables.md"])
    assert rows["pan"]["runs"] == r"2 of 3 runs; 1 diverged: the output \| is &lt;not> finite"
    assert rows["pan"]["SSIM ↑"].startswith("0.55")
    assert rows["id_cgan"]["SSIM ↑"] == r"3 diverged: the output \| is &lt;not> finite"
    assert rows["id_cgan"]["PSNR (dB) ↑"] == rows["id_cgan"]["p, SSIM against medgan"] == "-"
    assert rows["id_cgan"]["runs"] == "0 of 3 runs"


def test_markdown_explains_budget_spread_test_and_power_below_table(tmp_path):
    text = written(tmp_path, usual())["tables.md"]
    assert "Each of the 8 trainings took 3.0 minutes" in text
    assert "± is the standard deviation over 2 or 3 seeds" in text
    assert "sign-flip test of the patients' differences to medgan" in text
    assert "The smallest p that 6 patients can show is 0.031, adjusted for 3 rows 0.094" in text
    assert "- test patients: 6; a difference that all of them share shows p = 0.031 (2/2^6)" in text


def test_markdown_says_that_one_seed_has_no_spread(tmp_path):
    text = written(tmp_path, results(method("cgan", 0.6), method("medgan", 0.63)))["tables.md"]
    assert "there is one seed, so no spread;" in text
    _, rows = rows_of(text)
    assert re.fullmatch(r"0\.60\d+", rows["cgan"]["SSIM ↑"])


def test_markdown_figures_have_enough_digits_to_show_spread(tmp_path):
    _, rows = rows_of(
        written(tmp_path, results(method("medgan", 0.6, 0.6002), method("cgan", 0.5, 0.5003)))["tables.md"]
    )
    assert rows["cgan"]["SSIM ↑"] == "0.50265 ± 0.00021"
    _, rows = rows_of(written(tmp_path, results(method("medgan", 0.5, 0.6, mse=1234.0)))["tables.md"])
    assert rows["medgan"]["SSIM ↑"] == "**0.552 ± 0.071**"


def test_method_has_same_figure_in_every_table(tmp_path):
    methods = {one.name: one for one in (method("medgan", 0.6, 0.63), method("a", 0.5, 0.5002), method("b", 0.5, 0.52))}
    tables = {"Table I": ("medgan", "a"), "Table II": ("b", "medgan")}
    lines = written(tmp_path, Results("PET -> CT", {}, tables, methods))["tables.md"].splitlines()
    first, second = (line for line in lines if line.startswith("| medgan |"))
    assert first.split("|")[2] == second.split("|")[2]


def test_csv_has_line_per_method_and_metric(tmp_path):
    lines = {(line["method"], line["metric"]): line for line in lines_of(written(tmp_path, usual())["tables.csv"])}
    assert len(lines) == 5 * 5
    line = lines["cgan", "ssim"]
    assert (line["table"], line["direction"], line["runs"], line["failed"]) == ("Table I", "max", "3", "0")
    assert float(line["mean"]) == pytest.approx(0.6125)
    assert float(line["spread_seeds"]) == pytest.approx(0.01)
    assert float(line["p"]) == 2 / 64 and float(line["p_holm"]) == 6 / 64
    assert lines["cgan", "ssim_body"]["mean"] and lines["cgan", "bias_hu"]["direction"] == "min"
    failed = lines["id_cgan", "ssim"]
    assert (failed["mean"], failed["p"], failed["runs"], failed["failed"]) == ("", "", "0", "3")
    assert failed["reasons"] == "3 diverged: the output | is <not> finite"
    assert lines["mean image", "ssim"]["spread_seeds"] == ""


def test_patients_csv_has_line_per_method_seed_and_patient(tmp_path):
    lines = lines_of(written(tmp_path, usual())["patients.csv"])
    assert len(lines) == (3 + 2 + 3 + 1) * PATIENTS
    assert lines[0]["method"] == "cgan" and lines[0]["seed"] == "0" and float(lines[0]["ssim"]) == 0.6


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "onerror")]

    def handle_data(self, data):
        self.text += data


def test_html_page_holds_tables_and_pictures_and_escapes_names(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "table_1.png")
    evil = "<img src=x onerror=alert(1)>"
    found = results(method(evil, 0.5, 0.6), method("medgan", 0.6, 0.7), table=f"Table {evil}", title=f"PET {evil}")
    page = Page(written(tmp_path, found, [tmp_path / "table_1.png"])["tables.html"])
    assert page.tags.count("img") == 1 and page.tags.count("table") == 3, "facts, the short and the long table"
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert page.text.count(evil) >= 4
    assert "SSIM body" in page.text and "bias (HU) → 0" in page.text and "18 patients & more" in page.text


def test_html_page_gives_whole_reason_of_failure(tmp_path):
    long = Run(0, None, f"out_of_memory: {'very ' * 60}large")
    texts = written(tmp_path, results(MethodResults("pan", (long,)), method("medgan", 0.6)))
    assert long.failure in Page(texts["tables.html"]).text
    assert long.failure not in texts["tables.md"] and "[...]" in texts["tables.md"]


def test_method_without_run_is_marked_no_run(tmp_path):
    _, rows = rows_of(written(tmp_path, results(MethodResults("pan", ()), method("medgan", 0.6)))["tables.md"])
    assert rows["pan"]["SSIM ↑"] == "no run"


def test_tables_of_failed_runs_only_are_written(tmp_path):
    texts = written(tmp_path, results(MethodResults("medgan", (DIVERGED,)), MethodResults("pan", (DIVERGED,))))
    assert "No trained method of Table I has a result in SSIM." in texts["tables.md"]
    assert [line["failed"] for line in lines_of(texts["tables.csv"])] == ["1", "1"]
    assert "1 diverged: the output | is <not> finite" in Page(texts["tables.html"]).text


def only_conclusion(found: Results, metric: str = "ssim") -> str:
    """Returns the conclusion of results that have one table."""
    (table,) = found.tables
    return table_conclusion(found, table, metric)


def test_conclusion_where_reference_leads_with_too_few_patients():
    assert only_conclusion(results(method("cgan", 0.60, 0.62), method("pan", 0.55), method("medgan", 0.63, 0.66))) == (
        "medgan has the highest SSIM of the trained methods of Table I (0.6475); the differences of cgan "
        "and pan to medgan cannot be told from chance (Holm-adjusted p < 0.05 asked for; 6 patients, too few for any)."
    )


def test_conclusion_where_other_method_leads_with_enough_patients():
    many = {"patients": 10}
    found = results(
        method("pix2pix", 0.64, **many), method("cgan", 0.60, **many), method("medgan", 0.63, **many),
        method("mean image", 0.7, trained=False, **many), method("source as it is", 0.63, trained=False, **many),
        MethodResults("pan", (DIVERGED,)), table="Table II",
    )  # fmt: skip
    assert only_conclusion(found) == (
        "pix2pix has the highest SSIM of the trained methods of Table II (0.6445); medgan is 2nd of 3 (0.6345); mean "
        "image, which is not trained, is better (0.7045); no result from pan; medgan is better than cgan by more than "
        "chance explains, pix2pix and mean image are better than medgan by more than chance explains, the "
        "difference of source as it is to medgan cannot be told from chance (Holm-adjusted p < 0.05 asked for; "
        "10 patients)."
    )


def test_conclusion_on_error_metric_names_lowest():
    found = results(method("cgan", 0.60), method("medgan", 0.63))
    assert only_conclusion(found, "mae_hu").startswith(
        "medgan has the lowest MAE of the trained methods of Table I (158"
    )


def test_conclusion_names_equal_methods_together():
    assert only_conclusion(results(method("cgan", 0.6), method("medgan", 0.6))).startswith(
        "cgan and medgan have the highest"
    )


def test_conclusion_tests_nothing_where_reference_failed_is_absent_or_alone():
    failed = results(method("cgan", 0.6), MethodResults("medgan", (DIVERGED,)))
    assert "nothing was tested, as medgan has no result (1 diverged: the output" in only_conclusion(failed)
    assert power(failed, "Table I") == ""
    assert "nothing was tested, as medgan is not in this table" in only_conclusion(results(method("cgan", 0.6)))
    assert "as nothing else was measured beside medgan" in only_conclusion(results(method("medgan", 0.6)))


def test_power_says_how_many_patients_table_needs():
    six = results(*(method(f"m{place}", 0.5) for place in range(6)), method("medgan", 0.6))
    assert power(six, "Table I") == (
        "The smallest p that 6 patients can show is 0.031, adjusted for 6 rows 0.19: whatever the methods do, none can "
        "fall below 0.05; that takes 8 patients."
    )
    enough = results(method("cgan", 0.5, patients=8), method("medgan", 0.6, patients=8))
    assert power(enough, "Table I") == "The smallest p that 8 patients can show is 0.0078."


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("ssim", "SSIM"),
        ("psnr_body", "PSNR body (dB)"),
        ("ms_ssim_body", "MS-SSIM body"),
        ("mae_hu_body", "MAE body (HU)"),
        ("mae_hu_bone", "MAE bone (HU)"),
        ("bias_suv", "bias (SUV)"),
    ],
)
def test_metric_text_names_metric_with_unit(metric, text):
    assert metric_text(metric) == text
