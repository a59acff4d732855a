"""Preprocessing: statistics of the training split only, against numpy and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Images
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "preprocess"


def preprocess(name: str, shape: tuple[int, int, int]) -> nn.Module:
    return build("preprocess", yaml.safe_load((CONF / f"{name}.yaml").read_text()), shape=shape)


def split(images: Tensor) -> Images:
    return Images(images, torch.zeros(len(images), dtype=torch.int64))


def some(channels: int = 3, count: int = 700) -> Tensor:
    """More images than one chunk, each channel with its own range."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(count, channels, 4, 5, generator=generator)
    return (images * torch.linspace(60, 255, channels)[:, None, None]).to(torch.uint8)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = build(
        "data",
        {
            "name": "digits",
            "classes": None,
            "limit": None,
            "limit_seed": 0,
            "batch_size": 1,
            "sampling": "shuffle",
            "placement": "auto",
        },
    )
    return data.train.pixels, data.val.pixels


AXES = {"global_mean": (0, 1, 2, 3), "channel_mean": (0, 2, 3), "mean_image": (0,)}


def test_none_gives_the_raw_values_and_scale01_fractions() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert preprocess("none", (1, 1, 3))(images).flatten().tolist() == [0.0, 51.0, 255.0]
    assert torch.allclose(preprocess("scale01", (1, 1, 3))(images).flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_standardize_makes_mean_0_and_std_1_per_channel_of_train(channels: int) -> None:
    images = some(channels)
    module = preprocess("standardize", (channels, 4, 5))
    module.fit(split(images))
    out = module(images)
    assert out.mean((0, 2, 3)).abs().max() < 1e-5
    assert (out.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    wanted = images.numpy().astype(np.float64)
    wanted = (wanted - wanted.mean((0, 2, 3), keepdims=True)) / wanted.std((0, 2, 3), keepdims=True)
    assert np.abs(out.numpy() - wanted).max() < 1e-5


@pytest.mark.parametrize("name", AXES)
def test_centring_takes_the_mean_over_its_axes_away(name: str) -> None:
    images = some()
    module = preprocess(name, (3, 4, 5))
    module.fit(split(images))
    scaled = images.numpy().astype(np.float64) / 255
    wanted = scaled - scaled.mean(AXES[name], keepdims=True)
    assert np.abs(module(images).numpy() - wanted).max() < 1e-6


def test_per_feature_standardizes_every_pixel_and_zeroes_constant_ones(digits: tuple[Tensor, Tensor]) -> None:
    train, _ = digits
    module = preprocess("per_feature", (1, 8, 8))
    module.fit(split(train))
    out = module(train)
    constant = train.double().std(0) == 0
    assert constant.sum() >= 2  # corners of the digits are always black
    std = out.std(0, correction=0)
    assert (out[:, constant] == 0).all() and (std[~constant] - 1).abs().max() < 1e-4
    assert out.mean(0).abs().max() < 1e-5


@pytest.mark.parametrize("name", names("preprocess"))
def test_every_preprocessing_gives_finite_float32_of_the_same_shape(name: str, digits: tuple[Tensor, Tensor]) -> None:
    train, val = digits
    module = preprocess(name, (1, 8, 8))
    module.fit(split(train))
    for images in (val, val.float(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)):
        out = module(images)
        assert out.dtype == torch.float32 and out.shape == images.shape and out.isfinite().all()
    assert torch.equal(module(val), module(val.float()))
    assert torch.allclose(module(val[:1]), module(val)[:1], atol=1e-5)  # an image does not depend on its batch


@pytest.mark.parametrize("name", names("preprocess"))
def test_applying_changes_no_statistic_and_loading_restores_them(name: str, digits: tuple[Tensor, Tensor]) -> None:
    train, val = digits
    fitted, loaded = preprocess(name, (1, 8, 8)), preprocess(name, (1, 8, 8))
    fitted.fit(split(train))
    before = {key: value.clone() for key, value in fitted.state_dict().items()}
    fitted(val)
    assert all(torch.equal(value, before[key]) for key, value in fitted.state_dict().items())
    loaded.load_state_dict(before)
    assert torch.equal(loaded(val), fitted(val))
    assert not list(fitted.parameters())  # nothing that an optimizer could train


def test_one_constant_channel_becomes_zero() -> None:
    images = torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)
    module = preprocess("standardize", (1, 2, 2))
    module.fit(split(images))
    assert (module(images) == 0).all()


# Whitening


def covariance(out: Tensor) -> np.ndarray:
    return np.cov(out.flatten(1).double().numpy().T)


@pytest.fixture(scope="module")
def full_rank() -> Tensor:
    """Images whose 36 features are correlated, none of them constant, each over many levels; two chunks."""
    generator = torch.Generator().manual_seed(5)
    smooth = torch.rand(1500, 3, 4, 4, generator=generator).cumsum(3).cumsum(2)[:, :, :, 1:]
    return (smooth / smooth.amax() * 255).to(torch.uint8)


def fitted(name: str, images: Tensor, **changes: float) -> nn.Module:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    module: nn.Module = build("preprocess", config, shape=tuple(images.shape[1:]))
    module.fit(split(images))
    return module


def test_pca_equals_scikit_learns(full_rank: Tensor, digits: tuple[Tensor, Tensor]) -> None:
    from sklearn.decomposition import PCA

    for train, other, kept in ((full_rank, full_rank[:50], 36), (digits[0], digits[1], 50)):
        oracle = PCA(svd_solver="full").fit(train.flatten(1).double() / 255)
        wanted = oracle.transform(other.flatten(1).double() / 255)
        found = fitted("pca", train)(other).flatten(1)
        assert np.abs(found.numpy() - wanted)[:, :kept].max() < 1e-4  # digits: the last 3 have no variance


def test_pca_whiten_equals_scikit_learns_where_eps_is_small(full_rank: Tensor) -> None:
    from sklearn.decomposition import PCA

    flat = full_rank.flatten(1).double() / 255
    wanted = PCA(svd_solver="full", whiten=True).fit_transform(flat)
    found = fitted("pca_whiten", full_rank, eps=1e-12)(full_rank).flatten(1)
    assert np.abs(found.numpy() - wanted).max() < 1e-3


def test_pca_makes_the_covariance_diagonal_with_falling_variances(full_rank: Tensor) -> None:
    found = covariance(fitted("pca", full_rank)(full_rank))
    variances = np.diag(found)
    assert np.abs(found - np.diag(variances)).max() < 1e-6 * variances[0]
    assert (np.diff(variances) <= 0).all()


@pytest.mark.parametrize("name", ["pca_whiten", "zca"])
def test_whitening_makes_the_covariance_the_identity(name: str, full_rank: Tensor) -> None:
    assert np.abs(covariance(fitted(name, full_rank, eps=1e-12)(full_rank)) - np.eye(36)).max() < 1e-4


def test_dividing_by_the_variance_instead_of_its_root_would_not_whiten(full_rank: Tensor) -> None:
    """The mistake of the lecture notes: it leaves 1 / variance on the diagonal."""
    rotated = fitted("pca", full_rank)(full_rank).flatten(1).double()
    wrong = covariance(rotated / rotated.var(0))
    assert np.abs(wrong - np.eye(36)).max() > 1
    assert np.allclose(np.diag(wrong), 1 / rotated.var(0), rtol=1e-6)


def test_eps_bounds_what_whitening_enlarges(full_rank: Tensor) -> None:
    rotated = fitted("pca", full_rank)(full_rank).flatten(1).double()
    found = fitted("pca_whiten", full_rank, eps=0.01)(full_rank).flatten(1).double()
    assert torch.allclose(found, rotated / (rotated.var(0) + 0.01).sqrt(), atol=1e-4)


def test_zca_is_the_symmetric_whitening(full_rank: Tensor) -> None:
    module = fitted("zca", full_rank, eps=1e-12)
    matrix = module.state_dict()["matrix"].double()
    assert (matrix - matrix.T).abs().max() < 1e-4 * matrix.abs().max()
    assert torch.linalg.eigvalsh(matrix).min() > 0
    inverse = torch.linalg.inv(matrix @ matrix)
    assert torch.allclose(inverse, (full_rank.flatten(1).double() / 255).T.cov(), atol=1e-6)


def test_the_covariance_is_exact_to_float64(full_rank: Tensor) -> None:
    from runner.components.preprocess.whitening import _mean_and_covariance

    mean, found = _mean_and_covariance(split(full_rank))
    flat = full_rank.flatten(1).double() / 255
    assert torch.allclose(mean, flat.mean(0), rtol=1e-14) and torch.allclose(found, flat.T.cov(), rtol=1e-11)


@pytest.mark.parametrize("name", ["pca", "pca_whiten", "zca"])
def test_too_many_features_are_refused_with_the_memory_they_would_need(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preprocess(name, (3, 64, 64))
    message = f"preprocess={name}: got 12288 features (3 x 64 x 64), which need 7 GB, must be <= 8192"
    assert str(caught.value) == message and caught.value.exit_code == 2


def features(count: int = 700) -> Images:
    """Features of very different size: near 0, far from 0, large, and a constant."""
    generator = torch.Generator().manual_seed(4)
    scale, mean = torch.tensor([1.0, 10.0, 1e5, 0]), torch.tensor([0, 1e4, -3e5, 0.1])
    return split((torch.randn(count, 4, generator=generator) * scale + mean)[:, :, None, None])


@pytest.mark.parametrize("name", ["standardize", "per_feature"])
def test_features_are_standardized_one_by_one_as_by_scikit_learn(name: str) -> None:
    train = features()
    module = preprocess(name, (4, 1, 1))
    module.fit(train)
    wanted = StandardScaler().fit_transform(train.pixels.flatten(1).double().numpy())
    np.testing.assert_allclose(module(train.pixels).flatten(1).numpy(), wanted, atol=1e-4)


def test_a_constant_feature_becomes_0_and_other_values_of_it_stay_small() -> None:
    module = preprocess("standardize", (4, 1, 1))
    module.fit(features())
    assert (module(features().pixels)[:, 3] == 0).all()
    other = torch.full((1, 4, 1, 1), 0.6)
    assert module(other)[0, 3].item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", AXES)
def test_features_are_centered_without_a_division_by_255(name: str) -> None:
    train = features()
    module = preprocess(name, (4, 1, 1))
    module.fit(train)
    values = train.pixels.double()
    wanted = values - values.mean(AXES[name], keepdim=True)
    assert (module(train.pixels).double() - wanted).abs().max() < 0.1  # float32 of values up to 600,000


def test_the_principal_components_of_features_are_those_of_scikit_learn() -> None:
    train = features()
    module = preprocess("pca", (4, 1, 1))
    module.fit(train)
    wanted = np.abs(PCA().fit_transform(train.pixels.flatten(1).double().numpy()))
    found = module(train.pixels).flatten(1).abs().numpy()
    np.testing.assert_allclose(found[:, :3], wanted[:, :3], atol=0.2, rtol=1e-4)
    white = preprocess("pca_whiten", (4, 1, 1))
    white.fit(train)
    covariance = np.cov(white(train.pixels).flatten(1).double().numpy()[:, :3].T)
    np.testing.assert_allclose(covariance, np.eye(3), atol=1e-3)


def test_scale01_refuses_features() -> None:
    with pytest.raises(ConfigError, match=r"^preprocess=scale01: features have no range 0..255"):
        preprocess("scale01", (4, 1, 1)).fit(features())
    assert torch.equal(preprocess("none", (4, 1, 1))(features().pixels), features().pixels)
