"""Video vectors against their definitions, and the codebook against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from vidatt.errors import UsageError
from vidatt.heads.contract import StreamShape
from vidatt.heads.svm.codebook import Covariance, assemble, learn_centres
from vidatt.heads.svm.encodings import FullyConnected, Vlad, cell_mean, flat_mean, vlad

CENTRES = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
POINTS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 0.0]])
R3 = 3**-0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"signed_root": False, "intra": False, "overall": False}, [1, 2, 1, 0]),
        ({"intra": False, "overall": False}, [1, 2**0.5, 1, 0]),
        ({"overall": False}, [R3, 2**0.5 * R3, 1, 0]),
        ({"signed_root": False, "intra": False}, [6**-0.5, 2 * 6**-0.5, 6**-0.5, 0]),
        ({}, [0.40824829, 0.57735027, 0.70710678, 0]),
    ],
    ids=["raw", "root", "root-intra", "overall", "all"],
)
def test_vlad_oracle(options, expected):
    np.testing.assert_allclose(vlad(POINTS, CENTRES, **options), expected, rtol=0, atol=1e-7)


def test_vlad_keeps_the_sign_of_residuals_and_leaves_empty_clusters_zero():
    vector = vlad(torch.tensor([[-1.0, 0.0]]), CENTRES)
    np.testing.assert_allclose(vector, [-1, 0, 0, 0])
    assert vlad(CENTRES, CENTRES).tolist() == [0, 0, 0, 0]


def test_vlad_equals_a_loop_over_descriptors():
    points, centres = torch.randn(200, 8), torch.randn(5, 8)
    parts = torch.zeros(5, 8)
    for point in points:
        nearest = (centres - point).norm(dim=1).argmin()
        parts[nearest] += point - centres[nearest]
    raw = vlad(points, centres, signed_root=False, intra=False, overall=False)
    torch.testing.assert_close(raw, parts.flatten(), rtol=1e-4, atol=1e-4)


def test_vlad_of_a_video_does_not_depend_on_the_order_of_its_segments():
    encoder = Vlad(
        StreamShape(name="rgb", grid=3, channels=6),
        components=4,
        clusters=5,
        signed_root=True,
        intra=True,
        overall=True,
    )
    encoder.take(assemble(np.zeros(6), np.random.randn(4, 6), np.random.randn(5, 4)))
    cube = torch.rand(7, 3, 3, 6)
    torch.testing.assert_close(encoder(cube), encoder(cube.flip(0)))
    assert encoder(cube).shape == (encoder.length,) == (20,)


def test_cell_mean_is_the_mean_over_positions_of_the_flat_mean():
    cube = torch.rand(5, 7, 7, 12).half()
    flat = flat_mean(cube)
    assert flat.shape == (7 * 7 * 12,)
    torch.testing.assert_close(flat.view(49, 12).mean(0), cell_mean(cube))


def test_means_of_float16_are_taken_in_float32():
    cube = torch.full((3000, 1, 1, 2), 1.001).half()
    torch.testing.assert_close(flat_mean(cube), cube[0, 0, 0].float(), rtol=1e-6, atol=0)


def test_fc6_refuses_a_grid_and_names_the_way_out():
    with pytest.raises(UsageError, match=r"stream 'rgb' has a grid of 7 x 7; .* svm-pool5-mean"):
        FullyConnected(StreamShape(name="rgb", grid=7, channels=512))


@pytest.mark.parametrize("whiten", [False, True], ids=["plain", "whitened"])
def test_components_in_pieces_equal_scikit_learns_pca(whiten):
    x = np.random.randn(500, 6) @ np.random.randn(6, 6) + 3
    covariance = Covariance(6)
    for piece in np.array_split(x, 7):
        covariance.add(piece.astype(np.float32))
    mean, projection = covariance.components(4, whiten=whiten)
    reference = PCA(4, whiten=whiten).fit(x)
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-5)
    ours, theirs = (x - mean) @ projection.T, reference.transform(x)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=1e-3)


def test_whitening_keeps_a_channel_without_variance_small():
    covariance = Covariance(3)
    covariance.add(np.random.randn(50, 3) * [1, 1, 0])
    mean, projection = covariance.components(3, whiten=True)
    assert np.abs((np.random.randn(9, 3) * [1, 1, 0] - mean) @ projection.T).max() < 10


def test_centres_are_as_good_as_those_of_full_k_means():
    means = np.random.randn(12, 5) * 6
    x = (means[np.random.randint(12, size=6000)] + np.random.randn(6000, 5)).astype(np.float32)
    centres = learn_centres(x, clusters=12, seed=0)

    def cost(centres: np.ndarray) -> float:
        return float(((x[:, None] - centres) ** 2).sum(2).min(1).sum())

    reference = KMeans(12, n_init=3, random_state=0).fit(x)
    assert cost(centres) < 1.25 * cost(reference.cluster_centers_)
    np.testing.assert_array_equal(centres, learn_centres(x, clusters=12, seed=0))


def test_codebook_refuses_too_few_descriptors():
    with pytest.raises(UsageError, match=r"128 clusters of 5 descriptors: .* --set clusters="):
        learn_centres(np.zeros((5, 2), np.float32), clusters=128, seed=0)
    with pytest.raises(UsageError, match="Principal components of 0 descriptors"):
        Covariance(3).components(2)


def test_vlad_refuses_a_codebook_of_other_shapes():
    encoder = Vlad(
        StreamShape(name="rgb", grid=3, channels=6),
        components=9,
        clusters=5,
        signed_root=True,
        intra=True,
        overall=True,
    )
    assert encoder.length == 5 * 6  # no more components than channels
    with pytest.raises(UsageError, match=r"centres is \[4, 6\], the encoder's \[5, 6\]"):
        encoder.take(assemble(np.zeros(6), np.zeros((6, 6)), np.zeros((4, 6))))
