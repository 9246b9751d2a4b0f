"""Where things go: one output folder, found by the same rule from wherever a command is started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


def is_remote(place: str) -> bool:
    """Whether a place is a URL, not a path."""
    return "://" in place


@dataclass(frozen=True)
class Place:
    """The output folder, and the two stores that may lie elsewhere.

    Attributes:
        output: everything below it is medgan's own.
        tracking_uri: MLflow's store, runs and registered models.
        study_uri: Optuna's database.
    """

    output: Path
    tracking_uri: str
    study_uri: str

    @property
    def owns_tracking(self) -> bool:
        """Whether MLflow's store lies in the output folder."""
        return self.tracking_uri == f"sqlite:///{self.output / 'mlflow.db'}"

    @property
    def datasets(self) -> Path:
        """Prepared data sets, their key and the patients' roles."""
        return self.output / "datasets"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts, unless a server keeps them."""
        return self.output / "mlflow-artifacts"

    def checkpoints(self, study: str) -> Path:
        """A study's checkpoints, one folder a trial below it."""
        return self.output / "checkpoints" / study

    def report(self, study: str) -> Path:
        """The report of a study: report.html and its pictures."""
        return self.output / "reports" / study

    def lock_file(self, study: str) -> Path:
        """Held by the one process that may train under this name."""
        return self.output / "logs" / f"{study}.lock"

    def log_file(self, study: str) -> Path:
        """What the engines say, and every event of a study."""
        return self.output / "logs" / f"{study}.log"


def find_place(output: Path | None = None, tracking_uri: str | None = None, study_uri: str | None = None) -> Place:
    """The rule of every command: what is given, else the environment, else below the output folder.

    Args:
        output: else `$MEDGAN_HOME`, else `~/medgan`.
        tracking_uri: else `$MLFLOW_TRACKING_URI`, else `mlflow.db` in the output folder.
        study_uri: else `study.db` in the output folder.
    """
    folder = (output or Path(os.environ.get("MEDGAN_HOME") or "~/medgan")).expanduser().absolute()
    return Place(
        output=folder,
        tracking_uri=tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}",
        study_uri=study_uri or f"sqlite:///{folder / 'study.db'}",
    )


def redacted(uri: str) -> str:
    """A store's address without its password, for terminals and logs."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", uri)
