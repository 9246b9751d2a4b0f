"""A store that is away is distinguished from a store that refuses; calls wait for it, up to a time limit."""

import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from refusal import refusal

from medgan.errors import JobError
from medgan.tracking import outage
from medgan.tracking.outage import is_away, retry_while_away
from medgan.tracking.tracker import Background


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(outage, "PAUSE_S", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture
def answering():
    """Returns a function of a status: the address of a server that always answers so; None: that never answers."""
    servers = []

    def start(status):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                if status is None:
                    servers[0].released.wait(20)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_): ...

        server = HTTPServer(("127.0.0.1", 0), Answer)
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


def error_of(uri):
    with pytest.raises(MlflowException) as caught:
        MlflowClient(tracking_uri=uri).get_run("a" * 32)
    return caught.value


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("status", "away"), [(None, True), (502, True), (503, True), (504, True), (400, False), (404, False), (500, False)]
)
def test_is_away_is_true_without_answer_and_false_for_refusal(answering, status, away):
    assert is_away(error_of(answering(status))) == away


def test_is_away_is_true_where_nobody_listens():
    with socket.socket() as bound:  # does not listen
        bound.bind(("127.0.0.1", 0))
        assert is_away(error_of(f"http://127.0.0.1:{bound.getsockname()[1]}"))


def test_is_away_is_true_for_busy_database_and_false_for_unknown_run(tmp_path):
    assert is_away(MlflowException("database is locked", TEMPORARILY_UNAVAILABLE))
    assert not is_away(error_of(f"sqlite:///{tmp_path / 'mlflow.db'}"))


def failing(times, error):
    """Returns a call that fails so many times, and then returns the number of the call."""
    tried = []

    def call():
        tried.append(1)
        if len(tried) <= times:
            raise error
        return len(tried)

    return call


def test_retry_repeats_call_and_reports_outage_and_return_once():
    reported = []
    assert retry_while_away(failing(3, ConnectionError("gone")), say=reported.append) == 4
    assert [text.split(",")[0].split(";")[0] for text in reported] == ["MLflow does not answer", "MLflow answers again"]


def test_retry_does_not_repeat_refused_call():
    call = failing(1, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        retry_while_away(call, say=print)
    assert call() == 2


def test_retry_fails_after_time_limit():
    with pytest.raises(JobError, check=refusal("E-MLFLOW-03", duration="0 s", reason_of="gone")):
        retry_while_away(failing(10**9, ConnectionError("gone")), say=print, limit_s=0.05)


def test_reason_of_hides_password():
    assert "secret" not in outage.reason_of(ConnectionError("http://me:secret@host/ is away"))


@pytest.mark.timeout(60)
def test_background_calls_wait_in_order_and_none_is_skipped():
    taken, background = [], Background(lambda text: None)
    first = failing(3, ConnectionError("gone"))
    background.do(lambda: taken.append(first()))
    for number in range(3):
        background.do(taken.append, f"later {number}")
    assert background.close(30)
    assert taken == [4, "later 0", "later 1", "later 2"]


@pytest.mark.timeout(60)
def test_background_close_waits_within_limit_and_reports_calls_left(monkeypatch):
    monkeypatch.setattr("medgan.tracking.tracker.SOON_S", 0.1)
    reported, taken = [], []
    background = Background(reported.append)
    background.do(failing(10**9, ConnectionError("gone")))
    background.do(taken.append, "never")
    assert not background.close(0.3)
    assert (background.late, taken) == (2, [])
    assert "(2 calls)" in reported[1] and "0 s at most" in reported[1]
    background.thread.join(10)
    assert not background.thread.is_alive()


SILENCED = """
import sys
from mlflow import MlflowClient
from medgan.tracking import mlflow_runs, tracker
from medgan.tracking.store import opened

tracker.SOON_S = mlflow_runs.CLOSING_S = 0.2
store, silent = sys.argv[1:]
study = mlflow_runs.MlflowStudy(store, "medgan/x", artifacts=mlflow_runs.Path.cwd(), study="s", key="k")
with opened(silent) as study.run.client:
    background = tracker.Background(print)
    background.do(study.run.tags, {"medgan.state": "running"})
    assert not background.close(0.5)
    print("ending", flush=True)
    study.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
"""


@pytest.mark.timeout(100)
def test_silent_server_does_not_delay_end_of_process(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = [f"sqlite:///{tmp_path / 'mlflow.db'}", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        job = subprocess.Popen([sys.executable, "-c", SILENCED, *arguments], stdout=subprocess.PIPE, text=True)
        with job:
            while (line := job.stdout.readline()) and line != "ending\n":
                pass
            began = time.monotonic()
            code = job.wait(90)
    assert (line, code) == ("ending\n", 0)
    assert time.monotonic() - began < 15  # one call alone waits 30 s


@pytest.mark.timeout(60)
def test_background_counts_refused_call_and_makes_next_call():
    taken, background = [], Background(lambda text: None)
    background.do(failing(10**9, ValueError("refused")))
    background.do(taken.append, "next")
    assert not background.close(30)
    assert (background.failures, background.late, taken) == (1, 0, ["next"])
