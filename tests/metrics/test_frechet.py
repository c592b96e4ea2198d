"""The Fréchet distance: Gaussians worked out by hand, and scipy's square root of a matrix."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from metrics.frechet import Gaussian, Moments, frechet_distance


def gaussian(mean, covariance):
    return Gaussian(np.array(mean, float), np.array(covariance, float))


def moments(*batches, times=1):
    found = Moments()
    for batch in batches:
        found.add(np.asarray(batch), times)
    return found


def by_the_published_formula(a, b):
    """As Heusel et al. write it, with the square root of the product itself."""
    root = sqrtm(a.covariance @ b.covariance).real
    difference = a.mean - b.mean
    return difference @ difference + np.trace(a.covariance + b.covariance - 2 * root)


def test_one_dimension():
    """Means 1 and 4, standard deviations 2 and 7: 3^2 + (7 - 2)^2."""
    assert frechet_distance(gaussian([1], [[4]]), gaussian([4], [[49]])) == pytest.approx(34)


def test_diagonal_covariances():
    """Each axis by itself: 1^2 + (3 - 1)^2, 2^2 + (5 - 4)^2, and 0 + (2 - 0)^2."""
    a = gaussian([0, 0, 3], np.diag([1, 16, 0]))
    b = gaussian([1, 2, 3], np.diag([9, 25, 4]))
    assert frechet_distance(a, b) == pytest.approx(5 + 5 + 4)
    assert frechet_distance(b, a) == pytest.approx(5 + 5 + 4)


def test_commuting_covariances():
    """(5, 4; 4, 5) has the eigenvalues 9 and 1, (10, 6; 6, 10) has 16 and 4, both along the
    diagonals: (4 - 3)^2 + (2 - 1)^2.
    """
    a = gaussian([0, 0], [[5, 4], [4, 5]])
    b = gaussian([0, 0], [[10, 6], [6, 10]])
    assert frechet_distance(a, b) == pytest.approx(2)


def test_covariances_that_do_not_commute():
    """The product (2, 1; 1, 2) (4, 0; 0, 1) has trace 10 and determinant 12; the trace of its root
    is sqrt(10 + 2 sqrt(12)), as for any 2 x 2 matrix with positive eigenvalues.
    """
    a, b = gaussian([0, 0], [[2, 1], [1, 2]]), gaussian([0, 0], [[4, 0], [0, 1]])
    expected = 4 + 5 - 2 * (10 + 2 * 12**0.5) ** 0.5
    assert frechet_distance(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 7, 40])
def test_scipys_root_of_the_product(size):
    rng = np.random.default_rng(size)
    mixed = rng.normal(size=(2, size, size))
    a, b = (
        moments(rng.normal(size=(5 * size, size)) @ mix + 3 * number).gaussian()
        for number, mix in enumerate(mixed)
    )
    expected = by_the_published_formula(a, b)
    assert expected > 1
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_dimensions():
    """Covariances without an inverse: a distance of 0 stays 0, and others follow from the formula.

    Two sets of two points in three dimensions, on lines at an angle of 60 degrees: covariances
    2 u u^T and 2 v v^T, whose roots' product has the trace 2 |u v| = 1.
    """
    points = np.array([[1.0, 0, 0], [-1, 0, 0]])
    turned = np.array([[0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]])
    a, b = moments(points).gaussian(), moments(turned).gaussian()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, b) == pytest.approx(2 + 2 - 2 * 1)


def test_equal_sets_of_many_dimensions_have_no_distance():
    features = np.random.default_rng(0).normal(size=(30, 300))
    found = moments(features).gaussian()
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-9)
    constant = moments(np.ones((5, 4))).gaussian()
    assert frechet_distance(constant, constant) == 0


def test_moments_are_numpys():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(23, 5)).astype(np.float32) + 1000  # the mean is far from 0
    found = moments(features[:1], features[1:9], features[9:9], features[9:])
    assert (found.count, found.num_features) == (23, 5)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.gaussian().mean, exact.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(
        found.gaussian().covariance, np.cov(exact, rowvar=False), rtol=0, atol=1e-9
    )


def test_features_that_count_several_times():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    found = moments(first)
    found.add(second, times=5)
    expected = np.concatenate((first, *[second] * 5))
    assert found.count == 14
    np.testing.assert_allclose(found.gaussian().mean, expected.mean(axis=0))
    np.testing.assert_allclose(found.gaussian().covariance, np.cov(expected, rowvar=False))


def test_one_sample_has_no_covariance():
    assert moments().gaussian() is None
    assert moments().num_features == 0
    assert moments(np.ones((1, 3))).gaussian() is None
