"""Downloads, reads and writes the weights of the feature extractors."""

import hashlib
import os
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medgan.errors import InputError
from medgan.models.in_domain import Encoder

SITE = "https://download.pytorch.org/models/"
FILES = {
    "vgg19": "vgg19-dcbb9e9d.pth",  # 548 MB
    "alexnet": "alexnet-owt-7be5be79.pth",  # 233 MB
    "squeezenet": "squeezenet1_1-b8a52dc0.pth",  # 5 MB
}
"""These are torchvision's weights; each name ends with the first digits of the file's SHA-256."""
_NUMBER = re.compile(r"[01]?\.?\d+")


def download_weights(cache: Path, timeout_s: float = 30.0, *, network: str = "vgg19") -> Path:
    """Downloads torchvision's weights of a network once, and checks them against the digest in their name.

    Args:
        timeout_s: longest time without data from the server, in seconds.
        network: "vgg19", "squeezenet" or "alexnet".

    Raises:
        InputError: the download fails or is damaged, or there are no public weights of this network.
    """
    if network not in FILES:
        raise InputError("E-WEIGHTS-01", network=network, files=", ".join(FILES))
    path = cache / FILES[network]
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(SITE + path.name, timeout=timeout_s) as response, part.open("wb") as file:
            while chunk := response.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    except (OSError, HTTPException) as error:
        part.unlink(missing_ok=True)
        raise InputError("E-WEIGHTS-02", network=network, error=error) from None
    if not digest.hexdigest().startswith(path.stem.rsplit("-", 1)[1]):
        part.unlink()
        raise InputError("E-WEIGHTS-03", path_name=path.name)
    return part.rename(path)


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads the convolution layers of a torchvision-style state dict, each name with the prefix "features.".

    Raises:
        InputError: the file is missing or is not a state dict.
    """
    if not path.is_file():
        raise InputError("E-WEIGHTS-04", path=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file it cannot read
        raise InputError("E-WEIGHTS-05", path=path, name=type(error).__name__) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError("E-WEIGHTS-06", path=path, found=type(state).__name__)
    layers = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    return {f"features.{name}" if name[:1].isdigit() else name: value for name, value in layers.items()}


def read_encoder(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the arguments of an encoder that `save_encoder` wrote, by name, and its layers.

    Raises:
        InputError: the file is missing or is not such an encoder.
    """
    if not path.is_file():
        raise InputError("E-WEIGHTS-07", path=path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        raise InputError("E-WEIGHTS-08", path=path) from None
    network, width = metadata.get("network"), metadata.get("base_channels", "")
    local_mean = metadata.get("local_mean", "0")
    if network != "in_domain" or not width.isdecimal() or not int(width) or not _NUMBER.fullmatch(local_mean):
        raise InputError("E-WEIGHTS-09", path=path, network=network, width=width, local_mean=local_mean)
    return {"base_channels": int(width), "local_mean": float(local_mean)}, state


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Writes a trained encoder for `load_extractor("in_domain", ...)` atomically.

    Args:
        path: path of the safetensors file.
        encoder: encoder with all four stages and without wrappers.
    """
    state = {name: value.cpu().contiguous() for name, value in encoder.state_dict().items()}
    arguments = {"base_channels": str(encoder.base_channels), "local_mean": str(encoder.local_mean)}
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(state, part, metadata={"network": "in_domain", **arguments})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # of a full disk
