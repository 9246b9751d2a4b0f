"""Random kills over one study: no trial is lost or done twice, no epoch is recorded twice, nothing is left behind.

The short form kills a worker, a trial's actor and the driver once each, on SQLite. The long one, on PostgreSQL too:
`MEDGAN_KILLS=25 MEDGAN_TRIALS=24 MEDGAN_SEED=1 pytest -m "" tests/cluster/test_kills.py`.
"""

import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import optuna
import pytest

from medgan.search.study import finished, first_attempt_of, state_of
from medgan.training.checkpoint import read_history

KILLS = int(os.environ.get("MEDGAN_KILLS", 3))
TRIALS = int(os.environ.get("MEDGAN_TRIALS", 4))
SEED = int(os.environ.get("MEDGAN_SEED", 27))
LIMIT_S = 100 + 40 * KILLS + 10 * TRIALS
GRACE, EPOCHS = 2, 4
SPACE = f"""
set:
  data.size: 32
  generator.base_channels: 4
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: {EPOCHS}
  train.batch_size: 8
search:
  generator.num_blocks: {{int: [1, 2]}}
  optim.generator_lr: {{log: [1.0e-3, 2.0e-3]}}
scheduler: {{grace_epochs: {GRACE}}}
trials: {TRIALS}
"""
LONG_FORM = pytest.mark.skipif(
    "MEDGAN_KILLS" not in os.environ, reason="the long form: MEDGAN_KILLS=25 MEDGAN_TRIALS=24"
)
REPEATED = ("infrastructure", "interrupted")
TITLES = {"worker": "RayTrainWorker", "actor": "ResourceTrainable"}


@dataclass
class Story:
    """What happened to a study.

    Attributes:
        jobs: the command, as often as it had to be given.
        kills: what was killed, and what each trial's folder held right after: root -> `time/epoch_s` of its epochs.
        seen: every process that any of the jobs started.
    """

    home: Path
    study_uri: str
    tracking_uri: str
    jobs: list = field(default_factory=list)
    kills: list = field(default_factory=list)
    seen: set = field(default_factory=set)

    @property
    def lines(self):
        return [line for job in self.jobs for line in list(job.lines)]

    @property
    def epochs(self):
        """The epochs that were told, as (root, epoch)."""
        return {match.groups() for line in self.lines if (match := re.match(r"trial (\d+): epoch (\d+)/", line))}

    def __str__(self):
        kills = [f"line {line}: {kind} killed; saved: {saved}" for kind, line, saved in self.kills]
        return "\n".join([*self.lines, *kills])

    def starter(self, search, dicom):
        """How to start the command."""
        uris = ["--study-uri", self.study_uri, "--tracking-uri", self.tracking_uri]
        return lambda: search(self.home, SPACE, "--study", "kills", "--data", str(dicom), *uris)

    def saved(self):
        (study,) = (self.home / "checkpoints").glob("*") if (self.home / "checkpoints").exists() else (None,)
        folders = sorted(study.iterdir()) if study else []
        return {int(folder.name): [row["time/epoch_s"] for row in read_history(folder)] for folder in folders}


def schedule(generator):
    """When to kill what: after so many epochs of the whole study, some seconds later."""
    kinds = [("worker", "actor", "driver")[number % 3] for number in range(KILLS)]
    generator.shuffle(kinds)
    moments = sorted(generator.choices(range(1, GRACE * TRIALS - 1), k=KILLS))
    return [(kind, moment, generator.uniform(0, 2)) for kind, moment in zip(kinds, moments, strict=True)]


def wait_for(condition, what, story, limit_s=300.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"{what} within {limit_s:.0f} s:\n{story}"
        time.sleep(0.05)


def disturb(story, start, processes_of, descendants):
    """Runs a study to its end, killing on the way; the command is given again whenever the driver was killed."""
    generator = random.Random(SEED)
    story.jobs.append(start())
    for number, (kind, moment, delay_s) in enumerate(schedule(generator)):
        job = story.jobs[-1]

        def ended(job=job):
            return job.process.poll() is not None

        def there(job=job, kind=kind):
            return [job.process] if kind == "driver" else processes_of(story.home, TITLES[kind])

        def progressed(moment=moment, ended=ended):
            return len(story.epochs) >= moment or ended()

        wait_for(progressed, f"kill {number}: not {moment} epochs", story)
        time.sleep(delay_s)  # the random moment
        wait_for(lambda: there() or ended(), f"kill {number}: no {kind}", story)
        assert not ended(), f"ended with {job.end()} before kill {number}:\n{story}"
        story.seen |= descendants(job.process.pid)
        generator.choice(there()).kill()
        story.kills.append((kind, len(story.lines), story.saved()))
        if kind == "driver":
            job.end()
            story.jobs.append(start())
    assert story.jobs[-1].end(LIMIT_S) == 0, str(story)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=LONG_FORM)])
