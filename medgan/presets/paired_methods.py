"""Defines the methods that learn from pairs and with which MedGAN is compared, as published (table II)."""

from medgan.config import (
    Config,
    DataConfig,
    DiscriminatorConfig,
    ExtractorConfig,
    GeneratorConfig,
    LossConfig,
    OptimConfig,
    TrainConfig,
)

DATA = DataConfig(size=256)
TRAIN = TrainConfig(epochs=200, batch_size=1)
U_NET = GeneratorConfig(norm="batch", dropout=0.5)
PATCH_70 = DiscriminatorConfig(patch=70, norm="batch", spectral_norm=False)


def pix2pix() -> Config:
    """Returns pix2pix: U-Net with batch norm and dropout, 70 x 70 patches, 100 L1, flips, jitter (Isola et al., 2017).

    With a batch of one, batch norm is instance norm in training; set `generator.norm=instance` for evaluation too.
    """
    return Config(
        data=DATA,
        generator=U_NET,
        discriminator=PATCH_70,
        loss=LossConfig(lambda_l1=100.0, lambda_discriminator=0.5),
        optim=OptimConfig(schedule="linear"),
        train=TRAIN.model_copy(update={"augment": "flip_shift"}),
    )


def pan() -> Config:
    """Returns PAN: the discriminator's features, weighted by level, replace L1, with a margin (Wang et al., 2018)."""
    return Config(
        data=DATA,
        generator=U_NET,
        discriminator=PATCH_70,
        loss=LossConfig(
            lambda_perceptual=1.0,
            perceptual_weights=(5.0, 1.0, 1.0, 1.0, 5.0),
            lambda_discriminator=0.5,
            lambda_margin=1.0,
            margin=50.0,
        ),
        train=TRAIN,
    )


def id_cgan() -> Config:
    """Returns ID-CGAN: a network of full resolution, 150 content on VGG relu2_2 and 150 L2 (Zhang et al., 2017).

    Its weights of the losses are for features as torchvision's networks give them, not as Oxford's do.
    """
    return Config(
        data=DATA,
        generator=GeneratorConfig(network="shallow", norm="batch"),
        discriminator=DiscriminatorConfig(patch=70, base_channels=48, norm="batch", spectral_norm=False),
        loss=LossConfig(lambda_content=150.0, content_blocks=(2,), lambda_l2=150.0),
        extractor=ExtractorConfig(weights="download", scale="as_is"),
        train=TRAIN,
    )


def fila_sgan() -> Config:
    """Returns Fila-sGAN: a U-shape with noise, 10 style, 1 content, 100 total variation (Zhao et al., 2018, a port).

    Its weights of the losses are for features as torchvision's networks give them, not as Oxford's do.
    """
    return Config(
        data=DATA,
        generator=GeneratorConfig(network="filament", norm="batch"),
        discriminator=DiscriminatorConfig(network="filament", base_channels=32, norm="batch", spectral_norm=False),
        loss=LossConfig(
            lambda_style=10.0, style_blocks=(1, 2, 3, 4, 5), lambda_content=1.0, content_blocks=(4,), lambda_tv=100.0
        ),
        extractor=ExtractorConfig(weights="download", scale="as_is"),
        train=TRAIN,
    )


def vae() -> Config:
    """Returns a variational autoencoder from source to target, with L1 and the latent's KL (Kingma & Welling, 2014)."""
    return Config(
        data=DATA,
        generator=GeneratorConfig(network="variational"),
        loss=LossConfig(lambda_adversarial=0.0, lambda_l1=1.0, lambda_kl=0.01),
        train=TRAIN,
    )


def refinegan() -> Config:
    """Returns RefineGAN: two chained residual encoder-decoders, L1 after each, Wasserstein critic (Quan et al., 2018).

    This is the image-domain form; the published one also compares undersampled k-space. The loss weights are pix2pix's.
    The critic has a gradient penalty; clipping would also clip the scales of its norms, and its output would vanish.
    """
    return Config(
        data=DATA,
        generator=GeneratorConfig(block="residual", num_blocks=2),
        discriminator=DiscriminatorConfig(network="residual", spectral_norm=False),
        loss=LossConfig(adversarial="wasserstein", lambda_gradient_penalty=10.0, lambda_l1=100.0, lambda_stages=100.0),
        train=TRAIN,
    )
