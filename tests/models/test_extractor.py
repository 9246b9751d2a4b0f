import pickle
from pathlib import Path

import pytest
import torch
from refusal import refusal

from medgan.config import EXTRACTOR_BLOCKS
from medgan.errors import InputError
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import save_encoder

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
FILES = {
    "vgg19": WEIGHTS / "vgg19_conv1_1-conv3_4.pth",
    "alexnet": WEIGHTS / "alexnet_features.pth",
    "squeezenet": WEIGHTS / "squeezenet1_1_features.pth",
}
real = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no trained weights at {WEIGHTS}")


@pytest.mark.real
@real
def test_a_block_the_file_lacks_is_refused_by_the_layers_name():
    with pytest.raises(
        InputError, check=refusal("E-EXTRACTOR-03", name="features.19.weight", deepest="4", network="vgg19")
    ):
        load_extractor("vgg19", str(FILES["vgg19"]), 4)


@pytest.mark.real
@real
@pytest.mark.parametrize(
    ("network", "came", "message"),
    [
        ("vgg19", "alexnet", r"features\.0\.weight is \(64, 3, 11, 11\), not \(64, 3, 3, 3\)"),
        ("vgg19", "squeezenet", r"features\.3\.squeeze\.weight is none of its layers"),
        ("alexnet", "vgg19", r"features\.0\.weight is \(64, 3, 3, 3\), not \(64, 3, 11, 11\)"),
        ("alexnet", "squeezenet", r"features\.0\.weight is \(64, 3, 3, 3\), not \(64, 3, 11, 11\)"),
        ("squeezenet", "vgg19", r"features\.2\.weight is none of its layers"),
        ("squeezenet", "alexnet", r"features\.0\.weight is \(64, 3, 11, 11\), not \(64, 3, 3, 3\)"),
    ],
)
def test_another_networks_weights_are_refused_even_where_the_first_layers_agree(network, came, message):
    with pytest.raises(InputError, match=rf"extractor\.weights: {FILES[came]} is no {network}: {message}"):
        load_extractor(network, str(FILES[came]), 1)


def test_vgg16_is_no_vgg19_though_its_first_seven_convolutions_have_the_same_shapes(tmp_path):
    state = load_extractor("vgg19", "random", 3).state_dict()
    state["features.17.weight"] = state.pop("features.16.weight")
    with pytest.raises(InputError, check=refusal("E-EXTRACTOR-04", name="features.17.weight")):
        load_extractor("vgg19", saved(tmp_path / "vgg16.pth", state), 2)


def test_a_network_nobody_knows_is_refused():
    with pytest.raises(
        InputError, check=refusal("E-EXTRACTOR-01", networks="vgg19, squeezenet, alexnet, in_domain", network="vgg16")
    ):
        load_extractor("vgg16", "random", 1)


def test_random_weights_keep_an_activations_size_through_the_depth():
    """Kaiming's initialization; the framework's own would fade by a factor a block."""
    for network, blocks in EXTRACTOR_BLOCKS.items():
        features = load_extractor(network, "random", blocks)(torch.rand(1, 1, 64, 64) * 2 - 1)
        assert all(0.05 < block.std() < 50 for block in features), network


def saved(path, value):
    torch.save(value, path)
    return str(path)


def test_a_file_of_another_shape_is_refused(tmp_path):
    path = saved(tmp_path / "other.pth", {"features.0.weight": torch.zeros(8, 1, 3, 3)})
    with pytest.raises(
        InputError,
        check=refusal(
            "E-EXTRACTOR-05", name="features.0.weight", value_shape="(8, 1, 3, 3)", whole_shape="(64, 3, 3, 3)"
        ),
    ):
        load_extractor("vgg19", path, 1)


@pytest.mark.parametrize("value", [torch.zeros(3), {"epoch": 3}, {0: torch.zeros(3)}])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, value):
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-06")):
        load_extractor("vgg19", saved(tmp_path / "odd.pth", value), 1)


def test_a_missing_file_is_refused_with_the_choices():
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-04", path="/nowhere/vgg.pth")):
        load_extractor("vgg19", "/nowhere/vgg.pth", 1)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-07", path="/nowhere/mine")):
        load_extractor("in_domain", "/nowhere/mine", 1)


class Boom:
    """Unpickling it would run code."""

    def __reduce__(self):
        return pytest.fail, ("code in a weights file was run",)


@pytest.mark.parametrize("content", [b"no weights", pickle.dumps(Boom(), protocol=2)], ids=["text", "code"])
def test_a_file_that_is_no_weights_file_is_refused_and_never_run(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-05")):
        load_extractor("alexnet", str(tmp_path / "bad.pth"), 1)
    with pytest.raises(InputError, check=refusal("E-WEIGHTS-08")):
        load_extractor("in_domain", str(tmp_path / "bad.pth"), 1)


def test_an_encoder_serves_as_many_blocks_as_its_file_holds(tmp_path):
    save_encoder(tmp_path / "mine.safetensors", load_extractor("in_domain", "random", 2))
    assert len(load_extractor("in_domain", str(tmp_path / "mine.safetensors"), 2).features) == 2
    with pytest.raises(
        InputError, check=refusal("E-EXTRACTOR-03", name="features.2.0.weight", deepest="4", network="in_domain")
    ):
        load_extractor("in_domain", str(tmp_path / "mine.safetensors"), 4)
