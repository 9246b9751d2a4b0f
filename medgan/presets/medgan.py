"""MedGAN and the rows of its ablation (Armanious et al., arXiv 1806.06397, sections 2 and 3, table I)."""

from __future__ import annotations

from medgan.config import Config, DataConfig, ExtractorConfig, GeneratorConfig, LossConfig, TrainConfig

PERCEPTUAL, STYLE, CONTENT = 20.0, 1e-4, 1e-4
"""The paper's loss weights."""


def medgan() -> Config:
    """As published: CasNet of six U-blocks, 16 x 16 patches, all four losses, three G updates for each of D."""
    loss = LossConfig(lambda_perceptual=PERCEPTUAL, lambda_style=STYLE, lambda_content=CONTENT)
    return _row(loss, num_blocks=6, generator_steps=3)


def medgan_1g() -> Config:
    """MedGAN-1G: all four losses, one U-block."""
    return _row(LossConfig(lambda_perceptual=PERCEPTUAL, lambda_style=STYLE, lambda_content=CONTENT))


def cgan() -> Config:
    """The conditional adversarial loss alone, one U-block."""
    return _row(LossConfig())


def perceptual() -> Config:
    """Adversarial and perceptual loss, one U-block."""
    return _row(LossConfig(lambda_perceptual=PERCEPTUAL))


def style_content() -> Config:
    """Adversarial, style and content loss, one U-block."""
    return _row(LossConfig(lambda_style=STYLE, lambda_content=CONTENT))


def unet_l1() -> Config:
    """The U-Net of double convolutions, by L1 alone, without a discriminator: the floor that every GAN must beat.

    Not a U-block, whose finest skip is at half the resolution: a floor is to be as high as it can be.
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
