from functools import cache
from pathlib import Path

import pytest
import torch
from refusal import refusal
from torch.nn import functional

from medgan.errors import InputError
from medgan.metrics.lpips import WIDTHS, lpips, read_heads
from medgan.models.extractor import load_extractor
from medgan.models.imagenet_input import MEAN, STD

pytestmark = pytest.mark.unit

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
FILES = {"alexnet": ("alexnet_features.pth", "alex.pth"), "squeezenet": ("squeezenet1_1_features.pth", "squeeze.pth")}
BOTH = pytest.mark.parametrize("network", sorted(FILES))
needs_real_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no trained weights at {WEIGHTS}")


@cache
def trained(network):
    features, heads = FILES[network]
    return {
        "extractor": load_extractor(network, str(WEIGHTS / features), len(WIDTHS[network])),
        "heads": read_heads(WEIGHTS / "lpips_v0.1" / heads),
    }


@cache
def untrained(network):
    generator = torch.Generator().manual_seed(1)
    return {
        "extractor": load_extractor(network, "random", len(WIDTHS[network])),
        "heads": [torch.rand(1, width, 1, 1, generator=generator) for width in WIDTHS[network]],
    }


EITHER = pytest.mark.parametrize(
    "weights",
    [untrained, pytest.param(trained, marks=[pytest.mark.real, needs_real_weights])],
    ids=lambda one: one.__name__,
)


def images(count=3, side=64):
    """Smooth random pictures in [-1, 1]."""
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(2))
    return torch.tanh(4 * blurred(noise, 5))


def blurred(image, radius):
    return functional.avg_pool2d(image, 2 * radius + 1, 1, radius, count_include_pad=False) if radius else image


@BOTH
@EITHER
def test_lpips_is_symmetric_and_zero_for_equal_images(network, weights):
    options, one, other = weights(network), images(), images().flip(0)
    assert torch.equal(lpips(one, one, **options), torch.zeros(3))
    forward, backward = lpips(one, other, **options), lpips(other, one, **options)
    assert forward.shape == (3,) and forward[0] > 0 and forward[1] == 0
    torch.testing.assert_close(forward, backward)


@BOTH
@EITHER
def test_lpips_of_image_is_equal_alone_and_in_batch(network, weights):
    options, one, other = weights(network), images(4), images(4).roll(1, 0)
    alone = [lpips(one[row : row + 1], other[row : row + 1], **options) for row in range(4)]
    torch.testing.assert_close(lpips(one, other, **options), torch.cat(alone), rtol=1e-4, atol=1e-6)


@BOTH
@EITHER
def test_lpips_grows_with_noise(network, weights):
    options, image = weights(network), images()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    values = torch.stack([lpips(image + level * noise, image, **options) for level in (0, 0.05, 0.1, 0.2, 0.4)])
    assert (values.diff(dim=0) > 0).all()


@BOTH
@pytest.mark.real
@needs_real_weights
def test_lpips_grows_with_blur(network):
    options, image = trained(network), images()
    values = torch.stack([lpips(blurred(image, radius), image, **options) for radius in (0, 1, 2, 4, 6)])
    assert (values.diff(dim=0) > 0).all()


@BOTH
@EITHER
def test_lpips_is_proportional_to_heads(network, weights):
    options, one, other = weights(network), images(1), images(2)[1:]
    doubled = options | {"heads": [2 * head for head in options["heads"]]}
    torch.testing.assert_close(lpips(one, other, **doubled), 2 * lpips(one, other, **options))


