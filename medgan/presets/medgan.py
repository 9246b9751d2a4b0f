"""Defines MedGAN and the rows of its ablation (Armanious et al., arXiv 1806.06397, sections 2 and 3, table I)."""

from medgan.config import Config, DataConfig, ExtractorConfig, GeneratorConfig, LossConfig, TrainConfig

PERCEPTUAL, STYLE, CONTENT = 20.0, 1e-4, 1e-4
"""These are the paper's loss weights."""


def medgan() -> Config:
    """Returns the published MedGAN: six U-blocks, 16 x 16 patches, all four losses, three G updates per D update."""
    loss = LossConfig(lambda_perceptual=PERCEPTUAL, lambda_style=STYLE, lambda_content=CONTENT)
    return _row(loss, num_blocks=6, generator_steps=3)


def medgan_1g() -> Config:
    """Returns MedGAN-1G: all four losses, one U-block."""
    return _row(LossConfig(lambda_perceptual=PERCEPTUAL, lambda_style=STYLE, lambda_content=CONTENT))


def cgan() -> Config:
    """Returns the method with the conditional adversarial loss alone and one U-block."""
    return _row(LossConfig())


def perceptual() -> Config:
    """Returns the method with adversarial and perceptual loss and one U-block."""
    return _row(LossConfig(lambda_perceptual=PERCEPTUAL))


def style_content() -> Config:
    """Returns the method with adversarial, style and content loss and one U-block."""
    return _row(LossConfig(lambda_style=STYLE, lambda_content=CONTENT))


def unet_l1() -> Config:
    """Returns the baseline for every GAN: a U-Net of double convolutions, with L1 alone and no discriminator.

    It has no U-block, whose finest skip connection is at half the resolution: a baseline should be as good as possible.
    """
    config = _row(LossConfig(lambda_adversarial=0.0, lambda_l1=1.0))
    return config.model_copy(update={"generator": GeneratorConfig(block="double", depth=4)})


def _row(loss: LossConfig, *, num_blocks: int = 1, generator_steps: int = 1) -> Config:
    return Config(
        data=DataConfig(size=256),
        generator=GeneratorConfig(num_blocks=num_blocks),
        loss=loss,
        extractor=ExtractorConfig(weights="download"),
        train=TrainConfig(epochs=200, batch_size=1, generator_steps=generator_steps),
    )
