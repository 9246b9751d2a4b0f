"""`prepare` that is killed, loses a worker or fills the disk leaves no process and no incomplete data set."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from medgan.data.manifest import read_manifest
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.tasks import TASKS

SCRIPT = """
import sys
from pathlib import Path
from medgan.data.prepare import prepare_dataset as module
from medgan.errors import JobError
from medgan.tasks import TASKS
def progress(done, total):
    print(done, flush=True)
if __name__ == "__main__":
    request = module.PrepareRequest(Path(sys.argv[1]), TASKS["pet2ct"], 32, Path(sys.argv[2]), processes=2)
    try:
        module.prepare(request, progress)
    except JobError as error:
        print(f"failed: [{error.code}] {error}", flush=True)
"""
WAITING = SCRIPT.replace("print(done, flush=True)", "print(done, flush=True); sys.stdin.readline()")


def children(pid):
    """Returns the processes that a process has started, and those that they have started."""
    found = [int(one) for one in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()]
    return found + [one for child in found for one in children(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_killed_prepare_leaves_no_process_and_can_continue(phantoms, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WAITING)
    out = tmp_path / "out"
    command = [sys.executable, script, phantoms, out]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert job.stdout.readline().strip() == "1"
    workers = children(job.pid)
    job.kill()
    job.wait(10)
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    assert not list(out.rglob("dataset.json"))
    assert len(read_manifest(prepare(PrepareRequest(phantoms, TASKS["pet2ct"], 32, out))).patients) == 6
    assert not list(out.rglob("*.part"))


def test_prepare_reports_killed_worker_process(phantoms, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WAITING)
    command = [sys.executable, script, phantoms, tmp_path / "out"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert job.stdout.readline().strip() == "1"
    for worker in children(job.pid):
        os.kill(worker, signal.SIGKILL)
    output, _ = job.communicate("\n" * 9, timeout=60)
    assert "failed: [E-PREPARE-08] one of 2 worker processes was killed" in output or output.split()[-1] == "6"


def test_prepare_ends_without_traceback_on_ctrl_c_during_imports(phantoms, tmp_path):
    command = [sys.executable, "-m", "medgan.cli.main", "prepare", phantoms, "--out", tmp_path / "out"]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"MEDGAN_HOME": str(tmp_path / "home")},
        # a shell that runs the tests in the background lets them and their children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not any(b"forkserver" in command_of(child) for child in children(job.pid)) and time.monotonic() < deadline:
        pass  # from here on the server imports for a while, as the first process does
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 130
    assert not errors.strip()


def test_prepare_reports_full_disk_and_leaves_no_data_set(phantoms, tmp_path):
    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, phantoms, tmp_path / "out"]
    job = subprocess.run(command, capture_output=True, text=True, timeout=100, preexec_fn=little_room)
    assert f"failed: [E-PREPARE-03] {tmp_path / 'out'}: File too large" in job.stdout, job.stderr
    assert "Finished patients are kept; run the same command again" in job.stdout
    assert not list((tmp_path / "out").rglob("dataset.json"))
