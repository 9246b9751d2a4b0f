"""The report of a study is one file that shows every trial, whatever the study holds."""

import math
import re
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from PIL import Image

from medgan.report.study_overview import Overview
from medgan.search.objectives import Goal, keep_goals

SSIM, MAE = Goal("val/ssim", "max"), Goal("val/mae_hu", "min")
PICTURE_NAMES = {"history", "importances", "parallel", "slices", "curves"}


def names_of(folder):
    return {path.stem for path in folder.glob("*.png")}


def test_report_shows_best_trial_states_cost_and_pictures(make, add, report):
    study = make()
    for value in (0.7, 0.8, 0.91234, 0.85, 0.6):
        add(study, "complete", value, metrics={"val/ssim": value, "val/psnr": 27.31, "time/epoch_s": 44.0})
    add(study, "pruned", 0.5)
    add(study, "diverged", 0.4, reason="loss/generator/l1 is nan in epoch 4")
    study.set_user_attr("elapsed_s", 7200.0)
    text, page, folder = report(study, facts={"Space": "pet2ct"})
    assert "For research only" in text
    assert page.fact("Space") == "pet2ct"
    assert page.fact("Task") == "pet2ct, PT [SUV] to CT [HU]"
    assert page.fact("Goal") == "val/ssim (higher is better)"
    assert page.fact("Trials") == "7 finished: 5 complete, 1 pruned, 1 diverged"
    assert page.fact("Best trial") == "trial 2: val/ssim 0.9123"
    assert page.fact("generator.num_blocks") == "3"
    assert page.fact("val/psnr") == "27.31"
    assert page.fact("Cost") == "0.7 GPU-hours in all: complete 0.5, pruned 0.1, failed 0.12 h 00 min of searching"
    assert names_of(folder) == PICTURE_NAMES
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500
            assert len(set(picture.convert("L").get_flattened_data())) > 20, f"{path.name} shows something"


def test_report_loads_no_file_and_runs_no_script(make, add, report, store):
    study = make()
    for value in (0.7, 0.8, 0.9, 0.85):
        store(add(study, "complete", value))
    text, page, folder = report(study)
    assert len(page.loads) == len(names_of(folder)) == 8
    assert all(source.startswith("data:image/png;base64,") for source in page.loads)
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(link.startswith("#") for link in page.links)


def test_report_names_failures_and_links_retry_to_first_attempt(make, add, report):
    study = make()
    add(study, "diverged", 0.4, reason="loss is nan")
    add(study, "out_of_memory", reason="2.5 GiB wanted")
    add(study, "infrastructure", reason="the trial's actor died", device_s=36.0)
    add(study, "budget", reason="2 of 2 GPU-hours used", root=2, retry_of=2)
    add(study, "complete", 0.8, root=2, retry_of=3)
    text, page, _ = report(study)
    states = [page.attempt(number)["state"] for number in range(5)]
    assert states == ["diverged", "out of memory", "infrastructure", "budget", "complete, best"]
    borders = [re.search(rf"\.{kind}\b[^{{]*{{[^}}]*border-color: (#\w+)", text) for kind in
               ("diverged", "out_of_memory", "infrastructure", "budget", "complete")]  # fmt: skip
    assert len({border.group(1) for border in borders}) == 5
    assert page.attempt(1)["reason"] == "2.5 GiB wanted"
    assert (page.attempt(4)["trial"], page.attempt(4)["reason"]) == ("2", "repeats number 3")
    assert 'href="#number-2">2</a>' in text
    assert page.fact("Trials") == (
        "3 finished: 1 complete, 1 diverged, 1 out of memory; 2 attempts were repeated: 1 budget, 1 infrastructure"
    )
    assert page.fact("Best trial") == "trial 2: val/ssim 0.8"
    assert page.fact("Cost").startswith("0.41 GPU-hours in all: complete 0.1, failed 0.2, repeated attempts 0.11")


def test_report_of_two_goals_shows_front_of_feasible_trials(make, add, report):
    study = make(SSIM, MAE)
    for ssim, mae, excess in ((0.9, 90.0, -10.0), (0.8, 70.0, -30.0), (0.7, 95.0, -5.0), (0.95, 120.0, 20.0)):
        add(study, "complete", ssim, mae, excess=excess)
    add(study, "pruned", 0.6, 99.0, excess=-1.0)
    text, page, folder = report(study)
    assert names_of(folder) == {*PICTURE_NAMES, "front"}
    assert page.fact("Goals") == "val/ssim (higher is better), then val/mae_hu (lower is better)"
    assert page.fact("Constraint") == "val/mae_hu <= 100"
    assert page.fact("Best trial") == "trial 0: val/ssim 0.9, val/mae_hu 90"
    assert page.fact("Pareto front") == "trial 0, trial 1"
    assert page.attempt(1)["state"] == "complete, Pareto front"
    assert page.attempt(3)["reason"] == "infeasible: val/mae_hu <= 100 missed by 20"
    assert (page.attempt(4)["val/ssim"], page.attempt(4)["val/mae_hu"]) == ("0.6", "99")
    assert [one.kind for one in Overview.of(study).scored] == ["complete"] * 3 + ["infeasible", "pruned"]


