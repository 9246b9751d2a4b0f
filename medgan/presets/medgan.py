"""The presets: what the published methods set, as configurations."""

from __future__ import annotations

from medgan.config import Config, DataConfig, ExtractorConfig, GeneratorConfig, LossConfig, TrainConfig


def medgan() -> Config:
    """MedGAN as published: CasNet of six U-blocks, 16 x 16 patches, all four losses, three G updates for each of D.

    Source: Armanious et al., sections 2 and 3 (arXiv 1806.06397).
    """
    return Config(
        data=DataConfig(size=256),
        generator=GeneratorConfig(num_blocks=6, base_channels=64),
        loss=LossConfig(lambda_perceptual=20.0, lambda_style=1e-4, lambda_content=1e-4),
        extractor=ExtractorConfig(weights="download"),
        train=TrainConfig(epochs=200, batch_size=1, generator_steps=3),
    )


PRESETS = {"medgan": medgan}