def test_imagenet_scale_equals_lpips_scaling_layer():
    """Its shift and scale apply to [-1, 1]: (x - (2 mean - 1)) / (2 std) = ((x + 1) / 2 - mean) / std."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    torch.testing.assert_close(2 * mean - 1, shift)
    torch.testing.assert_close(2 * std, scale)
    x = torch.linspace(-1, 1, 9).view(-1, 1)
    torch.testing.assert_close((x - shift) / scale, ((x + 1) / 2 - mean) / std, rtol=1e-5, atol=1e-6)


def lpips_by_hand(one, other, state, heads):
    """LPIPS 0.1 "alex" of two grey images, position by position, with its own scaling layer, on plain functions."""
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]]).view(2, 1, 3, 1, 1)
    hidden = (torch.cat([torch.cat([image] * 3, dim=1) for image in (one, other)]) - shift) / scale
    total = 0.0
    for index, (number, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if index in (1, 2):
            hidden = functional.max_pool2d(hidden, 3, 2)
        kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        hidden = functional.conv2d(hidden, kernel, bias, stride=stride, padding=padding).relu()
        weights, places = heads[f"lin{index}.model.1.weight"].flatten(), []
        for row in range(hidden.shape[2]):
            for column in range(hidden.shape[3]):
                first, second = hidden[:, :, row, column].double()
                difference = first / first.norm().clamp(min=1e-10) - second / second.norm().clamp(min=1e-10)
                places.append(float((weights * difference**2).sum()))
        total += sum(places) / len(places)
    return total


@pytest.mark.real
@needs_real_weights
def test_lpips_of_alexnet_equals_plain_functions():
    one, other = images(2, 48).split(1)
    state = torch.load(WEIGHTS / "alexnet_features.pth", weights_only=True)
    heads = torch.load(WEIGHTS / "lpips_v0.1" / "alex.pth", weights_only=True)
    expected = lpips_by_hand(one, other, state, heads)
    assert lpips(one, other, **trained("alexnet")).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.real
@needs_real_weights
def test_lpips_of_squeezenet_equals_values_in_torchmetrics_manual():
    """Two pairs of color noise, "squeeze": learned_perceptual_image_patch_similarity, torchmetrics 1.9."""
    generator = torch.Generator().manual_seed(42)
    one, other = (torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1 for _ in range(2))
    torch.testing.assert_close(
        lpips(one, other, **trained("squeezenet")), torch.tensor([0.1024, 0.0938]), rtol=0, atol=6e-5
    )


def test_lpips_refuses_heads_of_another_network():
    options = untrained("squeezenet") | {"heads": untrained("alexnet")["heads"]}
    with pytest.raises(
        ValueError, check=refusal("E-LPIPS-01", features=list(WIDTHS["squeezenet"]), weights=list(WIDTHS["alexnet"]))
    ):
        lpips(images(), images(), **options)


def heads_of(widths):
    return {f"lin{block}.model.1.weight": torch.rand(1, width, 1, 1) for block, width in enumerate(widths)}


def saved(path, value):
    torch.save(value, path)
    return path


@BOTH
def test_read_heads_returns_blocks_in_order(network, tmp_path):
    state = heads_of(WIDTHS[network])
    shuffled = dict(reversed(state.items()))
    read = read_heads(saved(tmp_path / "heads.pth", shuffled))
    assert all(torch.equal(one, other) for one, other in zip(read, state.values(), strict=True))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "features.0.weight (64, 3, 11, 11)"),
        (
            heads_of((64, 128, 256, 512, 512)),
            "lin0.model.1.weight (1, 64, 1, 1), lin1.model.1.weight (1, 128, 1, 1), "
            "lin2.model.1.weight (1, 256, 1, 1), lin3.model.1.weight (1, 512, 1, 1), "
            "lin4.model.1.weight (1, 512, 1, 1)",
        ),
        ({"epoch": 3}, "epoch ()"),
        ([1, 2], "list"),
    ],
    ids=["alexnet", "the heads of VGG-16", "numbers", "a list"],
)
def test_read_heads_refuses_file_of_other_content(tmp_path, value, shown):
    path = saved(tmp_path / "odd.pth", value)
    with pytest.raises(InputError, check=refusal("E-LPIPS-04", path=path, shown=shown)):
        read_heads(path)


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_read_heads_refuses_negative_and_undefined_weights(tmp_path, value):
    state = heads_of(WIDTHS["alexnet"])
    state["lin2.model.1.weight"][0, 3] = value
    path = saved(tmp_path / "heads.pth", state)
    with pytest.raises(InputError, check=refusal("E-LPIPS-05", path=path, name="lin2.model.1.weight")):
        read_heads(path)


def test_read_heads_refuses_missing_file():
    with pytest.raises(InputError, check=refusal("E-LPIPS-02", path="/nowhere/alex.pth")):
        read_heads(Path("/nowhere/alex.pth"))


def test_read_heads_refuses_unreadable_file(tmp_path):
    (tmp_path / "bad.pth").write_text("no weights")
    with pytest.raises(InputError, check=refusal("E-LPIPS-03", path=tmp_path / "bad.pth")):
        read_heads(tmp_path / "bad.pth")
