"""Estimates parameters, memory, checkpoint bytes and FLOPs of a configuration from shapes alone."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from medgan.config import Config, with_values
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, updates_of
from medgan.training.mixed_precision import mapped
from medgan.training.runtime import SingleProcess
from medgan.training.state import State, bare
from medgan.training.step import generator_inputs, update_discriminator, update_generator

PROCESS_BYTES = {"cpu": 550 << 20, "gpu": 700 << 20}
"""Gives the bytes of a worker before its first trial: interpreter and libraries; on a GPU, the memory of CUDA."""
WORKSPACE = {"cpu": 1.35, "gpu": 1.15}
"""Multiplies the bytes of tensors, for convolution buffers and unusable blocks; on the CPU, 1.2 to 1.6 was measured."""
VALIDATION_SLICES = 16
META = torch.device("meta")


@dataclass(frozen=True)
class Estimate:
    """Holds what a trial needs.

    Attributes:
        generator_parameters: parameters of all generators, without an average.
        discriminator_parameters: parameters of all discriminators; 0 without discriminators.
        bytes_per_worker: largest memory of a worker: weights, gradients, Adam's moments, extractor, activations of a
            training step or of a validation batch, and the process itself.
        checkpoint_bytes: bytes of a running trial: its last state and its best generator.
        kept_bytes: bytes of a finished trial that is kept: its best generator.
        flops_per_step: floating-point operations of a step on one worker; a multiplication and an addition are two.
    """

    generator_parameters: int
    discriminator_parameters: int
    bytes_per_worker: int
    checkpoint_bytes: int
    kept_bytes: int
    flops_per_step: int


class Tally(TorchDispatchMode):
    """Tracks every tensor from its operation until it is freed, and counts the FLOPs of the operations.

    Attributes:
        held: bytes of the tensors that exist now.
        most: the largest `held` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = self.flops = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.follow(tensor)
        if (count := flop_registry.get(function.overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result

    def follow(self, tensor: Tensor) -> None:
        """Counts a tensor's storage once, until nothing refers to the storage."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.held += storage.nbytes()
            self.most = max(self.most, self.held)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


@cache
def estimate(config: Config, *, workers: int = 1, device: str = "cpu") -> Estimate:
    """Estimates a step without computing it: networks on torch's meta device hold no numbers.

    Args:
        workers: number of workers that share a batch.
        device: "cpu" or "gpu"; it decides the memory of a process beside its tensors.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        state = build_state(_on_shapes(config), SingleProcess(META))
    if config.train.precision == "bfloat16":
        for network in _networks(state):
            _cast_between(network)
    generator_parameters, discriminator_parameters = _count(state.generators), _count(state.discriminators)
    parameters = generator_parameters + discriminator_parameters
    best = _bytes([bare(state.generator)])
    pictures = 3 * 4 * 4 * config.data.size**2
    saved = _bytes([*_trained(state), *([state.average] if state.average is not None else [])])
    moments = 2 * 4 * parameters
    tensors, flops = _step(config, state, config.train.batch_size // workers)
    reduced = 4 * parameters if workers > 1 else 0  # DDP's buckets hold the gradients once more
    return Estimate(
        generator_parameters=generator_parameters,
        discriminator_parameters=discriminator_parameters,
        bytes_per_worker=PROCESS_BYTES[device] + int(WORKSPACE[device] * (tensors + moments + reduced)),
        checkpoint_bytes=saved + moments + best + pictures,
        kept_bytes=best + pictures,
        flops_per_step=flops,
    )


def gigabytes(count: int) -> str:
    """Formats bytes for a person: `0.55 GB`, `11.5 GB`."""
    return f"{count / 1e9:.3g} GB"


def _on_shapes(config: Config) -> Config:
    """Replaces the settings that shapes cannot have: weights, precision, pool; `estimate` adds the precision again."""
    return with_values(config, {"extractor.weights": "random", "train.precision": "float32", "train.pool_size": 0})


def _step(config: Config, state: State, slices: int) -> tuple[int, int]:
    """Returns the peak bytes of all tensors without Adam's moments, and the FLOPs of a whole step."""
    idle = replace(
        state,
        generator_optimizer=SGD(_trainable(state.generators), lr=0.0),
        discriminator_optimizer=SGD(_trainable(state.discriminators), lr=0.0) if state.discriminators else None,
    )
    objective, updates = build_objective(config).at(0.5), updates_of(config)
    parts, made = updates.accumulate, min(updates.accumulate, 2)  # further parts of a batch are like the second
    updates = replace(updates, accumulate=made)
    shape = (1, config.data.size, config.data.size)
    with Tally() as tally:
        for network in _networks(state):
            for tensor in (*network.parameters(), *network.buffers()):
                tally.follow(tensor)
        for parameter in _trainable(_trained(state)):
            parameter.grad = torch.empty_like(parameter)  # left by the previous step
        source, target = torch.zeros(2, slices, *shape, device=META)[:, : slices * made // parts]
        inputs, _ = update_generator(idle, objective, (source, target), updates)
        generated = tally.flops
        flops = updates.generator * generated
        if updates.discriminator:
            update_discriminator(idle, objective, inputs, updates)
            flops += updates.discriminator * (tally.flops - generated)
        updated = tally.flops
        if updates.discriminator > 1:
            with torch.no_grad():
                generator_inputs(idle, objective, source, target)
            flops += (updates.discriminator - 1) * (tally.flops - updated)
        del inputs
        with torch.no_grad():
            bare(state.best_generator).eval()(torch.zeros(VALIDATION_SLICES, *shape, device=META))
    return tally.most, flops * parts // made


def _cast_between(network: nn.Module) -> None:
    """Makes a network compute in bfloat16 between float32 images; autocast does not support the meta device."""
    network.bfloat16()
    network.register_forward_pre_hook(lambda _, images: tuple(image.bfloat16() for image in images))
    network.register_forward_hook(lambda _, images, outputs: mapped(outputs, Tensor.float))


def _trained(state: State) -> list[nn.Module]:
    return [*state.generators, *state.discriminators]


def _networks(state: State) -> Iterator[nn.Module]:
    yield from (*_trained(state), *(one for one in (state.average, state.extractor) if one is not None))


def _trainable(networks: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]


def _count(networks: list[nn.Module]) -> int:
    return sum(parameter.numel() for parameter in _trainable(networks))


def _bytes(networks: list[nn.Module]) -> int:
    """Returns the bytes of the networks' state dicts in float32."""
    return 4 * sum(tensor.numel() for network in networks for tensor in network.state_dict().values())
