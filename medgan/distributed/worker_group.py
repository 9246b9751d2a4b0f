"""Keeps a worker group resident: one Ray Train `TorchTrainer` gets trial after trial (in about 0.1 s each, not 30)."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from medgan.distributed.command_channel import STOP, CommandChannel, Failure, Replies
from medgan.distributed.placement_cleanup import OrphanedPlacementGroups
from medgan.distributed.rendezvous import OneMachine
from medgan.distributed.resources import Resources
from medgan.distributed.worker import serve_trials
from medgan.errors import CodedError, JobError

LOOK_EVERY_S = 5.0
LOOPBACK = "127."  # begins the address of a cluster that is on this machine only


class GroupLost(CodedError, RuntimeError):
    """Says that the group died or had to be ended; Ray Train starts it again, and the trial must be started again."""


class TrialFailed(CodedError, RuntimeError):
    """Says that all ranks agree that this trial cannot go on; the group is healthy."""

    @property
    def kind(self) -> str:
        """Returns how the trial ended, as the study names it: such as `out_of_memory`."""
        return str(self.fields["kind"])


class Witness(UserCallback):
    """Reports to a group's channel which process died and why; runs in Ray Train's controller."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Reports the cause of death; Ray Train calls it before it starts the group again."""
        self.channel.mourn.remote(death_of(worker_exceptions))


def death_of(errors: Mapping[int, Exception]) -> Failure:
    """Returns why ranks died: out of memory where the node's memory monitor ended one, else an error."""
    causes = {rank: getattr(error, "health_check_failure", error) for rank, error in sorted(errors.items())}
    for rank, cause in causes.items():
        if isinstance(cause, ray.exceptions.OutOfMemoryError):
            return Failure("out_of_memory", f"its node ran out of memory, and Ray ended rank {rank}")
    ranks = ", ".join(map(str, causes))
    return Failure("error", f"the process of rank {ranks} died")


class Group:
    """Keeps the trainer running in a thread and talks to its ranks through a channel.

    Args:
        storage: folder for Ray Train's own files, shared by all nodes.
        limit_s: longest wait for the answers to one order.
        start_s: longest wait for the group to start, or to start again.
    """

    def __init__(self, resources: Resources, *, storage: Path, limit_s: float, start_s: float = 180.0) -> None:
        self.size, self.limit_s, self.start_s = resources.workers, limit_s, start_s
        self.error: BaseException | None = None
        self.generation = ""
        self.channel: Any = ray.remote(num_cpus=0)(CommandChannel).remote(resources.workers)
        address = ray.get_runtime_context().gcs_address
        trainer = TorchTrainer(
            serve_trials,
            train_loop_config={"channel": self.channel, "threads": resources.cpus},
            torch_config=OneMachine() if address.startswith(LOOPBACK) else TorchConfig(),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.use_gpu,
                resources_per_worker={"CPU": resources.cpus} | ({"GPU": 1} if resources.use_gpu else {}),
            ),
            run_config=RunConfig(  # type: ignore[call-arg]  # Ray's stubs know the old class only
                name=f"group-{uuid.uuid4().hex[:12]}",
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=-1),  # restarts are counted per trial, by the caller
                callbacks=[Witness(self.channel)],  # type: ignore[list-item]  # the same
                worker_runtime_env={
                    "env_vars": {
                        "RAY_ADDRESS": address,
                        "OMP_WAIT_POLICY": "passive",  # spinning threads slow the neighboring processes down
                    }
                },
            ),
        )
        self.thread = threading.Thread(target=self._fit, args=(trainer.fit,), daemon=True)
        self.thread.start()

    def wait_ready(self) -> None:
        """Waits until every rank has joined.

        Raises:
            JobError: the ranks did not join in time, or Ray Train gave up.
        """
        end, orphans = time.monotonic() + self.start_s, OrphanedPlacementGroups()
        while not (generation := ray.get(self.channel.complete.remote(LOOK_EVERY_S))):
            self._check()
            orphans.remove()  # they may hold the resources that this group needs
            if time.monotonic() > end:
                raise JobError("E-GROUP-01", start_s=self.start_s)
        self.generation = generation

    def ask(self, order: Any) -> Any:
        """Gives an order to the ranks that `wait_ready` found, and returns rank 0's answer.

        Raises:
            TrialFailed: every rank failed for a reason of the trial itself, or one rank had no memory left.
            GroupLost: a rank died, hung, failed alone, or in a way that leaves its process in doubt.
            JobError: Ray Train gave up.
        """
        asked = self.channel.ask.remote(self.generation, order, limit_s=self.limit_s, grace_s=5.0)
        while not ray.wait([asked], timeout=1.0)[0]:
            self._check()
        replies: Replies = ray.get(asked)
        failures = replies.failures or [answer for answer in replies.answers if isinstance(answer, Failure)]
        if failures or replies.lost:
            self._raise_failure(failures, replies.lost)
        return replies.answers[0]

    def _raise_failure(self, failures: Sequence[Failure], lost: str) -> NoReturn:
        kinds = [failure.kind for failure in failures]
        if len(kinds) == self.size and "error" not in kinds and not lost:
            raise TrialFailed("E-GROUP-02", message=failures[0].message, kind=kinds[0])
        ray.get(self.channel.dismiss.remote())  # a rank may be stuck in a collective
        if "out_of_memory" in kinds:
            message = failures[kinds.index("out_of_memory")].message
            raise TrialFailed("E-GROUP-03", message=message, kind="out_of_memory")
        raise GroupLost("E-GROUP-04", lost=lost or failures[0].message)

    def close(self, limit_s: float = 8.0) -> None:
        """Lets the ranks return and Ray Train clean up."""
        self.channel.ask.remote(self.generation, STOP, limit_s=limit_s, grace_s=limit_s)
        self.thread.join(limit_s)

    def _check(self) -> None:
        if not self.thread.is_alive():
            raise JobError("E-GROUP-05", error=self.error)

    def _fit(self, fit: Callable[[], Any]) -> None:
        try:
            fit()
        except BaseException as error:
            self.error = error
