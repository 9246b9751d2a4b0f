"""Trainings by the command line on real phantoms with a real MLflow store, and the content of their output folder."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from medgan.cli.main import main
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.training.checkpoint import read_history

LIMIT_S = 120


class Started:
    """A command in a new process, and its output line by line."""

    def __init__(self, arguments: list[str]) -> None:
        self.lines: list[str] = []
        unset = ("RAY_ADDRESS", "COLUMNS", "MLFLOW_TRACKING_URI")
        outside = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medgan.cli.main", *arguments],
            env=outside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a test run in the background ignores Ctrl-C, and so would its child processes
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def until(self, pattern: str) -> str:
        """Reads the output until a line matches; returns this line."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} is missing in the output:\n{self.text}")

    def end(self) -> int:
        """Waits for the end; returns the exit code."""
        self.lines += self.process.communicate(timeout=LIMIT_S)[0].splitlines()
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Kept:
    """The content of an output folder: histories, MLflow runs and registered versions of its trainings."""

    model = "medgan-pet2ct-phantom"

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def store(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.home / 'mlflow.db'}")

    def history(self, name: str) -> list[dict[str, float]]:
        return read_history(self.home / "checkpoints" / name)

    def run_named(self, name: str):
        """Returns the only MLflow run of a training."""
        experiment = self.store.get_experiment_by_name("medgan/pet2ct-phantom")
        (found,) = self.store.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        return found

    def versions(self, name: str):
        """Returns the registered versions of a training, oldest first."""
        run_id = self.run_named(name).info.run_id
        found = self.store.search_model_versions(f"name = '{self.model}' and run_id = '{run_id}'")
        return sorted(found, key=lambda version: int(version.version))

    def registered_generator(self, version: str) -> Path:
        """Returns the weights file of a version."""
        source = self.store.get_model_version_download_uri(self.model, version).removeprefix("file://")
        (weights,) = Path(source).rglob("generator.safetensors")
        return weights

    def best_generator(self, name: str) -> Path:
        return self.home / "checkpoints" / name / "best.safetensors"


@pytest.fixture(scope="session")
def started() -> type[Started]:
    """`started(arguments)`: starts the command in a new process."""
    return Started


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[int, str]]:
    """`run(*arguments)`: runs a command in this process; returns its exit code and all output, also of libraries."""

    def in_this_process(*arguments) -> tuple[int, str]:
        kept = os.dup(1), os.dup(2)
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile("w+", buffering=1) as sink:
            patch.setattr(sys, "argv", ["medgan", *map(str, arguments)])
            patch.setattr(sys, "stdout", sink)
            patch.setattr(sys, "stderr", sink)
            patch.delenv("RAY_ADDRESS", raising=False)
            patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets this variable, and medgan reads it
            for descriptor in (1, 2):
                os.dup2(sink.fileno(), descriptor)
            try:
                with pytest.raises(SystemExit) as stop:
                    main()
            finally:
                for descriptor, original in zip((1, 2), kept, strict=True):
                    os.dup2(original, descriptor)
                    os.close(original)
            sink.seek(0)
            return stop.value.code or 0, sink.read()

    return in_this_process


@pytest.fixture(scope="session")
def name_in() -> Callable[[str], str]:
    """`name_in(text)`: the name of the training, as the plan prints it."""
    return lambda text: re.search(r"^training  (\S+), up to", text, re.MULTILINE)[1]


@pytest.fixture(scope="session")
def same_weights() -> Callable[[Path, Path], bool]:
    """`same_weights(one, other)`: whether two files hold the same tensors, bit for bit."""

    def same(one: Path, other: Path) -> bool:
        ours, theirs = load_file(one), load_file(other)
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    return same


@pytest.fixture(scope="session")
def tiny() -> dict[str, int]:
    """The settings that make a training small."""
    return {"data.size": 32, "generator.base_channels": 4}


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The output folder of `trained`."""
    return tmp_path_factory.mktemp("trained") / "home"


@pytest.fixture(scope="module")
def command(dicom, home, tiny) -> Callable[..., list[str]]:
    """`command(preset, **settings)`: the arguments of a small training; dots are written as two underscores."""

    def arguments(preset: str, **settings) -> list[str]:
        values = tiny | {name.replace("__", "."): value for name, value in settings.items()}
        fixed = [part for path, value in values.items() for part in ("--set", f"{path}={value}")]
        return ["train", "--preset", preset, "--data", str(dicom), "--quick", "--output", str(home), *fixed]

    return arguments


@pytest.fixture(scope="module")
def kept(home) -> Kept:
    """The content of the output folder."""
    return Kept(home)


@pytest.fixture(scope="module")
def trained(home, command, started):
    """The terminal output of a finished training of two epochs, the first training in `home`."""
    job = started(command("unet_l1", train__epochs=2))
    assert job.end() == 0, job.text
    return job.text
