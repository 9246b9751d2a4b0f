import errno
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from refusal import refusal
from safetensors.torch import save_file

from medgan.errors import InputError
from medgan.models import extractor_weights as weights
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import download_weights, read_encoder, save_encoder
from medgan.models.in_domain import LOCAL_MEAN, Autoencoder, Encoder

pytestmark = pytest.mark.unit

CONTENT = b"pretend these are many MB" * 100_000


class Server:
    """An HTTP server on this machine that promises `promised` bytes, sends `sends`, and waits until `released`."""

    def __init__(self):
        self.promised, self.sends, self.status, self.requested = len(CONTENT), CONTENT, 200, []
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requested.append(self.path)
                self.send_response(server.status)
                self.send_header("Content-Length", str(server.promised))
                self.end_headers()
                self.wfile.write(server.sends)
                if len(server.sends) < server.promised and server.status == 200:
                    server.released.wait(20)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/models/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(weights, "FILES", {name: f"{name}-{digest}.pth" for name in weights.FILES})
    one = Server()
    monkeypatch.setattr(weights, "SITE", one.address)
    yield one
    one.released.set()
    one.http.shutdown()
    one.http.server_close()


class TestDownload:
    @pytest.mark.parametrize("network", ["vgg19", "squeezenet", "alexnet"])
    def test_download_weights_fetches_file_once_and_keeps_copy(self, server, tmp_path, network):
        path = download_weights(tmp_path / "cache", network=network)
        assert path.name.startswith(network) and path.read_bytes() == CONTENT
        assert download_weights(tmp_path / "cache", network=network) == path
        assert server.requested == [f"/models/{path.name}"]
        assert list(path.parent.iterdir()) == [path]

    def test_download_weights_refuses_and_deletes_damaged_file(self, server, tmp_path):
        server.sends = b"P" + CONTENT[1:]
        with pytest.raises(InputError, check=refusal("E-WEIGHTS-03", path_name=weights.FILES["vgg19"])):
            download_weights(tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("sent", [0, 2_000_000], ids=["from the start", "half way"])
    def test_download_weights_refuses_server_that_stops_sending(self, server, tmp_path, sent):
        server.sends = CONTENT[:sent]
        start_s = time.monotonic()
        with pytest.raises(InputError, check=refusal("E-WEIGHTS-02", network="alexnet", error="timed out")):
            download_weights(tmp_path, 0.2, network="alexnet")
        assert time.monotonic() - start_s < 4, "the setting counts, not a default"
        assert not list(tmp_path.iterdir())

    def test_download_weights_refuses_connection_closed_half_way(self, server, tmp_path):
        server.released.set()
        server.sends = CONTENT[:-1]
        with pytest.raises(InputError, check=lambda error: error.code in ("E-WEIGHTS-02", "E-WEIGHTS-03")):
            download_weights(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_download_weights_refuses_file_missing_on_server(self, server, tmp_path):
        server.status = 404
        with pytest.raises(InputError, match="404", check=refusal("E-WEIGHTS-02", network="vgg19")):
            download_weights(tmp_path)

    def test_download_weights_refuses_unreachable_server(self, server, monkeypatch, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setattr(weights, "SITE", f"http://127.0.0.1:{port}/")
        with pytest.raises(InputError, match="refused", check=refusal("E-WEIGHTS-02", network="vgg19")):
            download_weights(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_download_weights_refuses_network_without_public_weights(self, tmp_path):
        with pytest.raises(InputError, check=refusal("E-WEIGHTS-01", network="in_domain")):
            download_weights(tmp_path, network="in_domain")

    def test_weights_file_names_carry_torchvision_digests(self):
        assert weights.FILES == {
            "vgg19": "vgg19-dcbb9e9d.pth",
            "alexnet": "alexnet-owt-7be5be79.pth",
            "squeezenet": "squeezenet1_1-b8a52dc0.pth",
        }


def test_saved_encoder_loads_frozen_with_equal_features(tmp_path):
    encoder = Autoencoder(6).encoder
    save_encoder(tmp_path / "mine.safetensors", encoder)
    image = torch.rand(1, 1, 32, 32)
    read = load_extractor("in_domain", str(tmp_path / "mine.safetensors"), 4)
    assert all(torch.equal(one, other) for one, other in zip(read(image), encoder(image), strict=True))
    assert next(encoder.parameters()).requires_grad, "the trained one is left as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    assert read_encoder(tmp_path / "mine.safetensors")[0] == {"base_channels": 6, "local_mean": LOCAL_MEAN}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"network": "generator"},
        {"network": "in_domain"},
        {"network": "in_domain", "base_channels": "0"},
        {"network": "in_domain", "base_channels": "2", "local_mean": "most"},
    ],
)
def test_load_extractor_refuses_safetensors_file_of_another_network(tmp_path, metadata):
    save_file(Encoder(4, 2).state_dict(), tmp_path / "other.safetensors", metadata=metadata)
    path, found = tmp_path / "other.safetensors", metadata or {}
    expected = refusal("E-WEIGHTS-09", path=path, network=found.get("network"), width=found.get("base_channels", ""))
    with pytest.raises(InputError, check=expected):
        load_extractor("in_domain", str(path), 1)


def test_load_extractor_refuses_encoder_that_contradicts_its_metadata(tmp_path):
    metadata = {"network": "in_domain", "base_channels": "4"}
    save_file(Encoder(4, 2).state_dict(), tmp_path / "odd.safetensors", metadata=metadata)
    expected = refusal("E-EXTRACTOR-05", name="features.0.0.bias", value_shape="(2,)", whole_shape="(4,)")
    with pytest.raises(InputError, match="odd.safetensors does not hold the weights of in_domain", check=expected):
        load_extractor("in_domain", str(tmp_path / "odd.safetensors"), 1)


def test_encoder_from_before_local_mean_sees_image_as_it_is(tmp_path):
    before, image = Encoder(4, 6, local_mean=0.0), torch.rand(1, 1, 32, 32)
    metadata = {"network": "in_domain", "base_channels": "6"}
    save_file(before.state_dict(), tmp_path / "before.safetensors", metadata=metadata)
    read = load_extractor("in_domain", str(tmp_path / "before.safetensors"), 4)
    assert all(torch.equal(one, other) for one, other in zip(read(image), before(image), strict=True))
    assert torch.equal(before(image)[0], before.features[0](image))


def test_save_encoder_on_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def cut_off(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medgan.models.extractor_weights.save_file", cut_off)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(tmp_path / "mine.safetensors", Autoencoder(6).encoder)
    assert not list(tmp_path.iterdir())
