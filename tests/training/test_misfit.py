"""Settings that torch would refuse in the first step are refused before the training."""

import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.training import build_networks as networks
from medgan.training.build_networks import refuse_misfit
from medgan.training.build_training import build_perceptual

pytestmark = pytest.mark.unit


def configured(**values):
    small = {"data.size": 64, "generator.base_channels": 4, "discriminator.base_channels": 4}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


def with_discriminator(network):
    """Returns the settings of a discriminator with its adversarial loss."""
    objective = "began" if network == "autoencoder" else "vanilla"
    return {"discriminator__network": network, "loss__adversarial": objective}


def refused(expected, config, *, slices=2):
    """Checks that a configuration is refused; returns the message."""
    with pytest.raises(InputError, check=expected) as error:
        refuse_misfit(config, slices=slices)
    return str(error.value)


@pytest.mark.parametrize(
    ("network", "size", "divisor"),
    [("resnet", 66, 4), ("filament", 96, 64), ("discogan", 72, 16), ("variational", 72, 16)],
)
def test_refuse_misfit_rejects_size_that_generator_cannot_halve(network, size, divisor):
    message = refused(
        refusal("E-NETWORK-13", size=size, divisor=divisor, rows=size, columns=size),
        configured(generator__network=network, data__size=size),
    )
    assert message.startswith(f"data.size {size}: ")
    refuse_misfit(configured(generator__network=network, data__size=64), slices=2)


@pytest.mark.parametrize(
    ("network", "size", "least"),
    [("discogan", 48, 64), ("filament", 16, 32), ("residual", 16, 32), ("autoencoder", 16, 32)],
)
def test_refuse_misfit_rejects_image_smaller_than_discriminator_needs(network, size, least):
    settings = with_discriminator(network)
    refused(
        refusal("E-NETWORK-12", size=size, least=least, rows=size, columns=size),
        configured(**settings, data__size=size),
    )
    refuse_misfit(configured(**settings, data__size=64), slices=2)


def test_refuse_misfit_skips_unused_discriminator():
    only_l1 = {"loss__lambda_adversarial": 0.0, "loss__lambda_l1": 1.0, "loss__perceptual_weights": [1.0]}
    refuse_misfit(configured(discriminator__network="discogan", data__size=16, **only_l1), slices=1)


@pytest.mark.parametrize(
    ("network", "levels"),
    [("patch", 1 + 2), ("residual", 1 + 4), ("filament", 1 + 5), ("discogan", 1 + 3), ("autoencoder", 1 + 5)],
)
def test_refuse_misfit_rejects_wrong_number_of_perceptual_weights(network, levels):
    settings = {**with_discriminator(network), "loss__lambda_perceptual": 1.0}
    for given in (levels - 1, levels + 1):
        refused(
            refusal("E-LOSS-02", size=64, num_output=levels, num_weights=given),
            configured(**settings, loss__perceptual_weights=[1.0] * given),
        )
    refuse_misfit(configured(**settings, loss__perceptual_weights=[1.0] * levels), slices=2)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_refuse_misfit_rejects_normalization_of_single_pixel(norm, monkeypatch):
    """No network of medgan has this fault, because none normalizes its bottleneck; a later network might."""
    strided = nn.Sequential(nn.Conv2d(1, 2, 64), norm(2), nn.ConvTranspose2d(2, 1, 64))
    monkeypatch.setitem(networks.GENERATORS, "casnet", (lambda: strided.to("meta"), ()))
    message = refused(refusal("E-NETWORK-18", size=64), configured(), slices=1)
    assert all(word in message for word in ("more than 1 slice ", "train.batch_size", "generator.depth", "norm "))
    if norm is nn.BatchNorm2d:
        refuse_misfit(configured(), slices=2)


@pytest.mark.parametrize(
    "generator", ["casnet", "resnet", "shallow", "filament", "discogan", "variational", "autoencoder"]
)
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_every_generator_accepts_single_slice_of_smallest_size(generator, norm):
    size = 64 if generator == "filament" else 16
    refuse_misfit(configured(generator__network=generator, generator__norm=norm, data__size=size), slices=1)


@pytest.mark.parametrize("block", ["u", "residual", "double"])
@pytest.mark.parametrize("depth", [2, 4, None])
def test_casnet_of_every_depth_accepts_single_slice(block, depth):
    config = configured(generator__block=block, generator__depth=depth, generator__norm="batch", data__size=16)
    refuse_misfit(config, slices=1)


@pytest.mark.parametrize("network", ["vgg19", "squeezenet", "alexnet", "in_domain"])
def test_refuse_misfit_checks_extractor_without_weights_file(network):
    config = configured(
        extractor__network=network, extractor__weights="/nowhere.pth", loss__lambda_content=1.0,
        loss__content_blocks=[1, 4], loss__lambda_style=1.0, loss__style_blocks=[2],
    )  # fmt: skip
    refuse_misfit(config, slices=1)


def test_refuse_misfit_rejects_image_too_small_for_extractor_block():
    config = configured(extractor__network="alexnet", loss__lambda_style=1.0, loss__style_blocks=[5], data__size=16)
    with pytest.raises(InputError, check=refusal("E-EXTRACTOR-06", size=16, network="alexnet", rows=16, columns=16)):
        refuse_misfit(config, slices=1)


def test_refuse_misfit_needs_no_memory_for_large_images():
    config = with_values(Config(), {"data.size": 1024, "generator.num_blocks": 8})
    refuse_misfit(config, slices=64)  # images of this size would need hundreds of GiB


def test_refuse_misfit_rejects_mmd_on_single_slice_per_process():
    config = configured(loss__lambda_mmd=1.0, train__batch_size=2)
    refuse_misfit(config, slices=2)
    with pytest.raises(InputError, check=refusal("E-NETWORK-17", slices=1)):
        refuse_misfit(config, slices=1)


def test_refuse_misfit_rejects_parts_that_do_not_divide_slices():
    config = configured(train__batch_size=4, train__accumulate=4)
    refused(refusal("E-NETWORK-16", slices=2, accumulate=4), config, slices=2)
    refuse_misfit(config, slices=4)


def test_refuse_misfit_accepts_recomputed_blocks():
    refuse_misfit(configured(generator__num_blocks=2, generator__recompute="blocks"), slices=1)


@pytest.mark.parametrize(
    ("kind", "present", "missing"),
    [
        ("alex", (), "alexnet*.pth"),
        ("squeeze", (), "squeezenet*.pth"),
        ("alex", ("alexnet-owt.pth",), "alex.pth"),
        ("squeeze", ("squeezenet1_1.pth", "alex.pth"), "squeeze.pth"),
    ],
)
def test_build_perceptual_refuses_folder_without_lpips_weights(kind, present, missing, tmp_path):
    for name in present:
        (tmp_path / name).touch()
    config = configured(metrics__lpips=kind, metrics__lpips_weights=str(tmp_path))
    with pytest.raises(InputError, check=refusal("E-TRAIN-01", pattern=missing, folder=tmp_path)):
        build_perceptual(config, torch.device("cpu"))


def test_build_perceptual_without_lpips_reads_no_file():
    assert build_perceptual(configured(metrics__lpips_weights="/nowhere"), torch.device("cpu")) is None


@pytest.mark.parametrize("name", [name for name in type(Config().loss).model_fields if name.startswith("lambda_")])
def test_config_refuses_negative_weight_of_any_term(name):
    with pytest.raises(InputError, check=refusal("E-CONFIG-18", path=f"loss.{name}", given=-1.0)):
        configured(**{f"loss__{name}": -1.0})
