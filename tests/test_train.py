"""`medgan train` as a person runs it, on real phantoms and a real MLflow store: its result, and what a stop leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import pydicom
import pytest
import torch
from safetensors.torch import load_file

from medgan.build.testing import measure_on_test
from medgan.build.training import build_training
from medgan.cli import main
from medgan.data.dataset import PreparedDataset
from medgan.data.phantoms import write_phantoms
from medgan.engine.checkpoint import read_history
from medgan.engine.loop import save_epoch, train_epoch
from medgan.engine.runtime import SingleProcess
from medgan.metrics.table import overall_means
from medgan.presets.table import configured
from medgan.terminal import only_driver

LIMIT_S = 120
TINY = {"data.size": 32, "generator.base_channels": 4}
LEARNING = {"train.seed": 2, "optim.generator_lr": 5e-3}
"""With these a few epochs are enough to become better with each pair of them, whatever the processor."""
MODEL = "medgan-pet2ct-phantom"


def command(preset: str, data: Path, home: Path, **settings) -> list[str]:
    """The arguments of a small training; dots of settings are written as two underscores."""
    values = TINY | {name.replace("__", "."): value for name, value in settings.items()}
    fixed = [part for path, value in values.items() for part in ("--set", f"{path}={value}")]
    return ["train", "--preset", preset, "--data", str(data), "--quick", "--output", str(home), *fixed]


class Started:
    """A command as a person starts it, its output line by line."""

    def __init__(self, arguments: list[str]) -> None:
        self.lines: list[str] = []
        unset = ("RAY_ADDRESS", "COLUMNS", "MLFLOW_TRACKING_URI")
        outside = {name: value for name, value in os.environ.items() if name not in unset}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medgan.cli", *arguments],
            env=outside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a shell that runs the tests in the background has them, and their children, ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def until(self, pattern: str) -> str:
        """Reads on until a line matches."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} never came:\n{self.text}")

    def end(self) -> int:
        """The exit code."""
        self.lines += self.process.communicate(timeout=LIMIT_S)[0].splitlines()
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(*arguments) -> tuple[int, str]:
    """Runs a command in this process: its exit code, and all it wrote, by Python or past it."""
    kept = os.dup(1), os.dup(2)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile("w+", buffering=1) as sink:
        patch.setattr(sys, "argv", ["medgan", *map(str, arguments)])
        patch.setattr(sys, "stdout", sink)
        patch.setattr(sys, "stderr", sink)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow itself sets it, and medgan would look there
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


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The output folder of `trained`."""
    return tmp_path_factory.mktemp("trained") / "home"


@pytest.fixture(scope="module")
def trained(dicom, home):
    """What a finished training of two epochs wrote to the terminal; it is `home`'s first."""
    job = Started(command("unet_l1", dicom, home, train__epochs=2))
    assert job.end() == 0, job.text
    return job.text


def name_in(text: str) -> str:
    """The training's name, from the plan."""
    return re.search(r"^training  (\S+), up to", text, re.MULTILINE)[1]


def store(home: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")


def run_named(home: Path, name: str):
    """The MLflow run of a training; there is exactly one."""
    experiment = store(home).get_experiment_by_name("medgan/pet2ct-phantom")
    (found,) = store(home).search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return found


def versions(home: Path, name: str):
    """The registered versions of a training, oldest first."""
    run_id = run_named(home, name).info.run_id
    found = store(home).search_model_versions(f"name = '{MODEL}' and run_id = '{run_id}'")
    return sorted(found, key=lambda version: int(version.version))


def same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def registered_generator(home: Path, version: str) -> Path:
    """The weights that a version holds."""
    source = store(home).get_model_version_download_uri(MODEL, version).removeprefix("file://")
    (weights,) = Path(source).rglob("generator.safetensors")
    return weights


def best_generator(home: Path, name: str) -> Path:
    return home / "checkpoints" / name / "best.safetensors"


def without_times(history):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in history]


