"""Defines the methods that translate in both directions, as published; they learn from shuffled pairs."""

from medgan.config import Config, DataConfig, DiscriminatorConfig, GeneratorConfig, LossConfig, OptimConfig, TrainConfig

DATA = DataConfig(size=256)


def cyclegan() -> Config:
    """Returns CycleGAN: two nine-block ResNets, least squares, a pool of 50, cycle 10, identity 5 (Zhu et al., 2017).

    The adversarial weight is 2, because `lsgan` is halved and the published generators' least squares are not.
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
    """Returns DiscoGAN: (1 - r)(0.1 adversarial + 0.9 feature matching) + r L2 cycle (Kim et al., 2017).

    r grows linearly from 0.01 to 0.5; in the published code it grows in steps. Each update of the discriminators has
    two updates of the generators, which has the effect of the published "every third iteration".
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
