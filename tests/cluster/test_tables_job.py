"""The tables' job as a person starts it: a method that diverges has its row, and what is done is printed at once."""

import csv
from pathlib import Path

import mlflow
import pytest

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ARGUMENTS = (
    "--methods", "medgan_1g,unet_l1", "--seeds", "1", "--minutes", "0.05", "--quick", "--study", "both",
    "--set", "optim.discriminator_lr=1e30",
)  # fmt: skip
"""Only one of the two has a discriminator."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "home"


@pytest.fixture(scope="module")
def finished(command, home, dicom):
    """The job, run to its end."""
    job = command(home, str(REPOSITORY / "jobs" / "reproduce_tables.py"), "--data", str(dicom), *ARGUMENTS)
    assert job.end(300) == 0, job.text
    return job


def test_tables_report_a_diverged_method_in_its_row(finished, home):
    folder = home / "reports" / "both" / "tables"
    with (folder / "tables.csv").open() as lines:
        rows = {row["method"]: row for row in csv.DictReader(lines) if row["metric"] in ("ssim", "")}
    assert rows["medgan_1g"]["failed"] == "1"
    assert "diverged" in rows["medgan_1g"]["reasons"]
    assert float(rows["unet_l1"]["mean"]) > 0
    assert {"mean image", "knn_patches"} <= rows.keys()
    assert (folder / "panels.png").stat().st_size > 10_000
    assert "diverged" in finished.text


def test_tables_log_test_metrics_of_every_training(finished, home):
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["medgan/pet2ct-phantom"], output_format="list")
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = {run.data.tags["medgan.preset"]: run for run in runs if run is not parent}
    assert children.keys() == {"medgan_1g", "unet_l1"}
    assert children["unet_l1"].data.metrics["test/ssim"] > 0
    assert children["medgan_1g"].info.status == "FAILED"
    kept = {item.path for item in mlflow.MlflowClient().list_artifacts(parent.info.run_id, "tables")}
    assert {"tables/tables.md", "tables/tables.csv", "tables/tables.html", "tables/panels.png"} <= kept


def test_finished_tables_are_printed_at_once(finished, command, home, dicom):
    again = command(home, str(REPOSITORY / "jobs" / "reproduce_tables.py"), "--data", str(dicom), *ARGUMENTS)
    assert again.end(100) == 0, again.text
    assert "starting Ray" not in again.text
    assert [line for line in again.lines if line.startswith("|")] == [
        line for line in finished.lines if line.startswith("|")
    ]


def test_finished_tables_are_extended_by_another_seed(finished, command, home, dicom):
    more = [*ARGUMENTS[:3], "2", *ARGUMENTS[4:]]
    job = command(home, str(REPOSITORY / "jobs" / "reproduce_tables.py"), "--data", str(dicom), *more)
    assert job.end(300) == 0, job.text
    with (home / "reports" / "both" / "tables" / "tables.csv").open() as lines:
        rows = {row["method"]: row for row in csv.DictReader(lines) if row["metric"] in ("ssim", "")}
    assert (rows["unet_l1"]["runs"], rows["medgan_1g"]["failed"]) == ("2", "2")
