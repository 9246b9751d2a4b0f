"""Translates by patch matching, the classical baseline: each pixel is copied from the nearest training patches.

CT was made from MR in this way before networks (Hofmann et al., 2008; Andreasen et al., 2015).
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from medgan.data.dataset import PreparedDataset, Slices
from medgan.errors import InputError
from medgan.metrics.validation_metrics import Patients, patient_means
from medgan.training.runtime import SingleProcess
from medgan.training.validation import Perceptual, evaluate

NUM_COMPONENTS = 16
SLACK = 2.0
"""Allows the k-th neighbor to be (1 + SLACK) times as far as the true one: as good, and ten times as fast."""


class PatchMatching(nn.Module):
    """Predicts each pixel as the mean target of the nearest training patches; it has no weights to train.

    Args:
        patches: distinct source patches (N, patch**2), in [-1, 1].
        values: target at the middle of each patch, (N,), in [-1, 1].
    """

    def __init__(self, patches: np.ndarray, values: np.ndarray, *, neighbors: int) -> None:
        super().__init__()
        self.patch = round(patches.shape[1] ** 0.5)
        self.values, self.neighbors = values, min(neighbors, len(values))
        self.middle = patches.mean(axis=0)
        centered = patches - self.middle
        self.components = np.linalg.eigh(centered.T @ centered)[1][:, -NUM_COMPONENTS:]
        self.tree = cKDTree(centered @ self.components)

    def forward(self, source: Tensor) -> Tensor:
        """Maps (B, 1, H, W) to (B, 1, H, W), both in [-1, 1]; always computes on the CPU."""
        outputs = [self._translate(image) for image in source[:, 0].cpu().numpy()]
        return torch.from_numpy(np.stack(outputs)[:, None]).to(source)

    def _translate(self, image: np.ndarray) -> np.ndarray:
        places = (patches_of(image, self.patch) - self.middle) @ self.components
        _, nearest = self.tree.query(places, k=range(1, self.neighbors + 1), eps=SLACK)
        return self.values[nearest].mean(axis=1).reshape(image.shape)


def knn_image_predictor(
    train: Slices, *, patch: int = 7, neighbors: int = 5, max_patches: int = 200_000, seed: int
) -> PatchMatching:
    """Builds patch matching from training slices; each slice gives the same number of patches at random places.

    Equal patches, such as those of air, become one with the mean of their targets: a tree cannot divide them.

    Args:
        patch: side of a patch in pixels, odd.
        max_patches: largest number of patches of all slices together, before equal ones become one.

    Raises:
        InputError: the side is even, there is no neighbor, or there are fewer patches than slices.
    """
    if patch < 1 or patch % 2 == 0:
        raise InputError("E-MATCHING-01", patch=patch)
    if neighbors < 1:
        raise InputError("E-MATCHING-02", neighbors=neighbors)
    if max_patches < len(train):
        raise InputError("E-MATCHING-03", num_train=len(train), max_patches=max_patches)
    draw = np.random.default_rng(seed)
    sources, targets = [], []
    for index in range(len(train)):
        source, target = (image[0].numpy() for image in train[index])
        chosen = draw.choice(source.size, min(max_patches // len(train), source.size), replace=False)
        sources.append(patches_of(source, patch)[chosen])
        targets.append(target.reshape(-1)[chosen])
    distinct, place, count = np.unique(np.concatenate(sources), axis=0, return_inverse=True, return_counts=True)
    values = np.bincount(place.reshape(-1), np.concatenate(targets)) / count
    return PatchMatching(distinct, values.astype(np.float32), neighbors=neighbors)


def patches_of(image: np.ndarray, patch: int) -> np.ndarray:
    """Returns the patch around every pixel, row by row, with repeated borders: (H, W) -> (H * W, patch**2)."""
    padded = np.pad(image, patch // 2, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (patch, patch)).reshape(image.size, patch**2)


def measure_knn_on_test(dataset: PreparedDataset, *, seed: int = 0, perceptual: Perceptual | None = None) -> Patients:
    """Returns test patient -> metric -> value for patch matching; `perceptual` must compute on the CPU."""
    matching = knn_image_predictor(dataset.slices("train"), seed=seed)
    runtime = SingleProcess(torch.device("cpu"))
    return patient_means(evaluate(matching, dataset.slices("test"), runtime, perceptual=perceptual))
