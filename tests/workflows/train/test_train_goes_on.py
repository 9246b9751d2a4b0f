"""A training that continues from its checkpoint, compared with one that was never interrupted."""

import re

import pytest

from medgan.data.dataset import PreparedDataset
from medgan.metrics.validation_metrics import overall_means
from medgan.presets.by_name import configured
from medgan.training.build_training import build_training
from medgan.training.checkpoint import read_history
from medgan.training.held_out import measure_on_test
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.runtime import SingleProcess

LEARNING = {"train.seed": 2, "optim.generator_lr": 5e-3}
"""With these settings, later epochs are better on every processor."""


@pytest.fixture(scope="module")
def extended(trained, command, run):
    """The output of a training of two epochs, and of the same command with four epochs."""
    settings = {name.replace(".", "__"): value for name, value in LEARNING.items()}
    ended = [run(*command("unet_l1", train__epochs=epochs, **settings)) for epochs in (2, 4)]
    assert [code for code, _ in ended] == [0, 0], ended
    return [output for _, output in ended]


@pytest.fixture(scope="module")
def uninterrupted(home, trained, tmp_path_factory, tiny):
    """The folder of a training of four epochs without interruption, and its test metrics."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = configured("unet_l1", {**tiny, **LEARNING, "train.epochs": 4}, small=True)
    (manifest,) = home.glob("datasets/*/dataset.json")
    dataset = PreparedDataset.open(manifest.parent)
    training = build_training(config, dataset, SingleProcess(), folder=folder)
    while training.length.progress(training.state.history) < 1:
        train_epoch(training)
        save_epoch(training, folder)
    return folder, overall_means(measure_on_test(config, folder / "best.safetensors", dataset, SingleProcess())[0])


def without_times(history):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in history]


def test_train_with_more_epochs_continues_from_checkpoint(extended, name_in, kept):
    shorter, longer = extended
    name = name_in(longer)
    assert name == name_in(shorter)
    assert re.search("^continues after epoch 2, from its checkpoint$", longer, re.M)
    assert re.findall(r"^epoch (\S+):", longer, re.M) == ["3/4", "4/4"]
    steps = [point.step for point in kept.store.get_metric_history(kept.run_named(name).info.run_id, "val/ssim")]
    assert steps == [1, 2, 3, 4]


def test_continued_training_is_bit_identical_to_uninterrupted_training(
    extended, home, uninterrupted, name_in, kept, same_weights
):
    name, (folder, test) = name_in(extended[1]), uninterrupted
    histories = [without_times(read_history(one)) for one in (home / "checkpoints" / name, folder)]
    assert len(histories[0]) == 4
    assert histories[0] == histories[1]
    assert same_weights(kept.best_generator(name), folder / "best.safetensors")
    logged = kept.run_named(name).data.metrics
    assert {metric: logged[f"test/{metric}"] for metric in test} == test


def test_continued_training_registers_better_generator(extended, name_in, kept, same_weights):
    name = name_in(extended[1])
    values = [row["val/ssim"] for row in kept.history(name)]
    assert max(values[2:]) > max(values[:2]), "the later epochs must be better for this test"
    first, second = kept.versions(name)
    assert same_weights(kept.registered_generator(second.version), kept.best_generator(name))
    assert not same_weights(kept.registered_generator(first.version), kept.best_generator(name))
    assert f"Registered {kept.model} version {first.version}." in extended[0]
    assert f"Registered {kept.model} version {second.version}." in extended[1]
    ssims = [re.search(r"^ssim +(\S+)", text, re.M)[1] for text in extended]
    tagged = [float(version.tags["test/ssim"]) for version in (first, second)]
    assert tagged == pytest.approx([float(ssim) for ssim in ssims], rel=1e-3)


def test_mlflow_run_records_length_of_continued_training(extended, name_in, kept):
    found = kept.run_named(name_in(extended[1]))
    assert found.data.params["train.epochs"] == "4" or found.data.tags.get("medgan.epochs") == "4"


def test_train_with_cosine_schedule_and_other_length_starts_anew(trained, command, run, name_in):
    settings = {"optim__schedule": "cosine"}
    (one, shorter), (two, longer) = (run(*command("unet_l1", train__epochs=epochs, **settings)) for epochs in (1, 2))
    assert (one, two) == (0, 0)
    assert name_in(shorter) != name_in(longer)
    assert re.findall(r"^epoch (\S+):", longer, re.M) == ["1/2", "2/2"]
