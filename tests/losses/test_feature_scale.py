"""One scale of features: its constants, that they depend on the weights alone, and Oxford's own weights."""

from pathlib import Path

import pytest
import torch
from refusal import refusal

from medgan.config import EXTRACTOR_BLOCKS
from medgan.errors import InputError
from medgan.losses.feature_scale import OXFORD, ScaledFeatures, oxford_factors, reference_image, scaled, sizes_of
from medgan.models.extractor import load_extractor

pytestmark = pytest.mark.unit

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
real = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no trained weights at {WEIGHTS}")
EVERY = pytest.mark.parametrize("network", sorted(EXTRACTOR_BLOCKS))


def test_reference_image_is_fixed():
    image = reference_image()
    assert image.shape == (1, 1, 64, 64) and image.dtype == torch.float64
    assert float(image.min()) >= -1 and float(image.max()) <= 1
    assert float(image.mean()) == pytest.approx(-0.5334, abs=1e-4)
    corner, body, bright, dark = (image[0, 0, row, column] for row, column in ((0, 0), (32, 32), (25, 41), (35, 22)))
    assert [round(float(one), 3) for one in (corner, body, bright, dark)] == [-1.0, -0.054, 0.791, -0.922]


@EVERY
def test_scaled_features_of_random_weights_have_size_of_oxford(network):
    extractor = scaled(load_extractor(network, "random", EXTRACTOR_BLOCKS[network]), "oxford")
    expected = [OXFORD[min(block, 4)] for block in range(EXTRACTOR_BLOCKS[network])]
    assert sizes_of(extractor) == pytest.approx(expected, rel=1e-3)


@EVERY
def test_features_as_they_are_stay_unchanged(network):
    extractor = load_extractor(network, "random", 2)
    assert scaled(extractor, "as_is") is extractor


def test_factors_do_not_depend_on_threads():
    extractor, found = load_extractor("vgg19", "random", 3), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(oxford_factors(extractor))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
    assert all(parameter.dtype == torch.float32 for parameter in extractor.parameters())


def test_factors_follow_scale_of_weights():
    """VGG is positively homogeneous but for its first bias: ten times the last layer gives a tenth of the factor."""
    extractor = load_extractor("vgg19", "random", 1)
    (before,) = oxford_factors(extractor)
    with torch.no_grad():
        extractor.features[2].weight.mul_(10)
        extractor.features[2].bias.mul_(10)
    assert oxford_factors(extractor)[0] == pytest.approx(before / 10, rel=1e-3)


def test_gradient_reaches_image_through_scaled_features():
    extractor = scaled(load_extractor("vgg19", "random", 1), "oxford")
    image = reference_image().float().requires_grad_()
    extractor(image)[0].sum().backward()
    assert image.grad.abs().sum() > 0


def test_size_is_multiplied_as_the_features_are():
    extractor = load_extractor("in_domain", "random", 3)
    doubled = [2 * size for size in sizes_of(extractor)]
    assert sizes_of(ScaledFeatures(extractor, (2.0,) * 3)) == pytest.approx(doubled)


@pytest.mark.real
@real
def test_features_of_oxford_stay_as_they_are():
    extractor = load_extractor("vgg19", str(next(WEIGHTS.glob("vgg19*.pth"))), 3)
    assert oxford_factors(extractor) == (1.0, 1.0, 1.0)
    assert sizes_of(extractor) == pytest.approx(OXFORD[:3], rel=1e-3)


@pytest.mark.real
@real
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("squeezenet", (240.8, 28.33, 26.75, 19.77, 0.3732, 0.4888, 1.472)),
        ("alexnet", (127.7, 67.86, 296.4, 355.3, 14.83)),
    ],
)
def test_factors_of_torchvision_weights_are_known(network, expected):
    extractor = load_extractor(network, str(next(WEIGHTS.glob(f"{network}*.pth"))), EXTRACTOR_BLOCKS[network])
    assert oxford_factors(extractor) == pytest.approx(expected, rel=1e-3)
    assert (
        oxford_factors(load_extractor(network, str(next(WEIGHTS.glob(f"{network}*.pth"))), 2))
        == (oxford_factors(extractor)[:2])
    )


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_features_that_do_not_change_with_image_are_refused(value):
    extractor = load_extractor("in_domain", "random", 2)
    with torch.no_grad():
        extractor.features[1][0].weight.fill_(value)
    with pytest.raises(InputError, check=refusal("E-FEATURES-05", block=2)):
        oxford_factors(extractor)


def test_shapes_alone_have_factors():
    with torch.device("meta"):
        extractor = scaled(load_extractor("squeezenet", "random", 3), "oxford")
        assert [block.shape[1] for block in extractor(torch.zeros(2, 1, 32, 32))] == [64, 128, 256]
    assert extractor.factors == (1.0, 1.0, 1.0)
