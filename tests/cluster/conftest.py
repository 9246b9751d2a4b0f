"""Real jobs for the tests of this folder: started as a person starts them, read line by line, looked into, killed."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medgan.data.phantoms.phantom_patients import write_phantoms

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 200
ELSEWHERE = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")


class Job:
    """A command as a person starts it, its output line by line.

    Args:
        home: its MEDGAN_HOME, by which its processes are known.
        arguments: of the Python interpreter.
        environment: beside the test's own.
    """

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        self.home, self.lines, self.read = home, [], 0
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=home.parent,
            env={**own, "MEDGAN_HOME": str(home), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._listen, daemon=True)
        self.reader.start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip())
                self.changed.notify_all()

    def until(self, pattern: str, limit_s: float = LIMIT_S) -> str:
        """Reads on until a line matches."""
        end = time.monotonic() + limit_s
        with self.changed:
            while time.monotonic() < end:
                for line in self.lines[self.read :]:
                    self.read += 1
                    if re.search(pattern, line):
                        return line
                if not self.reader.is_alive():
                    break
                self.changed.wait(0.5)
        raise AssertionError(f"{pattern!r} never came:\n{self.text}")

    def tell(self, line: str) -> None:
        """Writes a line to its standard input."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self, limit_s: float = LIMIT_S) -> int:
        """The exit code; a job that takes longer is ended with all its processes."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"not at its end within {limit_s:.0f} s:\n{self.text}") from None
        self.reader.join(10)
        return code

    def kill(self) -> None:
        """Ends the command itself as a crash would; not what it started."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Process:
    """A process, told from a later one of the same id by when it began, in ticks since the machine did."""

    pid: int
    parent: int
    began: int

    @property
    def is_alive(self) -> bool:
        return _read(self.pid) == self

    @property
    def command(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _read(pid: int) -> Process | None:
    try:
        state, parent, *_ = numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else Process(pid, int(parent), int(numbers[19]))


def _alive() -> list[Process]:
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [process for pid in pids if (process := _read(pid))]


def _is_of(home: Path, process: Process) -> bool:
    try:
        return f"MEDGAN_HOME={home}\0".encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return False


@pytest.fixture(scope="session")
def processes_of() -> Callable[..., list[Process]]:
    """`processes_of(home, title)`: live processes with this MEDGAN_HOME, and the title in their command line."""
    return lambda home, title="": [one for one in _alive() if title in one.command and _is_of(home, one)]


@pytest.fixture(scope="session")
def workers_of(processes_of) -> Callable[[Path], list[Process]]:
    """`workers_of(home)`: the live Ray Train workers of the job with this MEDGAN_HOME."""
    return lambda home: processes_of(home, "RayTrainWorker")


@pytest.fixture(scope="session")
def descendants() -> Callable[[int], set[Process]]:
    """`descendants(pid)`: the live processes below one, however far."""

    def below(pid: int) -> set[Process]:
        alive, found, parents = _alive(), set(), {pid}
        while new := {one for one in alive if one.parent in parents} - found:
            found, parents = found | new, {one.pid for one in new}
        return found

    return below


@pytest.fixture(scope="session")
def command() -> Iterator[Callable[..., Job]]:
    """`command(home, *arguments, **environment)`: starts Python with these; what still runs at last is ended."""
    started = []

    def start(*arguments: Any, **environment: str) -> Job:
        started.append(Job(*arguments, **environment))
        return started[-1]

    yield start
    for job in started:
        if job.process.poll() is None:
            job.kill()


@pytest.fixture(scope="session")
def search(command) -> Callable[..., Job]:
    """`search(home, space, *arguments)`: starts the main job on phantoms with a search space of its own."""

    def start(home: Path, space: str, *arguments: str, **environment: str) -> Job:
        (home.parent / "space.yaml").write_text(space)
        job = str(REPOSITORY / "jobs" / "tune_pet2ct.py")
        return command(home, job, "--space", "space.yaml", *arguments, **environment)

    return start


@pytest.fixture(scope="session")
def dicom(tmp_path_factory) -> Path:
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[str], str]]:
    """A real server on a port of its own; `postgresql(name)` makes a database and returns its address."""
    programs = [Path(shutil.which("postgres") or "/").resolve().parent, *Path("/usr/lib/postgresql").glob("*/bin")]
    found = next((folder for folder in programs if (folder / "initdb").exists()), None)
    if found is None:
        pytest.skip("no PostgreSQL server on this machine (postgres, initdb)")
    owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="medgan-postgresql-"))
    if owner:
        shutil.chown(folder, owner)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def run(program: str, *arguments: str) -> None:
        subprocess.run([found / program, *arguments], user=owner, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data, settings = str(folder / "data"), f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("initdb", "-D", data, "-U", "medgan", "-A", "trust", "--no-sync")
    run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", settings, "-w", "start")

    def make(name: str) -> str:
        run("createdb", "-h", "127.0.0.1", "-p", port, "-U", "medgan", name)
        return f"postgresql://medgan@127.0.0.1:{port}/{name}"

    yield make
    run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def limit_memory() -> Callable[[Process], None]:
    """`limit_memory(process)`: leaves a process 128 MiB of addresses beyond what it has now, until it ends."""

    def limit(process: Process) -> None:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (128 << 20)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))

    return limit
