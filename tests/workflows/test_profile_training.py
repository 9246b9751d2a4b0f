"""`medgan train --profile` on real phantoms: it prints times, keeps a trace, and trains nothing."""

import io
import json
import re
import sys

import pytest
import torch
from refusal import refusal
from rich.console import Console

from medgan.benchmark.step_profile import DATA, DISCRIMINATOR, EXTRACTOR, GENERATOR, LOSSES, OPTIMIZER, REST, TRACED
from medgan.cli.main import main
from medgan.cli.profile_view import show_profile
from medgan.cli.terminal import Terminal
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.errors import InputError, JobError
from medgan.paths import find_place
from medgan.tasks import TASKS
from medgan.training.build_networks import deepest_block
from medgan.training.build_training import build_training
from medgan.training.frozen_features import frozen_extractor
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.runtime import SingleProcess
from medgan.workflows.events import EnginesStart
from medgan.workflows.profile_training import profile
from medgan.workflows.train import TrainRequest, accepted

PARTS = (DATA, GENERATOR, DISCRIMINATOR, EXTRACTOR, LOSSES, OPTIMIZER, REST)
TINY = {
    "data.size": 32, "generator.base_channels": 2, "discriminator.base_channels": 2, "train.batch_size": 2,
    "train.accumulate": 2, "generator.recompute": "blocks", "generator.num_blocks": 2,
    "extractor.weights": "random",
}  # fmt: skip


@pytest.fixture(scope="module")
def request_in(tmp_path_factory):
    """`request_in(output)`: a request for a small MedGAN on phantoms, in this output folder."""
    dicom = write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=6, matrix=32)

    def made(output, **more):
        place = find_place(output, "sqlite:////nowhere/mlflow.db")
        return TrainRequest(TASKS["pet2ct"], place, data=str(dicom), quick=True, overrides=TINY, **more)

    return made


@pytest.fixture(scope="module")
def request_for(tmp_path_factory, request_in):
    """`request_for()`: the same request in one output folder, for all tests that train nothing."""
    output = tmp_path_factory.mktemp("profile") / "home"
    return lambda **more: request_in(output, **more)


@pytest.fixture(scope="module")
def profiled(request_for):
    """The printed text, and the folder of the training."""
    screen = Console(file=io.StringIO(), width=160)
    terminal = Terminal({EnginesStart: lambda *_: None}, screen)
    show_profile(screen, profile(request_for(), terminal))
    (folder,) = request_for().place.output.glob("checkpoints/*")
    return screen.file.getvalue(), folder


def test_profile_prints_time_and_share_of_every_part(profiled):
    text, _ = profiled
    rows = {part: re.search(rf"^{re.escape(part)} +([\d.e+]+) +([\d.]+)%$", text, re.MULTILINE) for part in PARTS}
    assert [part for part, row in rows.items() if row is None] == [], text
    assert all(float(row[1]) > 0 for row in rows.values())
    assert sum(float(row[2]) for row in rows.values()) == pytest.approx(100, abs=0.5)
    assert sum(float(row[1]) for row in rows.values()) == pytest.approx(
        float(
            re.search(r"^([\d.]+) ms a step while it is measured in parts, [\d.]+ ms otherwise$", text, re.MULTILINE)[1]
        ),
        rel=0.01,
    )


def test_profile_prints_ten_operators_with_calls(profiled):
    text, _ = profiled
    table = text[text.index("operator ") :].splitlines()[1:11]
    shares = [float(re.search(r" ([\d.]+)% +[\d.]+$", line)[1]) for line in table]
    assert shares == sorted(shares, reverse=True)
    assert "aten::" in table[0]
    assert not any(part in line for part in PARTS for line in table)


def test_profile_compares_arithmetic_with_peak(profiled):
    text, _ = profiled
    figures = re.search(
        r"([\d.]+) GFLOP a step \(convolutions and products\), ([\d.]+) GFLOP/s: ([\d.]+)% of a large b?float\d\d "
        r"product's ([\d.]+) GFLOP/s",
        text,
    )
    _, reached, share, peak = map(float, figures.groups())
    assert share == pytest.approx(100 * reached / peak, abs=0.06)
    assert 0 < share < 100


def test_trace_holds_all_parts(profiled):
    text, folder = profiled
    trace = folder / "profile" / "trace.json"
    assert f"{trace} (open it in " in text.replace("\n", "")
    events = json.loads(trace.read_text())["traceEvents"]
    names = [event.get("name") for event in events if event.get("cat") == "user_annotation"]
    optimizers = [name for name in names if name == OPTIMIZER]
    assert set(PARTS) - {REST} <= set(names), "the trace has no mark for the rest"
    assert len(optimizers) == TRACED * (3 + 1), "three updates of the generator a step, one of the discriminator"


def test_profile_trains_registers_and_logs_nothing(profiled, request_for):
    _, folder = profiled
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["trace.json"]
    assert {path.name for path in request_for().place.output.iterdir()} == {"checkpoints", "datasets"}


def test_profile_leaves_shared_extractor_unchanged(profiled, request_for):
    config, *_ = accepted(request_for())
    device = SingleProcess().device
    shared = frozen_extractor(config.extractor, deepest_block(config), device, config.train.precision)
    assert not shared._forward_hooks
    assert not shared._forward_pre_hooks


def test_profile_leaves_existing_training_unchanged(request_in, tmp_path):
    request = request_in(tmp_path / "home")
    config, dataset, name = accepted(request)
    folder = request.place.checkpoints(name)
    training = build_training(config, dataset, SingleProcess(), folder=folder)
    train_epoch(training)
    save_epoch(training, folder)
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    assert len(before) > 1
    profile(request)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_profile_without_memory_names_settings_that_need_less(request_for, monkeypatch):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("medgan.workflows.profile_training.profile_steps", refuse)
    with pytest.raises(JobError, check=refusal("E-PROFILE-02")) as error:
        profile(request_for())
    assert re.search(r"train\.batch_size=2 at 32 px, about \S+ GB ", str(error.value))


def test_profile_refuses_several_workers(request_for):
    with pytest.raises(InputError, check=refusal("E-PROFILE-01", workers=2)):
        profile(request_for(workers=2))


def test_train_command_refuses_profile_on_several_workers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["medgan", "train", "--profile", "--workers", "2", "--output", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --profile: ") and error.endswith("got 2. [E-PROFILE-01]\n")
    assert not (tmp_path / "o").exists()
