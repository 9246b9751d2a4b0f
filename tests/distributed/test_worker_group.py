"""The cause that a worker group reports when Ray says that a worker died."""

import pytest
import ray.exceptions
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from medgan.distributed.worker_group import death_of

pytestmark = pytest.mark.unit


def test_death_of_distinguishes_lack_of_memory_from_other_deaths():
    full = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
    dead = ray.exceptions.ActorDiedError()
    both = {rank: WorkerHealthCheckFailedError("a check failed", cause) for rank, cause in enumerate((dead, full))}
    assert (death_of(both).kind, death_of(both).message) == (
        "out_of_memory",
        "its node ran out of memory, and Ray ended rank 1",
    )
    assert (death_of({0: both[0]}).kind, death_of({0: both[0]}).message) == ("error", "the process of rank 0 died")
