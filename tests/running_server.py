"""A registry of small models, and `medgan serve` as a person starts it, with a client."""

import io
import socket
import time
import zipfile
from pathlib import Path

import pydicom
import requests

import medgan.inference
from medgan.config import Config
from medgan.inference.saved_model import ModelManifest, save_model
from medgan.registry.versions import point, register
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator

NAME = "medgan-pet2ct-phantom"
CHAMPION = f"models:/{NAME}@champion"
TAKEN_UP_S = 30
LIMIT_S = 60


def register_versions(home: Path, config: Config, num_versions: int) -> str:
    """A registry in a new home, with versions of different weights, the first of them champion; its address."""
    home.mkdir()
    uri = f"sqlite:///{home / 'mlflow.db'}"
    study = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=home / "artifacts", study="s", key="k")
    for number in range(1, num_versions + 1):
        manifest = ModelManifest(
            name=NAME,
            task="pet2ct",
            config=config.model_dump(mode="json"),
            spacing_mm=320 / config.data.size,
            size=config.data.size,
            source_window=(0.0, 10.0),
            target_window=(-1000.0, 2000.0),
            data_digest="d" * 64,
        )
        folder = home.parent / "models" / str(number)
        weights = {key: number * value for key, value in build_generator(config).state_dict().items()}
        save_model(folder, generator_state=weights, manifest=manifest)
        register(
            folder,
            name=NAME,
            run_id=study.trial(number).run_id,
            uri=uri,
            code=Path(medgan.inference.__file__).parent / "pyfunc.py",
            tags={},
            description="for research only",
        )
    point(NAME, "champion", "1", uri=uri)
    return uri


def zipped(series: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(series.iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()


class Server:
    """A running `medgan serve`."""

    def __init__(self, command, home):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.job = command(home, "-m", "medgan.cli.main", "serve", "--model", CHAMPION, "--port", str(port))
        self.job.until(f"{NAME} version 1 at {self.address}")
        self.headers = {"Authorization": f"Bearer {(home / 'serve.token').read_text().strip()}"}

    def health(self):
        return requests.get(f"{self.address}/health", timeout=LIMIT_S).json()

    def translate(self, body, limit_s=LIMIT_S):
        headers = {**self.headers, "Content-Type": "application/zip"}
        return requests.post(f"{self.address}/translate", body, headers=headers, timeout=limit_s)

    def until(self, **expected):
        """Waits until /health says so; the seconds that took."""
        began = time.monotonic()
        while not expected.items() <= self.health().items():
            assert time.monotonic() - began < TAKEN_UP_S, f"expected {expected}; got {self.health()}"
            time.sleep(0.2)
        return time.monotonic() - began


def voxels(files):
    return b"".join(file.PixelData for file in files)


def unzipped(response):
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]
