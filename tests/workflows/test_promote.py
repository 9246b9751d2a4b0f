"""`medgan promote` and `medgan rollback` on real phantoms, real trainings and a real MLflow store."""

import json
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from mlflow import MlflowClient
from refusal import refusal

from medgan.cli.main import app
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.errors import InputError
from medgan.registry.versions import holder

MODEL = "medgan-pet2ct-phantom"
LIMIT_S = 120
TINY = ("--quick", "--set", "data.size=32", "--set", "generator.base_channels=8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An output folder with three versions of a model, trained for 6, 1 and 24 epochs."""
    folder = tmp_path_factory.mktemp("promote")
    write_phantoms(folder / "images", task="pet2ct", patients=20, slices=6, matrix=32, seed=0)
    for seed, epochs in enumerate((6, 1, 24)):
        length = ("--set", f"train.seed={seed}", "--set", f"train.epochs={epochs}")
        run(folder, "train", "--preset", "unet_l1", "--data", folder / "images", *TINY, *length)
    return folder


def run(folder, *arguments):
    """Runs a command; returns its standard output."""
    sink = StringIO()
    with redirect_stdout(sink):
        app([*map(str, arguments), "--output", str(folder / "home")], standalone_mode=False)
    return sink.getvalue()


def promoted(folder, version, *more):
    """Promotes a version; returns exit code and standard output."""
    try:
        return 0, run(folder, "promote", "--model", f"models:/{MODEL}/{version}", "--data", folder / "images", *more)
    except SystemExit as end:
        return end.code, ""


@pytest.fixture(scope="module")
def uri(home):
    return f"sqlite:///{home / 'home' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def story(home, uri):
    """Each command in order: its result, and the versions that are champion and previous after it."""
    steps = {}

    def note(step, output):
        steps[step] = (output, holder(MODEL, "champion", uri=uri), holder(MODEL, "previous", uri=uri))

    note("first", promoted(home, 1))
    note("worse", promoted(home, 2))
    note("better", promoted(home, 3))
    note("again", promoted(home, 3))
    note("rollback", (0, run(home, "rollback", MODEL)))
    note("after", promoted(home, 3))
    return steps


def tags(uri, version):
    return MlflowClient(tracking_uri=uri).get_model_version(MODEL, version).tags


@pytest.mark.timeout(LIMIT_S)
def test_promote_makes_first_candidate_above_mean_image_champion(story):
    (code, output), champion, previous = story["first"]
    assert (code, champion, previous) == (0, "1", None)
    assert "there is no champion to compare with" in output
    assert "above that of the mean image" in output


def test_promote_refuses_worse_candidate(story, uri):
    (code, _), champion, previous = story["worse"]
    assert (code, champion, previous) == (1, "1", None)
    written = tags(uri, "2")
    assert (written["medgan.gate"], written["medgan.gate_against"]) == ("refused", "version 1")
    assert float(written["medgan.gate_p"]) > 0.5


def test_promote_makes_better_candidate_champion_and_champion_previous(story, uri):
    (code, output), champion, previous = story["better"]
    assert (code, champion, previous) == (0, "3", "1")
    assert f"Promoted: {MODEL} version 3 is champion; version 1 is previous." in output
    written = tags(uri, "3")
    assert (written["medgan.gate"], written["medgan.gate_tried"]) == ("passed", "3")
    assert float(written["medgan.gate_p_adjusted"]) == pytest.approx(3 * float(written["medgan.gate_p"]), rel=1e-3)


def test_promote_does_not_compare_champion_with_itself(story):
    assert story["again"][0] == (0, f"{MODEL} version 3 is champion already.\n")


def test_promote_after_rollback_uses_earlier_evidence(story, uri):
    assert story["rollback"][1:] == ("1", None)
    (code, output), champion, previous = story["after"]
    assert (code, champion, previous) == (0, "3", "1")
    assert "is used again: the same weights, patients and rules" in output
    assert "measuring" not in output
    written = tags(uri, "3")
    assert (written["medgan.gate"], written["medgan.gate_against"]) == ("passed", "version 1")


def test_evidence_is_stored_with_version_and_names_no_patient(story, home, uri, tmp_path):
    client = MlflowClient(tracking_uri=uri)
    version = client.get_model_version(MODEL, "3")
    folder = version.tags["medgan.gate_evidence"]
    copied = {
        name: Path(client.download_artifacts(version.run_id, f"{folder}/{name}", str(tmp_path)))
        for name in ("promotion.html", "promotion.json")
    }
    page = copied["promotion.html"].read_text()
    record = json.loads(copied["promotion.json"].read_text())
    assert record["verdict"]["passed"] and record["champion"]["version"] == "1"
    assert f"{MODEL} version 3 against version 1" in page
    assert all(reason in page.replace("&lt;", "<") for reason in record["verdict"]["reasons"])
    assert "PHANTOM" not in page + json.dumps(record)


def test_promote_follows_rules_file(story, home, uri, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("floors: {ssim: 0.99}\n")
    run(home, "rollback", MODEL)
    code, _ = promoted(home, 3, "--rules", rules)
    assert (code, holder(MODEL, "champion", uri=uri)) == (1, "1")


def test_promote_refuses_rule_on_unmeasured_metric_before_counting_candidate(story, home, uri, tmp_path):
    rules, before = tmp_path / "rules.yaml", MlflowClient(tracking_uri=uri).get_registered_model(MODEL).tags
    rules.write_text("floors: {mae_suv: 1}\n")
    with pytest.raises(InputError, check=refusal("E-PROMOTE-01", unknown="mae_suv")):
        run(home, "promote", "--model", f"models:/{MODEL}/2", "--data", home / "images", "--rules", rules)
    assert MlflowClient(tracking_uri=uri).get_registered_model(MODEL).tags == before


def test_promote_refuses_model_that_has_seen_test_patients(story, home, uri):
    """The roles of the data set are changed by hand, as by a person who wants more test patients."""
    (prepared,) = [path.parent for path in (home / "home" / "datasets").glob("*/dataset.json")]
    manifest = json.loads((prepared / "dataset.json").read_text())
    for patient in manifest["patients"]:
        patient["role"] = {"train": "test", "test": "train"}.get(patient["role"], patient["role"])
    original = (prepared / "dataset.json").read_bytes()
    try:
        (prepared / "dataset.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, check=refusal("E-EVALUATE-08", manifest_name=MODEL)):
            run(home, "promote", "--model", f"models:/{MODEL}/2", "--data", prepared)
    finally:
        (prepared / "dataset.json").write_bytes(original)


@pytest.mark.timeout(LIMIT_S)
def test_promote_job_refuses_missing_model(story, home):
    command = [sys.executable, "jobs/promote.py", "--model", f"models:/{MODEL}@nobody", "--data", str(home / "images")]
    done = subprocess.run([*command, "--output", str(home / "home")], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert f"error: --model models:/{MODEL}@nobody: " in done.stderr
    assert done.stderr.endswith(" [E-REGISTRY-06]\n")
