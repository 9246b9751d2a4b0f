"""Holds all settings in one frozen tree; each leaf has one dotted path, in YAML, the command line and MLflow alike."""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from medgan.errors import InputError

EXTRACTOR_BLOCKS = {"vgg19": 5, "squeezenet": 7, "alexnet": 5, "in_domain": 4}
"""Gives the number of blocks of each feature extractor."""

TAUGHT = "taught"
"""Stands, as `extractor.weights`, for an extractor that is taught on the training targets before the start."""

JUDGED = ("lambda_discriminator", "lambda_margin", "lambda_gradient_penalty")
"""Names the weights of the discriminator's terms; every other lambda belongs to the generator."""

OF_WHOLE_BATCHES = ("lambda_feature_matching", "lambda_mmd", "lambda_margin")
"""Names the weights of the terms that are not a mean over the images of a batch."""

Share = Annotated[float, Field(ge=0, le=1)]
Blocks = tuple[Annotated[int, Field(ge=1, le=7)], ...]
Norm = Literal["instance", "batch", "none"]


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Groups settings that belong together; is frozen; refuses unknown names and numbers that are not finite."""


class DataConfig(Section):
    size: int = Field(64, ge=16, le=1024, description="rows and columns of a slice, in pixels")


class GeneratorConfig(Section):
    network: Literal["casnet", "resnet", "shallow", "filament", "discogan", "variational", "autoencoder"] = "casnet"
    block: Literal["u", "residual", "double"] = Field(
        "u", description="what casnet chains: U-blocks, or such of residual blocks or of double convolutions"
    )
    num_blocks: int = Field(1, ge=1, le=9, description="blocks of casnet (1..8), residual blocks of resnet")
    base_channels: PositiveInt = Field(64, description="channels of the first layer")
    depth: int | None = Field(None, ge=2, le=8, description="encoder layers a block of casnet; none: from data.size")
    norm: Norm = "instance"
    dropout: float = Field(0.0, ge=0, lt=1, description="on the first three decoder layers; of resnet, in its blocks")
    between_blocks: Literal["tanh", "none"] = "tanh"
    block_input: Literal["previous", "previous_and_source"] = "previous"
    gives: Literal["image", "change"] = Field("image", description="of casnet; change: it is added to the source")
    recompute: Literal["none", "blocks"] = Field(
        "none", description="blocks: casnet's are computed again for the gradient: less memory, a third more time"
    )


class DiscriminatorConfig(Section):
    network: Literal["patch", "residual", "filament", "discogan", "autoencoder"] = "patch"
    patch: Literal[1, 16, 34, 70, 142, 286] = Field(16, description="receptive field of patch, in pixels")
    sees: Literal["source_and_image", "image"] = Field("source_and_image", description="conditional, or not")
    base_channels: PositiveInt = 64
    norm: Norm = "instance"
    spectral_norm: bool = True


class LossConfig(Section):
    adversarial: Literal["vanilla", "lsgan", "hinge", "wasserstein", "began"] = "vanilla"
    lambda_adversarial: NonNegativeFloat = 1.0
    lambda_l1: NonNegativeFloat = 0.0
    lambda_l2: NonNegativeFloat = 0.0
    lambda_tv: NonNegativeFloat = Field(0.0, description="total variation of the output")
    lambda_stages: NonNegativeFloat = Field(0.0, description="L1 of every block's output but the last, casnet only")
    lambda_perceptual: NonNegativeFloat = 0.0
    lambda_feature_matching: NonNegativeFloat = 0.0
    lambda_style: NonNegativeFloat = 0.0
    lambda_content: NonNegativeFloat = 0.0
    lambda_cycle: NonNegativeFloat = Field(0.0, description="above 0, a second generator translates back")
    lambda_identity: NonNegativeFloat = Field(0.0, description="a target translated shall stay; needs the cycle")
    lambda_mmd: NonNegativeFloat = Field(0.0, description="maximum mean discrepancy of the batches' pixels")
    lambda_kl: NonNegativeFloat = Field(0.0, description="divergence of the latent from N(0, 1), variational only")
    perceptual_weights: tuple[NonNegativeFloat, ...] | None = Field(
        None, description="a weight for the pixel level and one for each discriminator layer; none: all 1"
    )
    style_blocks: Blocks = Field((1, 5), min_length=1, description="extractor blocks compared by Gram matrix")
    content_blocks: Blocks = Field((1, 2, 3, 4), min_length=1, description="extractor blocks compared directly")
    cycle_distance: Literal["l1", "l2"] = "l1"
    cycle_share: tuple[Share, Share] | None = Field(
        None, description="first and last r of (1 - r) x other terms + r x cycle; none: plain weights"
    )
    lambda_discriminator: PositiveFloat = Field(1.0, description="of the discriminator's adversarial loss")
    lambda_margin: NonNegativeFloat = Field(0.0, description="the discriminator keeps the perceptual loss above margin")
    margin: PositiveFloat = 50.0
    lambda_gradient_penalty: NonNegativeFloat = 0.0


class ExtractorConfig(Section):
    network: Literal["vgg19", "squeezenet", "alexnet", "in_domain"] = "vgg19"
    weights: str = Field("random", description="taught (on the training targets), download, a file, or random (tests)")
    scale: Literal["oxford", "as_is"] = Field("oxford", description="of features: that of Oxford's VGG-19, or none")


class OptimConfig(Section):
    generator_lr: PositiveFloat = 2e-4
    discriminator_lr: PositiveFloat = 2e-4
    beta1: float = Field(0.5, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="linear: to 0, second half")
    clip_norm: PositiveFloat | None = Field(None, description="largest norm of a network's gradient")
    clip_weights: PositiveFloat | None = Field(None, description="largest weight of the discriminator (WGAN: 0.01)")


class TrainConfig(Section):
    epochs: PositiveInt = 200
    minutes: PositiveFloat | None = Field(None, description="ends earlier, with the epoch that reaches it")
    batch_size: PositiveInt = Field(1, description="slices a generator update, over all workers together")
    accumulate: PositiveInt = Field(
        1, description="parts a batch goes through the networks in: less memory; same gradient but for norm batch"
    )
    generator_steps: PositiveInt = Field(1, description="generator updates a step")
    discriminator_steps: PositiveInt = Field(1, description="discriminator updates a step, after the generator's")
    pairs: Literal["own", "shuffled"] = Field("own", description="shuffled: sources with targets of other slices")
    augment: Literal["none", "flip", "flip_shift"] = Field("none", description="of the training pairs")
    pool_size: int = Field(0, ge=0, description="past outputs that the discriminator is shown again")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="of the averaged generator, which is evaluated; 0: none")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the networks' arithmetic")
    speed: Literal["plain", "measured"] = Field("plain", description="measured: as a few steps are fastest, by trial")
    seed: int = 0


class MetricsConfig(Section):
    select: str = Field("val/ssim", description="validation metric by which the best epoch's generator is kept")
    lpips: Literal["none", "alex", "squeeze"] = "none"
    lpips_weights: str = Field("", description="folder with the network's and LPIPS v0.1's weights")


class Config(Section):
    """Holds everything that decides what a training computes and reports, given a data set."""

    data: DataConfig = DataConfig()
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    extractor: ExtractorConfig = ExtractorConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def fits_the_image(self) -> Self:
        """Refuses networks whose sizes do not fit the size of the image."""
        size, generator = self.data.size, self.generator
        if generator.network == "casnet":
            halvings = generator.depth or 4
            if size % 2**halvings:
                raise InputError("E-CONFIG-01", size=size, multiple=2**halvings, halvings=halvings)
            if generator.num_blocks > 8:
                raise InputError("E-CONFIG-02", num_blocks=generator.num_blocks)
        if uses_discriminator(self) and self.discriminator.network == "patch" and self.discriminator.patch > size:
            raise InputError("E-CONFIG-03", patch=self.discriminator.patch, size=size)
        return self

    @model_validator(mode="after")
    def has_a_term_and_the_blocks_it_compares(self) -> Self:
        """Refuses a generator without a loss term, and extractor blocks that do not exist."""
        loss, network, blocks = self.loss, self.extractor.network, EXTRACTOR_BLOCKS[self.extractor.network]
        weights = {f"loss.{name}": value for name, value in loss if name.startswith("lambda_") and name not in JUDGED}
        if not any(weights.values()):
            raise InputError("E-CONFIG-04", weights=", ".join(weights))
        for kind in ("style", "content"):
            deepest = max(getattr(loss, f"{kind}_blocks"))
            if getattr(loss, f"lambda_{kind}") and deepest > blocks:
                raise InputError("E-CONFIG-05", kind=kind, network=network, extractor_blocks=blocks, deepest=deepest)
        return self

    @model_validator(mode="after")
    def has_what_its_terms_need(self) -> Self:
        """Refuses a term without the network or the setting that it needs."""
        loss, pool_size = self.loss, self.train.pool_size
        margin, penalty = loss.lambda_margin, loss.lambda_gradient_penalty
        needs_target = margin or penalty
        if not loss.lambda_cycle:
            if loss.lambda_identity:
                raise InputError("E-CONFIG-06", lambda_identity=loss.lambda_identity)
            if loss.cycle_share:
                raise InputError("E-CONFIG-07", cycle_share=loss.cycle_share)
        if needs_target and not uses_discriminator(self):
            raise InputError("E-CONFIG-08", lambda_margin=margin, lambda_gradient_penalty=penalty)
        if needs_target and pool_size:
            raise InputError("E-CONFIG-09", pool_size=pool_size, lambda_margin=margin, lambda_gradient_penalty=penalty)
        if self.metrics.lpips != "none" and not self.metrics.lpips_weights:
            raise InputError("E-CONFIG-10", lpips=self.metrics.lpips)
        return self

    @model_validator(mode="after")
    def has_the_networks_made_for_its_terms(self) -> Self:
        """Refuses a term with a network that cannot serve it."""
        loss, network, num_blocks = self.loss, self.generator.network, self.generator.num_blocks
        if loss.lambda_stages and (network, num_blocks > 1) != ("casnet", True):
            raise InputError("E-CONFIG-11", lambda_stages=loss.lambda_stages, network=network, num_blocks=num_blocks)
        if loss.lambda_kl and self.generator.network != "variational":
            raise InputError("E-CONFIG-12", network=self.generator.network)
        if uses_discriminator(self) and (loss.adversarial == "began") != (self.discriminator.network == "autoencoder"):
            raise InputError("E-CONFIG-13", adversarial=loss.adversarial, network=self.discriminator.network)
        return self

    @model_validator(mode="after")
    def saves_memory_for_the_same_gradient(self) -> Self:
        """Refuses settings that save memory and change the gradient: parts of a batch, blocks computed again."""
        generator, (batch_size, parts) = self.generator, (self.train.batch_size, self.train.accumulate)
        if (generator.network, generator.recompute, generator.norm) == ("casnet", "blocks", "batch"):
            raise InputError("E-CONFIG-14", recompute=generator.recompute, norm=generator.norm)
        if batch_size % parts:
            raise InputError("E-CONFIG-15", batch_size=batch_size, parts=parts)
        whole = [f"loss.{name}" for name in OF_WHOLE_BATCHES if getattr(self.loss, name)]
        whole += ["loss.adversarial began"] if self.loss.adversarial == "began" else []
        if parts > 1 and whole:
            raise InputError("E-CONFIG-16", parts=parts, whole=", ".join(whole))
        return self


def uses_discriminator(config: Config) -> bool:
    """Says whether any weighted term needs a discriminator; without such a term, none is built."""
    loss = config.loss
    return any((loss.lambda_adversarial, loss.lambda_perceptual, loss.lambda_feature_matching))


def generator_depth(config: Config) -> int:
    """Returns the encoder layers of a U-block: the set value, else down to one pixel if the size permits, at most 8."""
    size = config.data.size
    return config.generator.depth or min(8, (size & -size).bit_length() - 1)


def flatten(config: Config) -> dict[str, Any]:
    """Returns every leaf under its dotted path, such as `{"generator.num_blocks": 1}`."""
    return {
        f"{section}.{name}": value
        for section, values in config.model_dump(mode="json").items()
        for name, value in values.items()
    }


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy with some leaves replaced.

    Args:
        values: new values by dotted path.

    Raises:
        InputError: an unknown path, or a value its field refuses; the message names the path.
    """
    tree, known = config.model_dump(), flatten(config)
    for path, value in values.items():
        if path not in known:
            near = difflib.get_close_matches(path, known, n=1)
            sections = ", ".join(f"{name}.*" for name in tree)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"expected one of {sections} (medgan inspect --settings lists them)"
            )
            raise InputError("E-CONFIG-17", path=path, hint=hint)
        section, name = path.split(".")
        tree[section][name] = value
    return validated(tree)


def validated(tree: Mapping[str, Any]) -> Config:
    """Returns a configuration made from nested plain values; raises InputError that names a refused field and value."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"][:2])
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
            raise cause.within("E-CONFIG-21") from None
        raise InputError("E-CONFIG-18", path=path, reason=message, given=first["input"]) from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """Splits `"train.epochs=3"` into `("train.epochs", 3)`; the value is read as JSON, or else kept as text.

    Raises:
        InputError: there is no `=`.
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError("E-CONFIG-19", text=text)
    try:
        return path.strip(), json.loads(value)
    except json.JSONDecodeError:
        return path.strip(), value.strip()


def at_least_one(option: str, value: int) -> int:
    """Returns the value of an option that counts something; raises InputError if it is below 1."""
    if value < 1:
        raise InputError("E-CONFIG-20", option=option, value=value)
    return value