def test_report_of_three_goals_plots_each_pair(make, add, report):
    study = make(SSIM, MAE, Goal("time/epoch_s", "min"))
    for place in range(5):
        add(study, "complete", 0.7 + 0.05 * place, 90.0 + place, 5.0 - place)
    _, page, folder = report(study)
    assert page.fact("Pareto front").startswith("trial 0, ")
    with Image.open(folder / "front.png") as picture:
        assert picture.height > 0.8 * picture.width


def test_report_without_feasible_trial_names_no_best(make, add, report):
    study = make(SSIM, MAE)
    add(study, "complete", 0.9, 120.0, excess=20.0)
    _, page, _ = report(study)
    assert page.fact("Best trial") == "No trial keeps the constraints."
    assert page.fact("Pareto front") == "No complete trial is feasible."


def test_report_of_empty_study_says_so(make, report):
    text, page, folder = report(make())
    assert names_of(folder) == set()
    assert page.fact("Trials") == "0 finished"
    assert page.fact("Best trial") == "No trial has finished with a value yet."
    assert "Importances need at least 4 finished trials with a value; there are 0." in text
    assert "No epoch has ended yet." in text


def test_report_of_failed_trials_only_is_written(make, add, report):
    study = make()
    add(study, "input", params={}, reason="discriminator.patch: expected at most 16", device_s=0.0)
    study.enqueue_trial({"generator.num_blocks": 2})
    _, page, folder = report(study)
    assert names_of(folder) == set()
    assert page.fact("Trials") == "1 finished: 1 input; 1 waiting"
    assert page.attempt(0)["reason"] == "discriminator.patch: expected at most 16"


def test_report_of_one_trial_has_no_importances(make, add, report):
    study = make()
    add(study, "complete", 0.8)
    text, _, folder = report(study)
    assert names_of(folder) == PICTURE_NAMES - {"importances"}
    assert "Importances need at least 4 finished trials with a value; there are 1." in text


def test_report_says_why_importances_are_missing(make, add, report):
    alike, single = make(name="alike"), make(name="single")
    for _ in range(5):
        add(alike, "complete", 0.8)
    for value in (0.5, 0.6, 0.7, 0.8):
        add(single, "complete", value, params={"generator.num_blocks": 2})
    assert "All trials have the same val/ssim: no setting makes a difference." in report(alike)[0]
    assert "Only one setting moves: there is nothing to weigh it against." in report(single)[0]


def test_report_says_what_may_be_chance(make, add, report):
    study = make()
    for value in (0.5, 0.6, 0.7, 0.8):
        add(study, "complete", value)
    _, page, _ = report(study)
    assert page.fact("Importances") == "None of the 3 settings can be told from chance."
    assert page.fact("Spread between seeds").endswith("so the lead of the best trial (0.10) may be chance.")


def test_report_draws_shares_of_gradient_of_best_trial(make, add, report):
    study = make()
    add(study, "complete", 0.7)
    assert "The shares of the gradient were not recorded for trial 0, the best one." in report(study)[0]
    add(study, "complete", 0.8, shares={"1": {"adversarial": 0.02, "perceptual": 0.98}})
    assert names_of(report(study)[2]) == {*PICTURE_NAMES, "shares"} - {"importances"}


def test_report_shows_conditional_settings(make, add, report):
    study, moves = make(), {"loss.lambda_style": FloatDistribution(1e-6, 1e-2, log=True)}
    for place in range(8):
        style = {"loss.lambda_style": 10.0 ** -(3 + place % 3)} if place % 2 else {}
        add(study, "complete", 0.5 + 0.05 * place, params={"generator.num_blocks": 2, **style}, moves=moves)
    _, page, folder = report(study)
    assert names_of(folder) == PICTURE_NAMES
    assert page.attempt(0)["lambda_style"] == "-"
    assert page.attempt(1)["lambda_style"] == "0.0001"