def test_the_terminal_tells_the_plan_every_epoch_the_test_and_what_to_do_next(trained, home):
    name = name_in(trained)
    assert name.startswith("unet_l1-")
    assert "up to 2 epochs" in trained
    assert re.search(
        r"^data +phantoms: 3 train patients \(24 slices\), 1 validation .* 2 test .* 32 px of", trained, re.M
    )
    assert re.search(r"^features +none$", trained, re.M)
    assert re.search(r"^workers +one process$", trained, re.M)
    assert re.search(rf"^output +{home}/checkpoints/{name} \(log: logs/{name}.log\)$", trained, re.M)
    assert "no effect" not in trained
    one = r"val/ssim -?\d\.\d{3}, MAE \d+(\.\d+)? HU, \d+\.\d s; best -?\d\.\d{3}"
    assert re.search(rf"^epoch 1/2: {one}, about \d+ s left$", trained, re.M)
    assert re.search(rf"^epoch 2/2: {one}, done$", trained, re.M)
    assert re.search(r"^2 held-out test patients, generator of epoch [12]; spread: over patients$", trained, re.M)
    assert re.search(r"^test metric +mean +spread +mean image", trained, re.M)
    for metric in ("ssim", "psnr (dB)", "mse (of 0..255)", "mae_hu_body"):
        assert re.search(rf"^{re.escape(metric)}( +-?[\d.e+]+){{3}} *$", trained, re.M), metric
    assert f"Registered {MODEL} version 1. For research only; not for diagnosis." in trained
    assert f"Pictures: {home}/checkpoints/{name}/validation.png" in trained
    assert f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db" in trained
    assert f"medgan translate --model models:/{MODEL}/1 --output {home} SOURCE_FOLDER OUT_FOLDER" in trained
    assert "--set train.epochs=N" in trained


def test_mlflow_holds_one_run_with_parameters_every_epoch_the_test_and_pictures(trained, home):
    client, found = store(home), run_named(home, name_in(trained))
    assert found.info.status == "FINISHED"
    assert found.data.params["preset"] == "unet_l1"
    assert (found.data.params["train.epochs"], found.data.params["data.size"]) == ("2", "32")
    assert {"loss.lambda_l1", "generator.depth", "extractor.weights", "optim.beta1"} <= found.data.params.keys()
    assert found.data.tags["medgan.preset"] == "unet_l1"
    assert found.data.tags["medgan.state"] == "complete"
    assert {"medgan.data_digest", "medgan.commit", "medgan.task"} <= found.data.tags.keys()
    history = read_history(home / "checkpoints" / name_in(trained))
    for metric in ("loss/generator/l1", "loss/generator/l1_weighted", "val/ssim", "val/mae_hu_body", "time/epoch_s"):
        logged = client.get_metric_history(found.info.run_id, metric)
        assert [point.step for point in logged] == [1, 2], metric
        assert [point.value for point in logged] == [row[metric] for row in history], metric
    shown = float(re.search(r"^ssim +(\S+)", trained, re.M)[1])
    assert found.data.metrics["test/ssim"] == pytest.approx(shown, rel=1e-3)
    assert {"test/psnr", "test/mse", "test/mae_hu", "test/mae_hu_body"} <= found.data.metrics.keys()
    assert [file.path for file in client.list_artifacts(found.info.run_id, "pictures")] == ["pictures/validation.png"]


def test_the_version_holds_the_best_generator_and_no_alias_names_it(trained, home):
    (version,) = versions(home, name_in(trained))
    assert version.version in ("1", 1)
    assert store(home).get_registered_model(MODEL).aliases == {}
    assert version.tags["test/ssim"] == f"{run_named(home, name_in(trained)).data.metrics['test/ssim']:.5g}"
    assert same_weights(registered_generator(home, version.version), best_generator(home, name_in(trained)))


def test_the_version_translates_a_phantom(trained, home, dicom, tmp_path):
    source = dicom / "PHANTOM-0002" / "PT"
    code, said = run("translate", source, tmp_path / "out", "--model", f"models:/{MODEL}/1", "--output", home)
    assert code == 0, said
    written = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(list(source.iterdir()))
    assert {(image.Modality, image.SyntheticData, image.PatientID) for image in written} == {
        ("CT", "YES", "PHANTOM-0002")
    }


def test_the_same_command_again_gives_the_same_result_without_training(trained, home, dicom):
    last = home / "checkpoints" / name_in(trained) / "last.safetensors"
    before = last.stat().st_mtime_ns
    code, again = run(*command("unet_l1", dicom, home, train__epochs=2))
    assert code == 0, again
    assert not re.search(r"^epoch ", again, re.M)
    assert last.stat().st_mtime_ns == before
    result = trained[trained.index("2 held-out") :]
    assert [line.rstrip() for line in again[again.index("2 held-out") :].splitlines()] == [
        line.rstrip() for line in result.splitlines()
    ]
    assert len(versions(home, name_in(trained))) == 1
    assert run_named(home, name_in(trained)).info.status == "FINISHED"


