"""The course's plane problems follow their formulas."""

import numpy as np
import pytest

from tinygrad_nm.data import circle, peaks, peaks_surface, spiral

PROBLEMS = {
    "circle": circle,
    "spiral": spiral,
    "peaks": peaks,
    "peaks regression": lambda seed=0: peaks("regression", seed),
}


def everything(data):
    return np.concatenate([data.train.inputs, data.test.inputs]), np.concatenate(
        [data.train.targets, data.test.targets]
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_types_and_seed(name):
    problem = PROBLEMS[name]
    first, again, other = problem(seed=0), problem(seed=0), problem(seed=1)
    for split in (first.train, first.test):
        assert split.inputs.dtype == np.float32
        assert split.inputs.shape[1:] == (2,)
        assert split.targets.dtype == (np.float32 if "regression" in name else np.int64)
        assert len(split.inputs) == len(split.targets) > 0
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    np.testing.assert_array_equal(first.test.targets, again.test.targets)
    assert not np.array_equal(first.train.inputs, other.train.inputs)


def test_surface_known_values():
    # Closed forms at two points; the extremes are those stated for MATLAB's peaks (about 8.1 and -6.55).
    e = np.exp(-1.0)
    assert peaks_surface(0.0, 0.0) == pytest.approx(3 * e - e / 3)
    assert peaks_surface(1.0, 0.0) == pytest.approx(8 * e - np.exp(-4.0) / 3)
    axis = np.linspace(-3, 3, 601)
    heights = peaks_surface(*np.meshgrid(axis, axis))
    assert heights.max() == pytest.approx(8.106, abs=1e-3)
    assert heights.min() == pytest.approx(-6.551, abs=1e-3)


def test_peaks_bands():
    data = peaks()
    assert (np.bincount(data.train.targets) == 1600).all()
    assert (np.bincount(data.test.targets) == 400).all()
    points, labels = everything(data)
    axis = np.linspace(-3, 3, 256)
    grid = peaks_surface(*np.meshgrid(axis, axis))
    heights = peaks_surface(*points.T.astype(np.float64))
    width = (grid.max() - grid.min()) / 5
    lower = grid.min() + labels * width
    assert ((heights > lower - 1e-5) & (heights < lower + width + 1e-5)).all()
    assert np.isin(points, axis.astype(np.float32)).all()
    seen = {tuple(point) for point in data.train.inputs}
    assert not any(tuple(point) in seen for point in data.test.inputs)
    assert len(seen) < len(data.train.inputs), "points are drawn with replacement"


def test_peaks_regression():
    points, heights = everything(peaks("regression"))
    assert heights.shape == (10000, 1)
    assert abs(points).max() <= 3
    np.testing.assert_allclose(heights, peaks_surface(points[:, :1], points[:, 1:]), atol=1e-4)


def test_peaks_task():
    with pytest.raises(ValueError, match="unknown task 'ranking'; choose one of classification, regression"):
        peaks("ranking")


def test_circle():
    points, labels = everything(circle(1000))
    radius = np.hypot(*points.T)
    assert (radius[labels == 0] <= 1).all()
    assert (radius[labels == 1] >= 1).all()
    assert radius.max() <= 2
    assert np.bincount(labels).tolist() == [1000, 1000]
    # Uniform radius: its mean is 1/2, within four standard errors of sqrt(1/12/1000).
    assert abs(radius[labels == 0].mean() - 0.5) < 4 * np.sqrt(1 / 12 / 1000)


def test_spiral():
    points, labels = everything(spiral(1000))
    radius = np.hypot(*points.T) - 0.2 * labels
    angle = np.arctan2(points[:, 1], points[:, 0])
    turns = 4 * np.pi * radius
    assert radius.min() > -1e-6
    assert radius.max() < 1 + 1e-6
    np.testing.assert_allclose(np.cos(turns - angle), 1, atol=1e-3)


@pytest.mark.parametrize("problem", [circle, spiral])
def test_too_few_examples(problem):
    with pytest.raises(ValueError, match="2 examples a class leave a part"):
        problem(2)
