"""The tracking server dies in the middle of a study: training goes on, and afterwards every value is there, once."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from medgan.search.study import state_of

AWAY_S = int(os.environ.get("MEDGAN_AWAY_S", 10))
LIMIT_S = 200
EPOCHS = 20
REPOSITORY = Path(__file__).parents[2]
SPACE = """
set:
  data.size: 32
  generator.base_channels: 4
  discriminator.base_channels: 4
  extractor.weights: random
  loss.style_blocks: [1]
  loss.content_blocks: [1]
  train.epochs: 20
  train.batch_size: 8
search:
  generator.num_blocks: {int: [1, 2]}
scheduler: {grace_epochs: 20}
trials: 4
"""
SHORT_EPOCHS = 6
SHORT = SPACE.replace("epochs: 20", f"epochs: {SHORT_EPOCHS}").replace("trials: 4", "trials: 3")
"""Enough where nothing is recorded during the outage itself."""
IMPATIENT = """
import runpy, sys
import medgan.workflows.missing_trials
medgan.workflows.missing_trials.RECONCILE_S = 8
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Server:
    """`mlflow server` on an address of its own, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri, self.process = f"http://127.0.0.1:{self.port}", None
        self.start()

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *address],
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 100
        while not self.answers():
            assert time.monotonic() < end, (self.folder / "server.log").read_text()
            threading.Event().wait(0.2)

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path)
    yield running
    running.kill()


def trials_of(home: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="away", storage=f"sqlite:///{home / 'study.db'}").trials


def runs_in(server: Server) -> list[Run]:
    client = MlflowClient(server.uri)
    return client.search_runs([client.get_experiment_by_name("medgan/pet2ct-phantom").experiment_id])


def refuse_any_loss(server: Server, home: Path, *, trials: int, epochs: int) -> dict[int, list[int]]:
    """Every epoch, setting, picture, tag and status is in MLflow, once; when each epoch was heard, by root."""
    client, runs = MlflowClient(server.uri), runs_in(server)
    (study,) = (run for run in runs if run.data.tags["medgan.root"] == "study")
    assert (study.info.status, study.data.tags["medgan.state"]) == ("FINISHED", "complete")
    assert "Best: [trial #" in study.data.tags["mlflow.note.content"]
    assert "report/report.html" in [file.path for file in client.list_artifacts(study.info.run_id, "report")]
    children = {int(run.data.tags["medgan.root"]): run for run in runs if run != study}
    known = {int(trial.user_attrs.get("root", trial.number)): trial for trial in trials_of(home)}
    assert len(runs) == trials + 1
    assert sorted(children) == sorted(known)
    heard = {}
    for first_attempt, run in children.items():
        history = client.get_metric_history(run.info.run_id, "val/ssim")
        recorded = {str(one.step): [one.value] for one in history}
        assert [one.step for one in history] == [*range(1, epochs + 1)]
        assert recorded == known[first_attempt].user_attrs["epochs"]
        assert run.data.params["generator.num_blocks"] == str(known[first_attempt].params["generator.num_blocks"])
        assert run.data.metrics["moved/generator.num_blocks"] == known[first_attempt].params["generator.num_blocks"]
        assert (run.info.status, run.data.tags["medgan.state"]) == ("FINISHED", state_of(known[first_attempt]))
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"config.json", "provenance.json", "pictures"} <= files
        heard[first_attempt] = [one.timestamp for one in history]
        assert heard[first_attempt] == sorted(heard[first_attempt])
    return heard


def go_through_an_outage(away_s: float, server: Server, job) -> tuple[float, float]:
    """Kills the server in the second trial, and starts it again; when it was away, in seconds since 1970."""
    job.until(r"trial 1: epoch 2/20")
    (study,) = (run for run in runs_in(server) if run.data.tags["medgan.root"] == "study")
    assert study.data.tags["medgan.state"] == "running"
    assert study.data.tags["mlflow.note.content"].startswith("This search is going on; 0 of 4 trials done when it")
    server.kill()
    began, end = time.time(), time.monotonic() + away_s
    job.until("MLflow does not answer; results wait here until it answers")
    job.until(r"trial \d: epoch .*/20")  # training goes on
    threading.Event().wait(max(end - time.monotonic(), 0))  # the outage itself
    ended = time.time()
    server.start()
    job.until("MLflow answers again, after ")
    return began, ended


@pytest.mark.timeout(2 * LIMIT_S)
def test_mlflow_has_every_value_after_an_outage(server, tmp_path, dicom, search):
    """MEDGAN_AWAY_S=60 for the long form."""
    home = tmp_path / "home"
    job = search(home, SPACE, "--study", "away", "--data", str(dicom), "--tracking-uri", server.uri)
    began, ended = go_through_an_outage(AWAY_S, server, job)
    assert job.end() == 0, job.text
    heard = refuse_any_loss(server, home, trials=4, epochs=EPOCHS)
    meanwhile = [moment for moments in heard.values() for moment in moments if began < moment / 1000 < ended]
    assert len(meanwhile) > 20  # with the times at which they were heard


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_S)
def test_same_command_sends_what_mlflow_missed(server, tmp_path, dicom, command):
    home, job = tmp_path / "home", str(REPOSITORY / "jobs" / "tune_pet2ct.py")
    (tmp_path / "space.yaml").write_text(SHORT)
    arguments = ["--space", "space.yaml", "--study", "away", "--data", str(dicom), "--tracking-uri", server.uri]
    dying = command(home, job, *arguments)
    dying.until(r"trial 0: epoch 2/6")
    server.kill()
    dying.until(r"trial 1: epoch 3/6")
    dying.kill()
    server.start()
    giving_up = command(home, "-c", IMPATIENT, job, *arguments)
    giving_up.until(r"trial 3: epoch 1/6")  # 2 is 1 again
    server.kill()
    giving_up.until(r"sending the remaining results to MLflow \(\d+ calls\), for 8 s at most")
    assert giving_up.end() == 1, giving_up.text
    assert "[E-SEARCH-04]" in giving_up.text
    server.start()
    last = command(home, job, *arguments)
    assert last.end() == 0, last.text
    assert "3 of 3 trials done" in last.text
    refuse_any_loss(server, home, trials=3, epochs=SHORT_EPOCHS)
