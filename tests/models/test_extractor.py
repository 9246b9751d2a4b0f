import pickle
from pathlib import Path

import pytest
import torch
from refusal import refusal

from medgan.config import EXTRACTOR_BLOCKS
from medgan.errors import InputError
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import save_encoder

pytestmark = pytest.mark.unit

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
FILES = {
    "vgg19": WEIGHTS / "vgg19_conv1_1-conv3_4.pth",
    "alexnet": WEIGHTS / "alexnet_features.pth",
    "squeezenet": WEIGHTS / "squeezenet1_1_features.pth",
}
real = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no trained weights at {WEIGHTS}")


@pytest.mark.real
@real
def test_load_extractor_refuses_block_that_file_lacks():
    path = str(FILES["vgg19"])
    expected = refusal("E-EXTRACTOR-03", weights=path, name="features.19.weight", deepest=4, network="vgg19")
    with pytest.raises(InputError, check=expected):
        load_extractor("vgg19", path, 4)


@pytest.mark.real
@real
@pytest.mark.parametrize(
    ("network", "found", "layer", "shapes"),
    [
        ("vgg19", "alexnet", "features.0.weight", ((64, 3, 11, 11), (64, 3, 3, 3))),
        ("vgg19", "squeezenet", "features.3.squeeze.weight", None),
        ("alexnet", "vgg19", "features.0.weight", ((64, 3, 3, 3), (64, 3, 11, 11))),
        ("alexnet", "squeezenet", "features.0.weight", ((64, 3, 3, 3), (64, 3, 11, 11))),
        ("squeezenet", "vgg19", "features.2.weight", None),
        ("squeezenet", "alexnet", "features.0.weight", ((64, 3, 11, 11), (64, 3, 3, 3))),
    ],
)
def test_load_extractor_refuses_weights_of_another_network(network, found, layer, shapes):
    """The first layers of two networks may be equal; `shapes` are those of the file and of the network."""
    expected = refusal("E-EXTRACTOR-04", name=layer)
    if shapes:
        expected = refusal("E-EXTRACTOR-05", name=layer, value_shape=shapes[0], whole_shape=shapes[1])
    with pytest.raises(InputError, match=f"{FILES[found]} does not hold the weights of {network}", check=expected):
        load_extractor(network, str(FILES[found]), 1)


def test_load_extractor_refuses_vgg16_weights_for_vgg19(tmp_path):
    state = load_extractor("vgg19", "random", 3).state_dict()
    state["features.17.weight"] = state.pop("features.16.weight")
    expected = refusal("E-EXTRACTOR-04", name="features.17.weight")
    with pytest.raises(InputError, match="vgg16.pth does not hold the weights of vgg19", check=expected):
        load_extractor("vgg19", saved(tmp_path / "vgg16.pth", state), 2)


def test_load_extractor_refuses_unknown_network():
    with pytest.raises(
        InputError, check=refusal("E-EXTRACTOR-01", networks="vgg19, squeezenet, alexnet, in_domain", network="vgg16")
    ):
        load_extractor("vgg16", "random", 1)


def test_random_extractor_keeps_activation_size_at_every_depth():
    """Kaiming's initialization does this; with PyTorch's own, activations would shrink with every block."""
    for network, blocks in EXTRACTOR_BLOCKS.items():
        features = load_extractor(network, "random", blocks)(torch.rand(1, 1, 64, 64) * 2 - 1)
        assert all(0.05 < block.std() < 50 for block in features), network


def saved(path, value):
    torch.save(value, path)
    return str(path)


def test_load_extractor_refuses_layer_of_another_shape(tmp_path):
    path = saved(tmp_path / "other.pth", {"features.0.weight": torch.zeros(8, 1, 3, 3)})
    with pytest.raises(
        InputError,
        match="other.pth does not hold the weights of vgg19",
        check=refusal(
            "E-EXTRACTOR-05", name="features.0.weight", value_shape="(8, 1, 3, 3)", whole_shape="(64, 3, 3, 3)"
        ),
    ):
        load_extractor("vgg19", path, 1)


@pytest.mark.parametrize("value", [torch.zeros(3), {"epoch": 3}, {0: torch.zeros(3)}])
def test_load_extractor_refuses_file_without_state_dict(tmp_path, value):
    path = saved(tmp_path / "odd.pth", value)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-06", path=path, found=type(value).__name__)):
        load_extractor("vgg19", path, 1)


def test_load_extractor_refuses_missing_file():
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-04", path="/nowhere/vgg.pth")):
        load_extractor("vgg19", "/nowhere/vgg.pth", 1)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-07", path="/nowhere/mine")):
        load_extractor("in_domain", "/nowhere/mine", 1)


class Boom:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code in a weights file was run",)


@pytest.mark.parametrize("content", [b"no weights", pickle.dumps(Boom(), protocol=2)], ids=["text", "code"])
def test_load_extractor_refuses_unreadable_file_and_never_runs_code(tmp_path, content):
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-05", path=path)):
        load_extractor("alexnet", str(path), 1)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-08", path=path)):
        load_extractor("in_domain", str(path), 1)


def test_encoder_file_serves_as_many_blocks_as_were_saved(tmp_path):
    save_encoder(tmp_path / "mine.safetensors", load_extractor("in_domain", "random", 2))
    assert len(load_extractor("in_domain", str(tmp_path / "mine.safetensors"), 2).features) == 2
    with pytest.raises(
        InputError, check=refusal("E-EXTRACTOR-03", name="features.2.0.weight", deepest="4", network="in_domain")
    ):
        load_extractor("in_domain", str(tmp_path / "mine.safetensors"), 4)