def test_report_shows_no_nan(make, add, report):
    study = make()
    add(study, "complete", 0.8, metrics={"val/ssim": 0.8, "val/mae_hu_bone": math.nan})
    add(study, "diverged", math.nan, reason="a loss is not finite")
    text, page, _ = report(study)
    cells = " ".join(cell for row in page.rows for cell in row)
    assert not re.search(r"\b(nan|inf|None)\b", cells, re.IGNORECASE), cells
    assert "mae_hu_bone" not in text


def test_report_escapes_text_of_study(make, add, report):
    study = make()
    params = {"generator.norm": "<b>$x$</b>", "generator.num_blocks": 2}
    moves = {"generator.norm": CategoricalDistribution(["<b>$x$</b>", "batch"])}
    for value in (0.5, 0.6, 0.7, 0.8):
        add(study, "complete", value, params=params, moves=moves)
    add(study, "error", reason="<script>alert('x')</script> & more")
    text, page, _ = report(study, facts={"<i>Data": "a & b <script>"})
    assert "<script" not in text
    assert {"script", "b", "i"}.isdisjoint(page.tags)
    assert page.fact("<i>Data") == "a & b <script>"
    assert page.attempt(4)["reason"] == "<script>alert('x')</script> & more"
    assert page.attempt(0)["norm"] == "<b>$x$</b>"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("[Errno 2] No such file: '/data/Jane Doe/ct.dcm'", "[Errno 2] No such file: [path]"),
        ("see /tmp/ray/session_1/worker.err, twice", "see [path], twice"),
        ("s3://bucket/jane/last.safetensors is away", "[path] is away"),
        ("~/medgan/study.db is locked", "[path] is locked"),
        ("sqlite:////home/jane/study.db is locked", "[path] is locked"),
        ("loss/generator/l1 is nan at 3.5 images/s and/or 1/2", "loss/generator/l1 is nan at 3.5 images/s and/or 1/2"),
        ("x" * 1000, "x" * 396 + " ..."),
    ],
)
def test_report_replaces_paths_in_reasons(make, add, report, reason, shown):
    study = make()
    add(study, "infrastructure", reason=reason)
    assert report(study)[1].attempt(0)["reason"] == shown


def test_report_names_no_folder(make, add, report, store, tmp_path):
    study = make()
    store(add(study, "complete", 0.8))
    assert str(tmp_path) not in report(study)[0]


@pytest.mark.parametrize(("count", "shown"), [(0, ""), (1, "b"), (2, "bw"), (3, "bmw"), (6, "bmw")])
def test_report_shows_best_median_and_worst_trial_with_pictures(make, add, report, store, count, shown):
    study = make()
    for place in range(7):  # the last trial, the best, has no pictures
        number = add(study, "complete", 0.5 + 0.05 * place)
        if place < count:
            store(number)
    text, _, folder = report(study)
    expected = [name for name in ("best", "median", "worst") if name[0] in shown]
    assert names_of(folder) - PICTURE_NAMES == set(expected)
    titles = re.findall(r'alt="(\w+): trial (\d+)', text)
    places = {"best": count - 1, "median": count // 2, "worst": 0}
    assert titles == [(name, str(places[name])) for name in expected]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves a broken archive open
def test_report_skips_damaged_pictures(make, add, report, tmp_path):
    study = make()
    folder = tmp_path / "checkpoints" / f"{add(study, 'complete', 0.8):04d}"
    folder.mkdir(parents=True)
    (folder / "pictures.npz").write_bytes(b"PK\x03\x04 cut off")
    text, _, written = report(study)
    assert "best: trial 0 (val/ssim 0.8): its pictures cannot be read" in text
    assert "best" not in names_of(written)


def test_second_report_removes_pictures_of_first(make, add, report):
    full, empty = make(name="full"), make(name="empty")
    for value in (0.5, 0.6, 0.7, 0.8):
        add(full, "complete", value)
    assert names_of(report(full)[2]) == PICTURE_NAMES
    assert names_of(report(empty)[2]) == set()


def test_report_of_thousand_trials_takes_seconds(add, report):
    study = optuna.create_study(direction="maximize")  # in memory: a file takes longer to fill than to report
    keep_goals(study, [SSIM])
    numbers = np.random.default_rng(0)
    for place in range(1000):
        params = {"optim.generator_lr": 10 ** float(numbers.uniform(-5, -2)), "generator.num_blocks": 1 + place % 6}
        add(study, "complete" if place % 3 else "pruned", float(numbers.uniform(0.5, 0.9)), params=params)
    began = time.process_time()
    text, _, _ = report(study)
    assert time.process_time() - began < 20
    assert len(text) < 4_000_000
