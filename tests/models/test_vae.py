import pytest
import torch
from torch import nn

from medgan.models.vae import VariationalNet

pytestmark = pytest.mark.unit


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = VariationalNet(base_channels=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def test_vae_in_training_draws_latent_for_each_image(network):
    source = torch.randn(1, 1, 32, 32).expand(2, -1, -1, -1)
    one, other = network.train()(source)
    assert not torch.allclose(one, other, atol=1e-4)
    torch.manual_seed(3)
    first = network(source)
    torch.manual_seed(3)
    assert torch.equal(first, network(source))


def test_vae_in_evaluation_uses_mean_and_draws_nothing(network):
    source = torch.randn(2, 1, 32, 48)
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    mean, _, output = network.eval()(source, with_latent=True)
    assert torch.equal(torch.rand(2), drawn), "the random state is as before"
    assert torch.equal(output, network.last(network.decoder(mean)))
    assert torch.equal(network(source), output)


def test_vae_returns_latent_of_same_pass(network):
    entering = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    source = torch.randn(2, 1, 32, 48)
    torch.manual_seed(3)
    mean, log_variance, output = network.train()(source, with_latent=True)
    assert mean.shape == log_variance.shape == (2, 4, 2, 3)
    assert len(entering) == 1
    torch.manual_seed(3)
    noise = torch.randn_like(mean)
    torch.testing.assert_close(entering[0], mean + (log_variance / 2).exp() * noise)
    torch.manual_seed(3)
    assert torch.equal(network(source), output), "asking for the latent changes nothing"


def test_vae_latent_spread_equals_log_variance(network):
    entering = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0].detach()))
    source = torch.randn(1, 1, 16, 16).expand(4000, -1, -1, -1)
    with torch.no_grad():
        mean, log_variance, _ = network.train()(source, with_latent=True)
    torch.testing.assert_close(entering[0].mean(dim=0), mean[0], atol=0.15, rtol=0.1)
    torch.testing.assert_close(entering[0].var(dim=0), log_variance[0].exp(), atol=0.05, rtol=0.15)


def test_vae_latent_gradient_reaches_encoder_but_not_decoder(network):
    mean, log_variance, _ = network(torch.randn(2, 1, 32, 32), with_latent=True)
    (mean.square().sum() + log_variance.square().sum()).backward()
    assert all(parameter.grad is None for parameter in (*network.decoder.parameters(), *network.last.parameters()))
    kernels = [parameter for parameter in network.encoder.parameters() if parameter.ndim > 1]
    assert all(kernel.grad.any() for kernel in kernels)


def test_vae_widths_double_and_latent_is_as_wide_as_first_layer():
    with torch.device("meta"):
        network = VariationalNet()
    assert [layer[0].out_channels for layer in network.encoder] == [64, 128, 256, 512]
    assert (network.mean.out_channels, network.log_variance.out_channels) == (64, 64)
    assert [layer[0].in_channels for layer in (*network.decoder, network.last)] == [64, 512, 256, 128]