def test_no_patient_and_no_source_folder_is_named_outside_the_dicom_itself(trained, home, dicom):
    for path in home.rglob("*"):
        assert "PHANTOM-00" not in str(path)
        if path.is_file():
            assert b"PHANTOM-00" not in path.read_bytes(), path
            assert str(dicom).encode() not in path.read_bytes(), path


def test_a_second_driver_of_the_same_training_is_refused(trained, home, dicom):
    name = name_in(trained)
    with only_driver(home / "logs" / f"{name}.lock", name):
        code, said = run(*command("unet_l1", dicom, home, train__epochs=2))
    assert code == 2
    assert re.search(
        rf"^error: .*{name}: already run by process {os.getpid()} on .*, since .*; wait for it$", said, re.M
    )


def test_settings_without_effect_on_the_networks_are_named_in_the_plan(dicom, home, trained):
    settings = {"generator__network": "resnet", "generator__block": "residual", "generator__depth": 3}
    code, said = run(*command("unet_l1", dicom, home, train__epochs=1, **settings))
    assert code == 0, said
    assert re.search(r"^no effect +generator\.block, generator\.depth on these networks$", said, re.M)


def test_settings_of_networks_that_are_not_built_are_named_in_the_plan(dicom, home, trained):
    settings = {"discriminator__patch": 16, "discriminator__norm": "none", "extractor__network": "alexnet"}
    code, said = run(*command("unet_l1", dicom, home, train__epochs=1, **settings))
    assert code == 0, said
    named = re.search(r"^no effect +(.*) on these networks$", said, re.M)
    assert named, said
    assert set(named[1].split(", ")) == {"discriminator.patch", "discriminator.norm", "extractor.network"}


def test_minutes_end_a_training_early(dicom, home, trained):
    code, said = run(*command("unet_l1", dicom, home, train__epochs=500, train__minutes=0.00001, train__seed=1))
    assert code == 0, said
    assert "up to 500 epochs or 1e-05 min" in said
    assert re.findall(r"^epoch (\S+):.* (\w+)$", said, re.M) == [("1/500", "done")]


def test_a_training_that_diverges_ends_with_the_reason_in_terminal_and_mlflow(dicom, home, trained):
    settings = {"loss__adversarial": "lsgan", "optim__generator_lr": 1e30, "train__epochs": 3}
    code, said = run(*command("cgan", dicom, home, **settings))
    assert code == 1
    name = name_in(said)
    assert re.search(rf"^failed: {name} diverged: .*(is nan|is inf|not finite)", said, re.M), said
    assert "Traceback" not in said
    found = run_named(home, name)
    assert found.info.status == "FAILED"
    assert found.data.tags["medgan.state"] == "diverged"
    assert re.search("is nan|is inf|not finite", found.data.tags["medgan.reason"])
    assert f"failed: {name} diverged: {found.data.tags['medgan.reason']}" in said
    assert versions(home, name) == []


def test_a_training_without_memory_ends_with_the_settings_that_need_less(dicom, home, trained, monkeypatch):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("medgan.train.train_epoch", refuse)
    code, told = run(*command("unet_l1", dicom, home, train__seed=7))
    assert code == 1
    assert re.search(
        r"^failed: \S+ out_of_memory: out of memory with train.batch_size=\d+ at 32 px, about ", told, re.M
    )
    assert run_named(home, name_in(told)).data.tags["medgan.state"] == "out_of_memory"


@pytest.fixture(scope="module")
def extended(dicom, home, trained):
    """Terminal of two epochs, and of the same command with four."""
    settings = {name.replace(".", "__"): value for name, value in LEARNING.items()}
    ended = [run(*command("unet_l1", dicom, home, train__epochs=epochs, **settings)) for epochs in (2, 4)]
    assert [code for code, _ in ended] == [0, 0], ended
    return [said for _, said in ended]