def story(request, tmp_path_factory, dicom, search, processes_of, descendants):
    """A study that was disturbed, on either kind of database."""
    home = tmp_path_factory.mktemp("kills") / "home"
    if request.param == "sqlite":
        uris = [f"sqlite:///{home / name}.db" for name in ("study", "mlflow")]
    else:
        uris = [request.getfixturevalue("postgresql")(name) for name in ("study", "mlflow")]
    told = Story(home, *uris)
    disturb(told, told.starter(search, dicom), processes_of, descendants)
    (home.parent / "story.txt").write_text(str(told))
    return told


def study_of(story):
    return optuna.load_study(study_name="kills", storage=story.study_uri)


def runs_of(story):
    client = mlflow.MlflowClient(tracking_uri=story.tracking_uri)
    experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
    return client, client.search_runs([experiment.experiment_id], max_results=1000)


@pytest.mark.timeout(2 * LIMIT_S)
def test_killed_search_finishes_every_trial_exactly_once(story):
    trials = study_of(story).get_trials()
    done = finished(study_of(story))
    assert len(done) == TRIALS
    assert (
        len({first_attempt_of(trial) for trial in done}) == TRIALS == len({first_attempt_of(trial) for trial in trials})
    )
    assert {state_of(trial) for trial in trials} <= {"complete", "pruned", "restarts", *REPEATED}
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    assert all(trial.number in retried for trial in trials if state_of(trial) in REPEATED)


def test_killed_search_has_one_ended_run_per_trial_and_each_epoch_once(story):
    client, runs = runs_of(story)
    assert {run.info.status for run in runs} == {"FINISHED"}
    runs = {int(run.data.tags["medgan.root"]): run for run in runs if "mlflow.parentRunId" in run.data.tags}
    done = {first_attempt_of(trial): trial for trial in finished(study_of(story))}
    assert runs.keys() == done.keys()
    for first_attempt, trial in done.items():
        steps = [metric.step for metric in client.get_metric_history(runs[first_attempt].info.run_id, "val/ssim")]
        assert steps == list(range(1, len(steps) + 1)) == list(trial.intermediate_values)
        assert runs[first_attempt].data.tags["medgan.state"] == state_of(trial)
        assert len(steps) == EPOCHS if state_of(trial) == "complete" else GRACE <= len(steps) < EPOCHS


def test_killed_search_repeats_no_saved_epoch(story):
    """What a folder held at a kill is what counts in the end: the times of those epochs are still the same."""
    client, runs = runs_of(story)
    runs = {int(run.data.tags["medgan.root"]): run.info.run_id for run in runs if "mlflow.parentRunId" in run.data.tags}
    for _, at, saved in story.kills:
        for first_attempt, times in saved.items():
            recorded = [metric.value for metric in client.get_metric_history(runs[first_attempt], "time/epoch_s")]
            assert times == recorded[: len(times)]
            goes_on = rf"trial {first_attempt}: continues after epoch (\d+), from its checkpoint"
            after = [int(match[1]) for line in story.lines[at:] if (match := re.match(goes_on, line))]
            assert all(epoch >= len(times) for epoch in after)


def test_killed_search_leaves_no_process(story, processes_of):
    def left():
        return {process for process in story.seen if process.is_alive} | set(processes_of(story.home))

    wait_for(lambda: not left(), f"still there: {left()}", story, limit_s=30)


def test_finished_search_says_that_all_trials_are_done(story, search, dicom):
    again = story.starter(search, dicom)()
    assert again.end() == 0, again.text
    assert f"{TRIALS} of {TRIALS} trials done" in again.text
    assert "starting Ray" not in again.text


def test_doctor_finds_no_disagreement_after_kills(story):
    command = [sys.executable, "-m", "medgan.cli.main", "doctor", "kills", "--output", str(story.home)]
    command += ["--study-uri", story.study_uri, "--tracking-uri", story.tracking_uri]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    assert "nothing disagrees" in ran.stdout
