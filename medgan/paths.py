"""Says where files are: in one output folder, which the same rule finds wherever a command is started."""

import os
import re
from dataclasses import dataclass
from pathlib import Path


def keep_private() -> None:
    """Makes all files that this process and its children write from now on readable by their owner only."""
    os.umask(0o077)


def is_remote(place: str) -> bool:
    """Says whether a place is a URL, not a path."""
    return "://" in place


@dataclass(frozen=True)
class Place:
    """Holds the output folder, and the addresses of the two stores that may lie elsewhere.

    Attributes:
        output: a folder that holds files of medgan only.
        tracking_uri: address of MLflow's store, for runs and registered models.
        study_uri: address of Optuna's database.
    """

    output: Path
    tracking_uri: str
    study_uri: str

    @property
    def owns_tracking(self) -> bool:
        """Says whether MLflow's store lies in the output folder."""
        return self.tracking_uri == f"sqlite:///{self.output / 'mlflow.db'}"

    @property
    def datasets(self) -> Path:
        """Returns the folder of the prepared data sets, their key and the patients' roles."""
        return self.output / "datasets"

    @property
    def artifacts(self) -> Path:
        """Returns the folder of MLflow's artifacts, unless a server keeps them."""
        return self.output / "mlflow-artifacts"

    def checkpoints(self, study: str) -> Path:
        """Returns the folder of a study's checkpoints, which holds one folder a trial."""
        return self.output / "checkpoints" / study

    def report(self, study: str) -> Path:
        """Returns the folder of a study's report: report.html and its pictures."""
        return self.output / "reports" / study

    def lock_file(self, study: str) -> Path:
        """Returns the lock file of a study; the one process that may run the study holds it."""
        return self.output / "logs" / f"{study}.lock"

    def log_file(self, study: str) -> Path:
        """Returns the log file of a study, with its events and the output of Ray, Optuna and MLflow."""
        return self.output / "logs" / f"{study}.log"


def find_place(output: Path | None = None, tracking_uri: str | None = None, study_uri: str | None = None) -> Place:
    """Returns the places that every command uses: the given one, else that of the environment, else the default.

    Args:
        output: the output folder; None: `$MEDGAN_HOME`, else `~/medgan`.
        tracking_uri: MLflow's store; None: `$MLFLOW_TRACKING_URI`, else `mlflow.db` in the output folder.
        study_uri: Optuna's database; None: `study.db` in the output folder.
    """
    folder = (output or Path(os.environ.get("MEDGAN_HOME") or "~/medgan")).expanduser().absolute()
    return Place(
        output=folder,
        tracking_uri=tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}",
        study_uri=study_uri or f"sqlite:///{folder / 'study.db'}",
    )


def redacted(uri: str) -> str:
    """Returns a store's address without its password, for terminals and logs."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", uri)
