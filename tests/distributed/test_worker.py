"""What a worker calls out of memory: every way in which torch, numpy and the system say so, and nothing else."""

import errno

import numpy as np
import pytest
import torch

from medgan.distributed.worker import is_out_of_memory


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 45), lambda: np.ones(1 << 45)])
def test_an_array_that_no_machine_can_hold_is_out_of_memory(allocate):
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
def test_what_libraries_say_without_memory_is_out_of_memory(error):
    assert is_out_of_memory(error)


def test_other_failures_are_not():
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)
    assert not is_out_of_memory(FileNotFoundError(errno.ENOENT, "No such file"))
