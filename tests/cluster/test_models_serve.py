"""`mlflow models serve` as a person starts it: the same voxels as `medgan translate`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
import pytest

import medgan.inference
from medgan.config import Config, with_values
from medgan.data.prepare.resample import in_plane_grid, resample
from medgan.data.reader import find_series, read_volume
from medgan.inference.saved_model import ModelManifest, load_translator, save_model
from medgan.inference.translator import translate_slices
from medgan.registry.versions import point, register
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.training.build_networks import build_generator

NAME = "medgan-pet2ct-phantom"
SPACING_MM, SIZE = 6.0, 64
UP_S = 120

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An output folder whose store has a champion; its model lies beside the store."""
    home = tmp_path_factory.mktemp("served") / "home"
    home.mkdir()
    uri = f"sqlite:///{home / 'mlflow.db'}"
    config = with_values(Config(), {"data.size": SIZE, "generator.base_channels": 4})
    manifest = ModelManifest(
        name=NAME,
        task="pet2ct",
        config=config.model_dump(mode="json"),
        spacing_mm=SPACING_MM,
        size=SIZE,
        source_window=(0.0, 10.0),
        target_window=(-1000.0, 2000.0),
        data_digest="d" * 64,
    )
    save_model(home / "model", generator_state=build_generator(config).state_dict(), manifest=manifest)
    run = MlflowStudy(uri, "medgan/pet2ct-phantom", artifacts=home / "artifacts", study="s", key="k").run
    code = Path(medgan.inference.__file__).parent / "pyfunc.py"
    register(home / "model", name=NAME, run_id=run.run_id, uri=uri, code=code, tags={}, description="research only")
    point(NAME, "champion", "1", uri=uri)
    return home


@pytest.fixture(scope="module")
def ask(home, tmp_path_factory):
    """`ask(inputs, **params)`: what a server of the champion answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
            + ["--env-manager", "local", "-p", str(port)],
            cwd=log.parent,
            env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"},
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )

    def post(inputs: np.ndarray, **params) -> np.ndarray:
        content = json.dumps({"inputs": inputs.tolist(), "params": params}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", content, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answered:
            return np.array(json.load(answered)["predictions"], dtype=np.float32)

    try:
        end = time.monotonic() + UP_S
        while not _is_up(port):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield post
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def source(dicom):
    """The PET of one phantom."""
    return next(path for path in sorted(dicom.rglob("PT")) if path.is_dir())


def test_mlflow_models_serve_gives_the_voxels_of_translate(ask, home, source, command, tmp_path):
    translate = ["translate", str(source), str(tmp_path / "out"), "--model", f"models:/{NAME}@champion"]
    job = command(home, "-m", "medgan.cli.main", *translate, "--output", str(home))
    volume = read_volume(find_series(source)[0])
    grid = in_plane_grid(volume, spacing_mm=SPACING_MM, size=SIZE)
    served = ask(resample(volume, grid, 0.0).array)
    assert job.end() == 0, job.text
    (series,) = find_series(tmp_path / "out")
    derived = read_volume(series)
    column, row, first, _ = np.rint(np.linalg.inv(grid.affine) @ derived.affine[:, 3]).astype(int)
    _, rows, columns = derived.array.shape
    step = float(pydicom.dcmread(series.files[0]).RescaleSlope)
    assert first == 0 and np.ptp(derived.array) > 100 * step
    np.testing.assert_allclose(served[:, row : row + rows, column : column + columns], derived.array, atol=step)


@pytest.mark.parametrize("batch", [1, 3])
def test_mlflow_models_serve_agrees_with_network_in_any_batch_size(ask, home, batch):
    suv = np.random.default_rng(0).uniform(0, 10, (3, 30, 50)).astype(np.float32)
    hu = np.concatenate([ask(suv[start : start + batch]) for start in range(0, 3, batch)])
    model = load_translator(home / "model")
    np.testing.assert_allclose(hu, translate_slices(model, suv), atol=0.05)


def test_mlflow_models_serve_refuses_unusable_input(ask):
    for inputs, params in ((np.zeros((4, 4)), {}), (np.zeros((1, 4, 4)), {"window": [0.0, 5.0]})):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(inputs, **params)
        assert refused.value.code == 400