@pytest.fixture(scope="module")
def uninterrupted(home, trained, tmp_path_factory):
    """The folder of a training of four epochs in one go, and its test metrics."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = configured("unet_l1", {**TINY, **LEARNING, "train.epochs": 4}, small=True)
    (manifest,) = home.glob("datasets/*/dataset.json")
    dataset = PreparedDataset.open(manifest.parent)
    training = build_training(config, dataset, SingleProcess(), folder=folder)
    while training.length.progress(training.state.history) < 1:
        train_epoch(training)
        save_epoch(training, folder)
    return folder, overall_means(measure_on_test(config, folder / "best.safetensors", dataset, SingleProcess())[0])


def test_more_epochs_go_on_from_the_checkpoint(extended, home):
    shorter, longer = extended
    name = name_in(longer)
    assert name == name_in(shorter)
    assert re.search("^continues after epoch 2, from its checkpoint$", longer, re.M)
    assert re.findall(r"^epoch (\S+):", longer, re.M) == ["3/4", "4/4"]
    steps = [point.step for point in store(home).get_metric_history(run_named(home, name).info.run_id, "val/ssim")]
    assert steps == [1, 2, 3, 4]


def test_training_on_ends_bit_for_bit_where_an_uninterrupted_training_does(extended, home, uninterrupted):
    name, (folder, test) = name_in(extended[1]), uninterrupted
    histories = [without_times(read_history(one)) for one in (home / "checkpoints" / name, folder)]
    assert len(histories[0]) == 4
    assert histories[0] == histories[1]
    assert same_weights(best_generator(home, name), folder / "best.safetensors")
    logged = run_named(home, name).data.metrics
    assert {metric: logged[f"test/{metric}"] for metric in test} == test


def test_training_on_registers_what_was_learned_meanwhile(extended, home):
    name = name_in(extended[1])
    values = [row["val/ssim"] for row in read_history(home / "checkpoints" / name)]
    assert max(values[2:]) > max(values[:2]), "the later epochs must be better, else this shows nothing"
    first, second = versions(home, name)
    assert same_weights(registered_generator(home, second.version), best_generator(home, name))
    assert not same_weights(registered_generator(home, first.version), best_generator(home, name))
    assert f"Registered {MODEL} version {first.version}." in extended[0]
    assert f"Registered {MODEL} version {second.version}." in extended[1]
    ssims = [re.search(r"^ssim +(\S+)", text, re.M)[1] for text in extended]
    told = [float(version.tags["test/ssim"]) for version in (first, second)]
    assert told == pytest.approx([float(ssim) for ssim in ssims], rel=1e-3)


def test_mlflow_says_how_long_a_training_that_went_on_is(extended, home):
    found = run_named(home, name_in(extended[1]))
    assert found.data.params["train.epochs"] == "4" or found.data.tags.get("medgan.epochs") == "4"


def test_where_the_length_shapes_the_schedule_another_length_is_another_training(dicom, home, trained):
    settings = {"optim__schedule": "cosine"}
    (one, shorter), (two, longer) = (
        run(*command("unet_l1", dicom, home, train__epochs=epochs, **settings)) for epochs in (1, 2)
    )
    assert (one, two) == (0, 0)
    assert name_in(shorter) != name_in(longer)
    assert re.findall(r"^epoch (\S+):", longer, re.M) == ["1/2", "2/2"]


@pytest.mark.timeout(LIMIT_S)
def test_ctrl_c_keeps_whole_epochs_and_the_same_command_goes_on(dicom, home, trained):
    arguments = command("unet_l1", dicom, home, train__epochs=60, train__seed=3)
    job = Started(arguments)
    job.until(r"^epoch 2/60")
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.text
    assert job.lines[-1] == "Stopped. What was finished is kept; the same command goes on from there."
    assert "Traceback" not in job.text
    name = name_in(job.text)
    stopped = run_named(home, name)
    assert stopped.info.status == "KILLED"
    assert stopped.data.tags["medgan.state"] != "running"
    assert versions(home, name) == []
    done = len(read_history(home / "checkpoints" / name))
    assert 2 <= done < 60
    code, said = run(*arguments)
    assert code == 0, said
    assert f"continues after epoch {done}, from its checkpoint" in said
    assert re.search(rf"^epoch {done + 1}/60", said, re.M) and not re.search(rf"^epoch {done}/60", said, re.M)
    assert len(read_history(home / "checkpoints" / name)) == 60
    finished = run_named(home, name)
    assert (finished.info.status, finished.data.tags["medgan.state"]) == ("FINISHED", "complete")
    steps = [point.step for point in store(home).get_metric_history(finished.info.run_id, "val/ssim")]
    assert steps == list(range(1, 61))


def test_settings_are_recorded_by_the_same_dotted_paths_that_set_accepts(trained, home):
    code, said = run("inspect", "--preset", "unet_l1", "--quick", "--settings")
    assert code == 0
    paths = re.findall(r"^((?:data|generator|discriminator|loss|extractor|optim|train|metrics)\.\w+) ", said, re.M)
    assert {*paths, "preset"} == set(run_named(home, name_in(trained)).data.params)
    assert json.loads(run_named(home, name_in(trained)).data.params["loss.content_blocks"]) == [1, 2]
