"""A training that ends before its last epoch: after its minutes, by a failure or by Ctrl-C."""

import re
import signal

import pytest
import torch


def test_train_ends_after_minutes(trained, command, run):
    code, output = run(*command("unet_l1", train__epochs=500, train__minutes=0.00001, train__seed=1))
    assert code == 0, output
    assert "up to 500 epochs or 1e-05 min" in output
    assert re.findall(r"^epoch (\S+):.* (\w+)$", output, re.M) == [("1/500", "done")]


def test_train_that_diverges_gives_reason_in_terminal_and_mlflow(trained, command, run, name_in, kept):
    settings = {"loss__adversarial": "lsgan", "optim__generator_lr": 1e30, "train__epochs": 3}
    code, output = run(*command("cgan", **settings))
    assert code == 1
    name = name_in(output)
    assert re.search(rf"^failed: {name} diverged: .*(is nan|is inf|not finite)", output, re.M), output
    assert "Traceback" not in output
    found = kept.run_named(name)
    assert found.info.status == "FAILED"
    assert found.data.tags["medgan.state"] == "diverged"
    assert re.search("is nan|is inf|not finite", found.data.tags["medgan.reason"])
    assert f"failed: {name} diverged: {found.data.tags['medgan.reason']} [E-TRAIN-07]\n" in output
    assert kept.versions(name) == []


def test_train_without_memory_names_settings_that_need_less(trained, monkeypatch, command, run, name_in, kept):
    def refuse(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("medgan.workflows.training_runner.train_epoch", refuse)
    code, output = run(*command("unet_l1", train__seed=7))
    assert code == 1
    expected = r"^failed: \S+ out_of_memory: .*train\.batch_size=\d+ at 32 px, about .* \[E-TRAIN-07\]$"
    assert re.search(expected, output, re.M), output
    assert kept.run_named(name_in(output)).data.tags["medgan.state"] == "out_of_memory"


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
    code, output = run(*arguments)
    assert code == 0, output
    assert f"continues after epoch {done}, from its checkpoint" in output
    assert re.search(rf"^epoch {done + 1}/60", output, re.M) and not re.search(rf"^epoch {done}/60", output, re.M)
    assert len(kept.history(name)) == 60
    finished = kept.run_named(name)
    assert (finished.info.status, finished.data.tags["medgan.state"]) == ("FINISHED", "complete")
    steps = [point.step for point in kept.store.get_metric_history(finished.info.run_id, "val/ssim")]
    assert steps == list(range(1, 61))
