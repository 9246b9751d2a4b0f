"""A training that ends before its last epoch: by the clock, a failure or Ctrl-C, and what is left of it then."""

import re
import signal

import pytest
import torch


def test_train_ends_after_minutes(trained, command, run):
    code, said = run(*command("unet_l1", train__epochs=500, train__minutes=0.00001, train__seed=1))
    assert code == 0, said
    assert "up to 500 epochs or 1e-05 min" in said
    assert re.findall(r"^epoch (\S+):.* (\w+)$", said, re.M) == [("1/500", "done")]


def test_train_that_diverges_gives_reason_in_terminal_and_mlflow(trained, command, run, name_in, kept):
    settings = {"loss__adversarial": "lsgan", "optim__generator_lr": 1e30, "train__epochs": 3}
    code, said = run(*command("cgan", **settings))
    assert code == 1
    name = name_in(said)
    assert re.search(rf"^failed: {name} diverged: .*(is nan|is inf|not finite)", said, re.M), said
    assert "Traceback" not in said
    found = kept.run_named(name)
    assert found.info.status == "FAILED"
    assert found.data.tags["medgan.state"] == "diverged"
    assert re.search("is nan|is inf|not finite", found.data.tags["medgan.reason"])
    assert f"failed: {name} diverged: {found.data.tags['medgan.reason']}" in said
    assert kept.versions(name) == []


def test_train_without_memory_names_settings_that_need_less(
    trained, monkeypatch, command, run, name_in, kept
):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("medgan.workflows.training_runner.train_epoch", refuse)
    code, told = run(*command("unet_l1", train__seed=7))
    assert code == 1
    assert re.search(
        r"^failed: \S+ out_of_memory: out of memory with train.batch_size=\d+ at 32 px, about ", told, re.M
    )
    assert kept.run_named(name_in(told)).data.tags["medgan.state"] == "out_of_memory"


@pytest.mark.timeout(120)
def test_train_stopped_by_ctrl_c_keeps_epochs_and_continues(trained, command, run, started, name_in, kept):
    arguments = command("unet_l1", train__epochs=60, train__seed=3)
    job = started(arguments)
    job.until(r"^epoch 2/60")
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130, job.text
    assert job.lines[-1] == "Stopped. What was finished is kept; the same command goes on from there."
    assert "Traceback" not in job.text
    name = name_in(job.text)
    stopped = kept.run_named(name)
    assert stopped.info.status == "KILLED"
    assert stopped.data.tags["medgan.state"] != "running"
    assert kept.versions(name) == []
    done = len(kept.history(name))
    assert 2 <= done < 60
    code, said = run(*arguments)
    assert code == 0, said
    assert f"continues after epoch {done}, from its checkpoint" in said
    assert re.search(rf"^epoch {done + 1}/60", said, re.M) and not re.search(rf"^epoch {done}/60", said, re.M)
    assert len(kept.history(name)) == 60
    finished = kept.run_named(name)
    assert (finished.info.status, finished.data.tags["medgan.state"]) == ("FINISHED", "complete")
    steps = [point.step for point in kept.store.get_metric_history(finished.info.run_id, "val/ssim")]
    assert steps == list(range(1, 61))
