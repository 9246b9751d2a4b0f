"""What torch would refuse in the first step is refused before it, by name."""

import re

import pytest
import torch
from refusal import refusal
from torch import nn

from medgan.config import Config, with_values
from medgan.errors import InputError
from medgan.training import build_networks as networks
from medgan.training.build_networks import refuse_misfit
from medgan.training.build_training import build_perceptual


def configured(**values):
    small = {"data.size": 64, "generator.base_channels": 4, "discriminator.base_channels": 4}
    return with_values(Config(), small | {name.replace("__", "."): value for name, value in values.items()})


def judged_by(network):
    """A discriminator with the adversarial objective made for it."""
    objective = "began" if network == "autoencoder" else "vanilla"
    return {"discriminator__network": network, "loss__adversarial": objective}


def refused(message, config, *, slices=2):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        refuse_misfit(config, slices=slices)


@pytest.mark.parametrize(
    ("network", "size", "divisor"),
    [("resnet", 66, 4), ("filament", 96, 64), ("discogan", 72, 16), ("variational", 72, 16)],
)
def test_a_size_the_generator_cannot_halve_is_refused(network, size, divisor):
    refused(
        f"data.size {size}: generator: expected sides that are multiples of {divisor}; got {size} x {size}",
        configured(generator__network=network, data__size=size),
    )
    refuse_misfit(configured(generator__network=network, data__size=64), slices=2)


@pytest.mark.parametrize(
    ("network", "size", "least"),
    [("discogan", 48, 64), ("filament", 16, 32), ("residual", 16, 32), ("autoencoder", 16, 32)],
)
def test_an_image_smaller_than_the_discriminator_takes_is_refused(network, size, least):
    settings = judged_by(network)
    refused(
        f"data.size {size}: discriminator: expected an image of at least {least} x {least}; got {size} x {size}",
        configured(**settings, data__size=size),
    )
    refuse_misfit(configured(**settings, data__size=64), slices=2)


def test_without_a_discriminator_none_is_tried():
    only_l1 = {"loss__lambda_adversarial": 0.0, "loss__lambda_l1": 1.0, "loss__perceptual_weights": [1.0]}
    refuse_misfit(configured(discriminator__network="discogan", data__size=16, **only_l1), slices=1)


@pytest.mark.parametrize(
    ("network", "levels"),
    [("patch", 1 + 2), ("residual", 1 + 4), ("filament", 1 + 5), ("discogan", 1 + 3), ("autoencoder", 1 + 5)],
)
def test_another_number_of_perceptual_weights_than_of_levels_is_refused(network, levels):
    settings = {**judged_by(network), "loss__lambda_perceptual": 1.0}
    for given in (levels - 1, levels + 1):
        refused(
            f"data.size 64: loss.perceptual_weights: expected {levels}, one for the pixels and one for each "
            f"discriminator layer; got {given}",
            configured(**settings, loss__perceptual_weights=[1.0] * given),
        )
    refuse_misfit(configured(**settings, loss__perceptual_weights=[1.0] * levels), slices=2)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_normalization_of_a_single_pixel_is_refused_with_the_ways_out(norm, monkeypatch):
    """No network of ours comes to it, they leave out the norm at the bottleneck; one to come might."""
    strided = nn.Sequential(nn.Conv2d(1, 2, 64), norm(2), nn.ConvTranspose2d(2, 1, 64))
    monkeypatch.setitem(networks.GENERATORS, "casnet", (lambda: strided.to("meta"), ()))
    reason = "normalization of a map of one pixel needs more than the 1 slice each process trains on; set "
    reason += "train.batch_size higher, generator.depth lower, or the norm to none"
    refused(f"data.size 64: {reason}", configured(), slices=1)
    if norm is nn.BatchNorm2d:
        refuse_misfit(configured(), slices=2)


@pytest.mark.parametrize(
    "generator", ["casnet", "resnet", "shallow", "filament", "discogan", "variational", "autoencoder"]
)
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_every_generator_takes_a_single_slice_of_its_smallest_size(generator, norm):
    size = 64 if generator == "filament" else 16
    refuse_misfit(configured(generator__network=generator, generator__norm=norm, data__size=size), slices=1)


@pytest.mark.parametrize("block", ["u", "residual", "double"])
@pytest.mark.parametrize("depth", [2, 4, None])
def test_every_depth_of_a_casnet_takes_a_single_slice(block, depth):
    config = configured(generator__block=block, generator__depth=depth, generator__norm="batch", data__size=16)
    refuse_misfit(config, slices=1)


@pytest.mark.parametrize("network", ["vgg19", "squeezenet", "alexnet", "in_domain"])
def test_the_extractor_is_tried_without_its_weights(network):
    config = configured(
        extractor__network=network, extractor__weights="/nowhere.pth", loss__lambda_content=1.0,
        loss__content_blocks=[1, 4], loss__lambda_style=1.0, loss__style_blocks=[2],
    )  # fmt: skip
    refuse_misfit(config, slices=1)


def test_an_image_too_small_for_the_extractors_deepest_block_is_refused():
    config = configured(extractor__network="alexnet", loss__lambda_style=1.0, loss__style_blocks=[5], data__size=16)
    with pytest.raises(InputError, check=refusal("E-EXTRACTOR-06", network="alexnet", rows="16")):
        refuse_misfit(config, slices=1)


def test_trying_costs_no_memory():
    config = with_values(Config(), {"data.size": 1024, "generator.num_blocks": 8})
    refuse_misfit(config, slices=64)  # real numbers of this size would take hundreds of GiB


def test_pixels_of_a_single_slice_in_each_process_cannot_be_compared_as_a_batch():
    config = configured(loss__lambda_mmd=1.0, train__batch_size=2)
    refuse_misfit(config, slices=2)
    with pytest.raises(InputError, check=refusal("E-NETWORK-17", slices="1")):
        refuse_misfit(config, slices=1)


def test_parts_that_a_processs_share_of_a_batch_cannot_be_split_into_are_refused():
    config = configured(train__batch_size=4, train__accumulate=4)
    refused("train.accumulate: expected a divisor of the 2 slices each process trains on; got 4", config, slices=2)
    refuse_misfit(config, slices=4)


def test_blocks_that_are_computed_again_are_tried_as_well():
    refuse_misfit(configured(generator__num_blocks=2, generator__recompute="blocks"), slices=1)


@pytest.mark.parametrize(
    ("kind", "present", "missing"),
    [
        ("alex", (), r"alexnet\*.pth"),
        ("squeeze", (), r"squeezenet\*.pth"),
        ("alex", ("alexnet-owt.pth",), "alex.pth"),
        ("squeeze", ("squeezenet1_1.pth", "alex.pth"), "squeeze.pth"),
    ],
)
def test_a_folder_without_the_lpips_weights_is_refused_with_the_file_it_lacks(kind, present, missing, tmp_path):
    for name in present:
        (tmp_path / name).touch()
    config = configured(metrics__lpips=kind, metrics__lpips_weights=str(tmp_path))
    message = refusal("E-TRAIN-01")
    with pytest.raises(InputError, check=message):
        build_perceptual(config, torch.device("cpu"))


def test_without_lpips_no_file_is_looked_for():
    assert build_perceptual(configured(metrics__lpips_weights="/nowhere"), torch.device("cpu")) is None


@pytest.mark.parametrize("name", [name for name in type(Config().loss).model_fields if name.startswith("lambda_")])
def test_a_negative_weight_of_any_term_is_refused(name):
    with pytest.raises(InputError, check=refusal("E-CONFIG-18", given="-1.0")):
        configured(**{f"loss__{name}": -1.0})
