"""One frozen tree of settings; every leaf has one dotted path, the same in YAML, on the command line and in MLflow."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from medgan.errors import InputError

Blocks = tuple[Literal[1, 2, 3, 4, 5], ...]
Norm = Literal["instance", "batch", "none"]


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Settings that belong together; frozen; unknown names and numbers that are not finite are refused."""


class DataConfig(Section):
    size: int = Field(64, ge=16, le=1024, description="rows and columns of a slice, in pixels")


class GeneratorConfig(Section):
    num_blocks: int = Field(1, ge=1, le=8, description="U-blocks in the chain")
    base_channels: PositiveInt = Field(64, description="channels of the first encoder layer")
    depth: int | None = Field(None, ge=2, le=8, description="encoder layers a block; none: from data.size")
    norm: Norm = "instance"
    between_blocks: Literal["tanh", "none"] = "tanh"


class DiscriminatorConfig(Section):
    patch: Literal[16, 34, 70, 142] = Field(16, description="receptive field in pixels")
    base_channels: PositiveInt = 64
    norm: Norm = "instance"
    spectral_norm: bool = True


class LossConfig(Section):
    adversarial: Literal["vanilla", "lsgan"] = "vanilla"
    lambda_adversarial: NonNegativeFloat = 1.0
    lambda_l1: NonNegativeFloat = 0.0
    lambda_perceptual: NonNegativeFloat = 0.0
    lambda_style: NonNegativeFloat = 0.0
    lambda_content: NonNegativeFloat = 0.0
    style_blocks: Blocks = Field((1, 5), min_length=1, description="extractor blocks compared by Gram matrix")
    content_blocks: Blocks = Field((1, 2, 3, 4), min_length=1, description="extractor blocks compared directly")


class ExtractorConfig(Section):
    weights: str = Field("random", description="download, a weights file, or random (demos)")


class OptimConfig(Section):
    generator_lr: PositiveFloat = 2e-4
    discriminator_lr: PositiveFloat = 2e-4
    beta1: float = Field(0.5, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)


class TrainConfig(Section):
    epochs: PositiveInt = 200
    batch_size: PositiveInt = Field(1, description="slices a generator update, over all workers together")
    generator_steps: PositiveInt = Field(1, description="generator updates for each discriminator update")
    seed: int = 0


class Config(Section):
    """Everything that decides what a training computes, given a data set."""

    data: DataConfig = DataConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    extractor: ExtractorConfig = ExtractorConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def fits_the_image(self) -> Config:
        """The networks' sizes follow from the image's."""
        size = self.data.size
        halvings = self.generator.depth or 4
        if size % 2**halvings:
            raise ValueError(f"data.size {size} must be a multiple of {2**halvings}, to be halved {halvings} times")
        if self.discriminator.patch > size:
            raise ValueError(f"discriminator.patch {self.discriminator.patch} is larger than data.size {size}")
        return self


def generator_depth(config: Config) -> int:
    """Encoder layers a U-block: the set value, else down to one pixel where the size allows it, at most 8."""
    size = config.data.size
    return config.generator.depth or min(8, (size & -size).bit_length() - 1)


def flatten(config: Config) -> dict[str, Any]:
    """Every leaf under its dotted path, such as `{"generator.num_blocks": 1}`."""
    return {
        f"{section}.{name}": value
        for section, values in config.model_dump(mode="json").items()
        for name, value in values.items()
    }


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with some leaves replaced.

    Args:
        config: what to start from.
        values: new values by dotted path.

    Raises:
        InputError: an unknown path, or a value its field refuses; the message names the path.
    """
    tree = config.model_dump()
    known = flatten(config)
    for path, value in values.items():
        if path not in known:
            near = difflib.get_close_matches(path, known, n=1)
            sections = ", ".join(f"{name}.*" for name in tree)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {sections} (see medgan/config.py)"
            raise InputError(f"unknown setting {path!r}; {hint}")
        section, name = path.split(".")
        tree[section][name] = value
    return validated(tree)


def validated(tree: Mapping[str, Any]) -> Config:
    """A configuration from nested plain values.

    Raises:
        InputError: a field refuses its value; the message names field and value.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"][:2])
        message = first["msg"].removeprefix("Value error, ")
        where = f"{path}: {message}; got {first['input']!r}" if path else message
        raise InputError(f"setting {where}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`"train.epochs=3"` as `("train.epochs", 3)`; the value is JSON where it can be, else the text itself.

    Raises:
        InputError: there is no `=`.
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: expected path=value, such as train.epochs=3; got {text!r}")
    try:
        return path.strip(), json.loads(value)
    except json.JSONDecodeError:
        return path.strip(), value.strip()


def at_least_one(option: str, value: int) -> int:
    """The value of a counting option.

    Raises:
        InputError: it is below 1.
    """
    if value < 1:
        raise InputError(f"{option}: expected 1 or more; got {value}")
    return value
