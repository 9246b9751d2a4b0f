import hashlib
import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medgan.errors import InputError
from medgan.models import extractor
from medgan.models.extractor import Vgg19, download_weights, load_extractor

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
REAL = WEIGHTS / "vgg19_conv1_1-conv3_4.pth"
needs_real_weights = pytest.mark.skipif(not REAL.exists(), reason=f"no VGG-19 weights at {REAL}")


def independent_block_two(state, image):
    """relu1_2 and relu2_2 of a grey image in [-1, 1], on plain functions."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    hidden = ((torch.cat([image] * 3, dim=1) + 1) / 2 - mean) / std
    outputs = []
    for numbers in ((0, 2), (5, 7)):
        for number in numbers:
            kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            hidden = functional.conv2d(hidden, kernel, bias, padding=1).clamp(min=0)
        outputs.append(hidden)
        hidden = functional.max_pool2d(hidden, 2)
    return outputs


@needs_real_weights
def test_the_real_weights_serve_three_blocks():
    network = load_extractor(str(REAL), 3)
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    features = network(image)
    assert [tuple(block.shape) for block in features] == [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8)]
    expected = independent_block_two(torch.load(REAL, weights_only=True), image)
    for one, other in zip(features[:2], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@needs_real_weights
def test_a_block_the_file_lacks_is_refused_by_the_layers_name():
    with pytest.raises(InputError, match=r"lacks features\.19\.weight, needed for block 4 of VGG-19"):
        load_extractor(str(REAL), 4)


@needs_real_weights
@pytest.mark.parametrize("name", ["alexnet_features.pth", "squeezenet1_1_features.pth"])
def test_another_networks_weights_are_refused(name):
    if not (WEIGHTS / name).exists():
        pytest.skip(f"no {name} beside the checkout")
    with pytest.raises(InputError, match=r"is no VGG-19: features\.0\.weight is \(64, 3, |lacks features"):
        load_extractor(str(WEIGHTS / name), 1)


def test_the_last_activation_of_each_block_comes_out():
    network = Vgg19(5)
    assert network.ends == [4, 9, 18, 27, 36]
    assert len(network.state_dict()) == 2 * 16, "sixteen convolutions, and nothing else to load"
    assert len(network.features) == 36, "the last pooling is never needed"


def test_it_is_frozen_and_passes_gradient_to_the_image():
    network = load_extractor("random", 2)
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    network(image)[-1].sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_each_image_of_a_batch_gets_its_own_features():
    network = load_extractor("random", 2)
    images = torch.rand(2, 1, 16, 16) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    for together, first, second in zip(network(images), network(images[:1]), network(images[1:]), strict=True):
        torch.testing.assert_close(together, torch.cat([first, second]))
        assert not torch.allclose(first, second)


def test_an_image_is_mapped_from_minus_one_to_one_to_imagenets_scale():
    network = load_extractor("random", 1)
    first = network.features[0]
    image = torch.full((1, 1, 5, 5), 0.5)  # 0.75 in [0, 1]
    scaled = torch.tensor([(0.75 - 0.485) / 0.229, (0.75 - 0.456) / 0.224, (0.75 - 0.406) / 0.225])
    expected = network.features[1:](first(scaled.view(1, 3, 1, 1).expand(1, 3, 5, 5)))
    torch.testing.assert_close(network(image)[0], expected, rtol=1e-5, atol=1e-5)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone():
    torch.manual_seed(7)
    first = load_extractor("random", 2)
    drawn = torch.rand(3)
    torch.manual_seed(8)
    second = load_extractor("random", 2)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def saved(path, value):
    torch.save(value, path)
    return str(path)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = saved(tmp_path / "other.pth", {"features.0.weight": torch.zeros(8, 1, 3, 3)})
    with pytest.raises(InputError, match=r"is no VGG-19: features.0.weight is \(8, 1, 3, 3\), not \(64, 3, 3, 3\)"):
        load_extractor(path, 1)


@pytest.mark.parametrize("value", [torch.zeros(3), {"epoch": 3}])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, value):
    with pytest.raises(InputError, match="is no state dict of tensors"):
        load_extractor(saved(tmp_path / "odd.pth", value), 1)


def test_a_missing_file_is_refused_with_the_choices():
    with pytest.raises(InputError, match="expected download, random or a file; there is no file /nowhere/vgg.pth"):
        load_extractor("/nowhere/vgg.pth", 1)


class Boom:
    """Unpickling it would run code."""

    def __reduce__(self):
        return pytest.fail, ("code in a weights file was run",)


@pytest.mark.parametrize("content", [b"no weights", pickle.dumps(Boom(), protocol=2)], ids=["text", "code"])
def test_a_file_that_is_no_weights_file_is_refused_and_never_run(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(InputError, match="bad.pth is no PyTorch weights file: "):
        load_extractor(str(tmp_path / "bad.pth"), 1)


class TestDownload:
    CONTENT = b"pretend these are 548 MB"

    @pytest.fixture(autouse=True)
    def server(self, monkeypatch):
        digest = hashlib.sha256(self.CONTENT).hexdigest()[:8]
        monkeypatch.setattr(extractor, "DOWNLOAD", f"https://example.org/vgg19-{digest}.pth")
        self.asked = []

        def answer(content):
            def urlopen(address, timeout):
                self.asked.append(address)
                if isinstance(content, Exception):
                    raise content
                return io.BytesIO(content)

            monkeypatch.setattr(extractor.urllib.request, "urlopen", urlopen)

        return answer

    def test_it_is_fetched_once_and_kept(self, server, tmp_path):
        server(self.CONTENT)
        path = download_weights(tmp_path / "cache")
        assert path.read_bytes() == self.CONTENT
        assert download_weights(tmp_path / "cache") == path
        assert len(self.asked) == 1

    def test_offline_is_refused_with_the_way_out(self, server, tmp_path):
        server(urllib.error.URLError("no route"))
        with pytest.raises(InputError, match="no route.*give a file: --set extractor.weights=FILE"):
            download_weights(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_damaged_download_is_refused_and_not_kept(self, server, tmp_path):
        server(self.CONTENT[:-1])
        with pytest.raises(InputError, match=r"is damaged \(SHA-256 differs\)"):
            download_weights(tmp_path)
        assert not list(tmp_path.iterdir())
