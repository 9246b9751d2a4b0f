"""Properties that every frozen extractor has."""

import pytest
import torch
from refusal import refusal

from medgan.config import EXTRACTOR_BLOCKS
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import save_encoder

EVERY = pytest.mark.parametrize("network", sorted(EXTRACTOR_BLOCKS))
LEAST = {"vgg19": 16, "alexnet": 31, "squeezenet": 17, "in_domain": 1}


def images(count, side=40):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def written(network, folder, *, drop=""):
    """Writes the weights of the whole network; torchvision's names may lose the prefix `drop`."""
    module = load_extractor(network, "random", EXTRACTOR_BLOCKS[network])
    path = folder / f"{network}.weights"
    if network == "in_domain":
        save_encoder(path, module)
    else:
        torch.save({name.removeprefix(drop): value for name, value in module.state_dict().items()}, path)
    return str(path)


@EVERY
@pytest.mark.parametrize("source", ["random", "file"])
def test_extractor_is_frozen_and_in_evaluation_mode(network, source, tmp_path):
    module = load_extractor(network, written(network, tmp_path) if source == "file" else "random", 2)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


@EVERY
def test_extractor_gradient_reaches_image_but_not_weights(network):
    module = load_extractor(network, "random", EXTRACTOR_BLOCKS[network])
    for block in range(EXTRACTOR_BLOCKS[network]):
        image = images(1).requires_grad_()
        module(image)[block].square().sum().backward()
        assert image.grad.abs().sum() > 0, f"block {block + 1}"
    assert all(parameter.grad is None for parameter in module.parameters())


@EVERY
def test_extractor_returns_as_many_features_as_blocks(network):
    for deepest in range(1, EXTRACTOR_BLOCKS[network] + 1):
        features = load_extractor(network, "random", deepest)(images(1))
        assert isinstance(features, tuple) and len(features) == deepest


@EVERY
def test_shorter_extractor_returns_first_features_of_whole(network, tmp_path):
    weights = written(network, tmp_path)
    whole = load_extractor(network, weights, EXTRACTOR_BLOCKS[network])(images(2))
    for deepest in range(1, EXTRACTOR_BLOCKS[network]):
        short = load_extractor(network, weights, deepest)
        assert all(torch.equal(one, other) for one, other in zip(short(images(2)), whole, strict=False))


@EVERY
def test_extractor_features_of_image_are_equal_alone_and_in_batch(network):
    """Public code expands sample 0 for the whole batch (PAPER, section 6)."""
    module, batch = load_extractor(network, "random", EXTRACTOR_BLOCKS[network]).double(), images(3).double()
    alone = [module(batch[row : row + 1]) for row in range(3)]
    for together, *rows in zip(module(batch), *alone, strict=True):
        torch.testing.assert_close(together, torch.cat(rows))
        assert not torch.allclose(rows[0], rows[1], rtol=1e-3), "different images, different features"


@EVERY
def test_extractor_is_deterministic_and_leaves_image_unchanged(network):
    module, image = load_extractor(network, "random", EXTRACTOR_BLOCKS[network]), images(1)
    first = module(image)
    assert all(torch.equal(one, other) for one, other in zip(first, module(image), strict=True))
    assert torch.equal(image, images(1))


@EVERY
@pytest.mark.parametrize("source", ["random", "file"])
def test_load_extractor_is_deterministic_and_keeps_random_state(network, source, tmp_path):
    weights = written(network, tmp_path) if source == "file" else "random"
    torch.manual_seed(7)
    first = load_extractor(network, weights, 2)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    second = load_extractor(network, weights, 2)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@EVERY
def test_extractor_accepts_least_side_and_refuses_shorter_sides(network):
    module, least = load_extractor(network, "random", EXTRACTOR_BLOCKS[network]), LEAST[network]
    assert all(features.isfinite().all() for features in module(images(1, least)))
    if least > 1:
        with pytest.raises(
            ValueError, check=refusal("E-EXTRACTOR-06", network=network, least=least, rows=40, columns=least - 1)
        ):
            module(torch.zeros(1, 1, 40, least - 1))


@pytest.mark.parametrize("network", ["vgg19", "squeezenet", "alexnet"])
def test_extractor_least_side_is_exact_for_every_number_of_blocks(network):
    for deepest in range(1, EXTRACTOR_BLOCKS[network] + 1):
        module = load_extractor(network, "random", deepest)
        least = module.input.least
        assert module(images(1, least))[-1].numel() > 0
        module.input.least = 0
        if least > 1:
            with pytest.raises(RuntimeError):  # torch's own
                module(images(1, least - 1))


@pytest.mark.parametrize("network", ["vgg19", "squeezenet", "alexnet"])
def test_load_extractor_reads_torchvision_names_and_skips_classifier(network, tmp_path):
    weights = written(network, tmp_path, drop="features.")
    bare = torch.load(weights, weights_only=True)
    assert all(name[0].isdigit() for name in bare)
    module = load_extractor(network, weights, 2)
    full = {f"features.{name}": value for name, value in bare.items()} | {"classifier.1.weight": torch.zeros(3)}
    torch.save(full, tmp_path / "full.pth")
    for one, other in zip(
        module(images(1)), load_extractor(network, str(tmp_path / "full.pth"), 2)(images(1)), strict=True
    ):
        assert torch.equal(one, other)


@EVERY
@pytest.mark.parametrize("deepest", [0, 8])
def test_load_extractor_refuses_block_that_does_not_exist(network, deepest):
    blocks = EXTRACTOR_BLOCKS[network]
    expected = refusal("E-EXTRACTOR-02", network=network, extractor_blocks=blocks, deepest=deepest)
    with pytest.raises(ValueError, check=expected):
        load_extractor(network, "random", deepest)
