"""How a worker recognizes lack of memory in errors of torch, NumPy and the system, and what it reports."""

import errno
import re

import numpy as np
import pytest
import torch

from medgan.config import Config, with_values
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.data.prepare.prepare_dataset import PrepareRequest, prepare
from medgan.distributed import worker
from medgan.distributed.worker import Start, is_out_of_memory, out_of_memory
from medgan.tasks import TASKS
from medgan.training.runtime import SingleProcess


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 45), lambda: np.ones(1 << 45)])
def test_is_out_of_memory_recognizes_failed_allocation(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_is_out_of_memory_recognizes_errors_of_libraries(error):
    assert is_out_of_memory(error)


def test_is_out_of_memory_is_false_for_other_failures():
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(FileNotFoundError(errno.ENOENT, "No such file"))


class TestTrainingWithoutMemory:
    CONFIG = with_values(
        Config(), {"data.size": 64, "train.batch_size": 512, "generator.base_channels": 16, "generator.depth": 2}
    )

    @pytest.fixture
    def start(self, tmp_path):
        source = write_phantoms(tmp_path / "phantoms", patients=6, slices=3, matrix=64)
        return Start(
            self.CONFIG,
            str(prepare(PrepareRequest(source, TASKS["pet2ct"], 64, datasets=tmp_path / "sets"))),
            str(tmp_path / "trial"),
        )

    @pytest.fixture
    def full(self, monkeypatch):
        """Makes every build of a training fail, as on a GPU without free memory."""

        def refuse(*_, **__):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr(worker, "build_training", refuse)
        return refuse

    def test_worker_without_memory_names_settings_that_need_less(self, start, full):
        failure = worker.Worker(SingleProcess(torch.device("cpu"))).obey(start)
        assert failure.kind == "out_of_memory"
        assert re.match(
            r"out of memory with train.batch_size=512 at 64 px, about .* GB a process; what takes less: "
            r"train.batch_size=256 \(.* GB\); train.accumulate=2, the same batch in 2 parts \(.* GB\)",
            failure.message,
        )

    def test_worker_without_memory_answers_when_estimate_fails_too(self, start, full, monkeypatch):
        monkeypatch.setattr(worker, "what_needs_less", full)
        failure = worker.Worker(SingleProcess(torch.device("cpu"))).obey(start)
        assert (failure.kind, failure.message) == (
            "out_of_memory",
            "out of memory with train.batch_size=512 at 64 px; lower train.batch_size, or make the network smaller",
        )

    def test_out_of_memory_raises_other_error_of_estimate(self, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("a defect")

        monkeypatch.setattr(worker, "what_needs_less", broken)
        with pytest.raises(RuntimeError, match="a defect"):
            out_of_memory(self.CONFIG, SingleProcess(torch.device("cpu")))
