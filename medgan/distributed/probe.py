"""Tries what a search needs: one step of its largest trial; storage, data and tracking as each node sees them."""

import itertools
import resource
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medgan.config import Config, flatten
from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import read_manifest
from medgan.distributed.resources import Resources
from medgan.distributed.worker import is_out_of_memory
from medgan.errors import InputError
from medgan.paths import redacted
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.runtime import SingleProcess
from medgan.training.step import train_step

DRIVER = "driver"
ANSWER_S = 10.0
"""A tracking server must answer within this time."""
SIZES = (
    "generator.network", "generator.num_blocks", "generator.base_channels", "discriminator.patch",
    "discriminator.base_channels", "train.batch_size", "data.size",
)  # fmt: skip
"""The refusal of a configuration that is too large names these settings."""


@dataclass(frozen=True)
class Step:
    """Describes a training step: how long it took, and the most memory it held; or why it failed."""

    seconds: float = 0.0
    bytes: int = 0
    fault: str = ""
    out_of_memory: bool = False


def probe(
    config: Config,
    dataset_state: Path,
    output: Path,
    stores: Mapping[str, str],
    resources: Resources,
    *,
    limit_s: float,
) -> list[str]:
    """Tries everything once and leaves nothing behind; returns lines for a person; needs a connection to a cluster.

    Args:
        config: configuration of the largest trial.
        dataset_state: the data set's state, see `PreparedDataset.state`.
        output: folder that all nodes must share.
        stores: option -> address of the study database, and of MLflow.
        resources: resources of one trial; the step runs on one worker's share.
        limit_s: longest wait for the nodes, and again for the step.

    Raises:
        InputError: something cannot be reached, differs from node to node, or does not fit.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    refuse_local_stores(stores, len(set(nodes.values())))
    refuse_silent_server(stores["--tracking-uri"])
    check_nodes(nodes, output, dataset_state, limit_s=limit_s)
    step = try_step(config, dataset_state, resources, limit_s=limit_s)
    seen = f"{len(nodes)} nodes write to" if len(nodes) > 1 else "can write to"
    return [
        f"{seen} {output} and read the data set",
        f"one step of the largest trial: {step.seconds:.2g} s, {step.bytes / 1e9:.3g} GB a worker",
    ]


def refuse_local_stores(stores: Mapping[str, str], num_hosts: int) -> None:
    """Raises InputError if one of the stores (option -> address) is in SQLite and the cluster has several hosts."""
    for option, uri in stores.items():
        if num_hosts > 1 and uri.startswith("sqlite:"):
            raise InputError("E-PROBE-01", option=option, uri=redacted(uri), num_hosts=num_hosts)


def refuse_silent_server(uri: str) -> None:
    """Raises InputError if a tracking server does not answer at all; any answer is accepted."""
    if not uri.startswith(("http://", "https://")):
        return
    parts = urllib.parse.urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health", query="")
    try:
        urllib.request.urlopen(urllib.parse.urlunsplit(bare), timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        raise InputError("E-PROBE-02", uri=redacted(uri), error=error) from None


def check_nodes(nodes: Mapping[str, str], output: Path, dataset_state: Path, *, limit_s: float) -> None:
    """Refuses a cluster with a node that does not share the output folder, or sees other data.

    Args:
        nodes: Ray's id -> host, of the nodes that are alive.
        limit_s: longest wait for all nodes together.

    Raises:
        InputError: names every node with a fault, and the fault.
    """
    folder = output / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        (folder / DRIVER).write_text(folder.name)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError("E-PROBE-03", output=output, strerror=error.strerror) from None
    try:
        digest = read_manifest(dataset_state).digest
        faults = _ask_nodes(nodes, folder, dataset_state, digest, limit_s=limit_s)
        faults |= {
            node: f"has a different folder {output}"
            for node in nodes
            if node not in faults and not (folder / node).is_file()
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if faults:
        listed = "; ".join(f"node {nodes[node]} ({node[:8]}): {fault}" for node, fault in faults.items())
        raise InputError("E-PROBE-04", told=listed)


def look_around(folder: str, node: str, dataset_state: str, digest: str) -> str:
    """Reads the driver's file and the data set on a node, writes an answer beside that file; returns the fault, or "".

    Args:
        folder: folder of the probe, below the output folder.
        node: name of the file to write.
    """
    try:
        seen = (Path(folder) / DRIVER).read_text()
        if seen != Path(folder).name:
            return f"{folder} holds something else there"
    except OSError as error:
        return f"does not see what the driver wrote to {folder} ({error.strerror}); is it shared storage?"
    try:
        (Path(folder) / node).write_text(seen)
    except OSError as error:
        return f"cannot write to {folder} ({error.strerror})"
    try:
        found = read_manifest(Path(dataset_state)).digest
    except InputError as error:
        return str(error).rstrip(".")
    return "" if found == digest else f"{dataset_state} is another data set there ({found[:12]}, not {digest[:12]})"


def try_step(config: Config, dataset_state: Path, resources: Resources, *, limit_s: float) -> Step:
    """Tries one step on a worker's share of the cluster; raises InputError if it fails, is too large or too slow."""
    make = ray.remote(num_cpus=resources.cpus, num_gpus=int(resources.use_gpu), max_calls=1, max_retries=0)(make_step)
    asked = make.remote(config, str(dataset_state), resources.workers, resources.cpus)
    what = f"the largest trial ({_sizes(config)})"
    try:
        step: Step = ray.get(asked, timeout=limit_s)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(asked, force=True)
        raise InputError("E-PROBE-05", what=what, limit_s=limit_s) from None
    except (ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError) as error:
        died = "its node ran out of memory" if isinstance(error, ray.exceptions.OutOfMemoryError) else "its worker died"
        raise InputError("E-PROBE-06", what=what, died=died) from None
    if step.out_of_memory:
        raise InputError("E-PROBE-07", what=what, fault=step.fault)
    if step.fault:
        raise InputError("E-PROBE-08", what=what, fault=step.fault)
    return step


