"""The methods that translate there and back, as published; they never see a source beside its own target."""

from __future__ import annotations

from medgan.config import (
    Config,
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimConfig,
    TrainConfig,
)

DATA = DataConfig(size=256)


def cyclegan() -> Config:
    """ResNet-9 there and back, least squares, a pool of 50, cycle 10, identity 5 (Zhu et al., 2017).

    The published generators' least squares are not halved, as `lsgan` is: hence the weight of 2.
    """
    return Config(
        data=DATA,
        generator=GeneratorConfig(network="resnet", num_blocks=9),
        discriminator=DiscriminatorConfig(patch=70, sees="image", spectral_norm=False),
        loss=LossConfig(adversarial="lsgan", lambda_adversarial=2.0, lambda_cycle=10.0, lambda_identity=5.0),
        optim=OptimConfig(schedule="linear"),
        train=TrainConfig(epochs=200, batch_size=1, pairs="shuffled", pool_size=50),
    )


def discogan() -> Config:
    """(1 - r)(0.1 adversarial + 0.9 feature matching) + r L2 cycle, r from 0.01 to 0.5 (Kim et al., 2017).

    Two generator updates for each of the discriminators, which is how often "every third iteration" updates these;
    r grows linearly, where the published one steps.
    """
    return Config(
        data=DATA,
        generator=GeneratorConfig(network="discogan", norm="batch"),
        discriminator=DiscriminatorConfig(network="discogan", sees="image", norm="batch", spectral_norm=False),
        loss=LossConfig(
            lambda_adversarial=0.1,
            lambda_feature_matching=0.9,
            lambda_cycle=1.0,
            cycle_distance="l2",
            cycle_share=(0.01, 0.5),
        ),
        train=TrainConfig(epochs=200, batch_size=1, generator_steps=2, pairs="shuffled"),
    )
