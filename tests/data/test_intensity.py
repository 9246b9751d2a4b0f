import numpy as np
import pytest
import torch

from medgan.data.intensity import from_network, to_network

pytestmark = pytest.mark.unit

WINDOW = (-1000.0, 2000.0)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_to_network_maps_window_to_minus_one_and_one_and_clips(kind):
    values = kind(np.array([-3000, -1000, 500, 2000, 9000], np.float32))
    mapped = to_network(values, WINDOW)
    assert type(mapped) is type(values)
    assert mapped.tolist() == [-1, -1, 0, 1, 1]
    assert mapped.dtype == values.dtype


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_from_network_inverts_to_network_inside_window(kind):
    values = kind(np.linspace(-1000, 2000, 3001))
    np.testing.assert_allclose(from_network(to_network(values, WINDOW), WINDOW), values, atol=1e-9)