def make_step(config: Config, dataset_state: str, workers: int, threads: int) -> Step:
    """Makes one step on the first slices of the training patients; runs on a worker.

    Args:
        workers: number of workers that share a batch.
    """
    torch.set_num_threads(threads)
    try:
        return _measured_step(config, dataset_state, config.train.batch_size // workers)
    except Exception as error:  # any error that a trial of this configuration would raise
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        return Step(fault=fault, out_of_memory=is_out_of_memory(error))


def _measured_step(config: Config, dataset_state: str, num_slices: int) -> Step:
    slices = PreparedDataset.open(Path(dataset_state)).slices("train")
    runtime = SingleProcess()
    pairs = [slices[index % len(slices)] for index in range(num_slices)]
    source, target = (torch.stack(images).to(runtime.device) for images in zip(*pairs, strict=True))
    state, objective = build_state(config, runtime), build_objective(config).at(0.0)
    began = time.perf_counter()
    losses = train_step(state, objective, itertools.repeat((source, target)), updates_of(config))
    float(next(iter(losses.values())))  # waits for a GPU to finish
    seconds = time.perf_counter() - began
    if runtime.device.type == "cuda":
        return Step(seconds, torch.cuda.max_memory_reserved())
    return Step(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def _ask_nodes(
    nodes: Mapping[str, str], folder: Path, dataset_state: Path, digest: str, *, limit_s: float
) -> dict[str, str]:
    """Returns node -> fault, for the nodes that have one."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(look_around)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(folder), node, str(dataset_state), digest
        ): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=limit_s)
    faults = {}
    for one in silent:
        ray.cancel(one, force=True)
        faults[asked[one]] = f"no answer within {limit_s:g} s"
    for one in answered:
        try:
            fault = ray.get(one)
        except ray.exceptions.RayError as error:
            fault = f"could not be asked ({type(error).__name__})"
        faults |= {asked[one]: fault} if fault else {}
    return faults


def _sizes(config: Config) -> str:
    leaves = flatten(config)
    return ", ".join(f"{setting}={leaves[setting]}" for setting in SIZES)
