"""Joins the ranks of a group on one machine through a file: torch's own store listens on all of its addresses."""

import tempfile
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch.distributed
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend


@dataclass
class OneMachine(TorchConfig):
    """Configures Ray Train for workers that are all on this machine."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Returns the backend that Ray Train starts the ranks with."""
        return _FileRendezvous


class _FileRendezvous(_TorchBackend):
    place: Path | None = None

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Joins all ranks; Ray Train calls it at each start of the group."""
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo"
        self.place = Path(tempfile.gettempdir()) / f"medgan-{uuid.uuid4().hex}"
        place = self.place.as_uri()
        size, limit = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get([worker_group.execute_single_async(k, _join, backend, place, limit, size, k) for k in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Ends what the ranks share; Ray Train calls it at each end of the group."""
        super().on_shutdown(worker_group, backend_config)
        if self.place:
            self.place.unlink(missing_ok=True)


def _join(backend: str, place: str, limit: timedelta, size: int, number: int) -> None:
    torch.distributed.init_process_group(backend, init_method=place, timeout=limit, world_size=size, rank=number)
