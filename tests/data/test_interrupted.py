"""Preparing that is killed, loses a worker or fills the disk leaves no process and no half-made data set."""

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
module.SLICES_WORTH_A_PROCESS = 1
def progress(done, total):
    print(done, flush=True)
if __name__ == "__main__":
    request = module.PrepareRequest(Path(sys.argv[1]), TASKS["pet2ct"], 32, Path(sys.argv[2]), processes=2)
    try:
        module.prepare(request, progress)
    except JobError as error:
        print("failed:", error, flush=True)
"""
WAITING = SCRIPT.replace("print(done, flush=True)", "print(done, flush=True); sys.stdin.readline()")


def children(pid):
    """Processes that a process has started, and what those have."""
    found = [int(one) for one in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()]
    return found + [one for child in found for one in children(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_killed_in_the_middle_it_leaves_no_process_and_goes_on(phantoms, tmp_path):
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


def test_a_killed_worker_ends_the_job_in_a_sentence(phantoms, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WAITING)
    command = [sys.executable, script, phantoms, tmp_path / "out"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert job.stdout.readline().strip() == "1"
    for worker in children(job.pid):
        os.kill(worker, signal.SIGKILL)
    said, _ = job.communicate("\n" * 9, timeout=60)
    assert "failed: a worker process was killed" in said or said.split()[-1] == "6"


def test_ctrl_c_while_all_processes_still_import_ends_without_a_traceback(phantoms, tmp_path):
    command = [sys.executable, "-m", "medgan.cli.main", "prepare", phantoms, "--out", tmp_path / "out"]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"MEDGAN_HOME": str(tmp_path / "home")},
        # a shell that runs the tests in the background has them, and their children, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not any(b"forkserver" in command_of(child) for child in children(job.pid)) and time.monotonic() < deadline:
        pass  # it imports for a while from here on, as the first process does
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 130
    assert not errors.strip()


def test_a_full_disk_ends_the_job_in_a_sentence_and_leaves_no_data_set(phantoms, tmp_path):
    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("module.SLICES_WORTH_A_PROCESS = 1", ""))
    command = [sys.executable, script, phantoms, tmp_path / "out"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, preexec_fn=little_room)
    assert "failed: " in said.stdout, said.stderr
    assert "File too large; what was finished is kept, the same command goes on" in said.stdout
    assert not list((tmp_path / "out").rglob("dataset.json"))
