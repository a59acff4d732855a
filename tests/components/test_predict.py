"""Predictions against means of probabilities worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchvision.ops import StochasticDepth
from torchvision.transforms.v2 import functional as transforms

from runner import components  # noqa: F401  (registers all)
from runner.components.predict import _is_dropout
from runner.engine.contracts import Predict
from runner.engine.losses import Prediction
from runner.engine.parts import Slot
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "predict"


def method(name: str, loss: str = "cross_entropy", **changes: Any) -> Predict:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    knobs = yaml.safe_load((CONF.parent / "loss" / f"{loss}.yaml").read_text())
    trained = build("loss", knobs, num_classes=10)
    return build("predict", config, model=nn.Dropout(), shape=(1, 8, 8), loss=trained)


def predict(name: str, **changes: Any) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the log-probabilities of a method for cross-entropy."""

    def log_p(model: nn.Module, images: Tensor) -> Tensor:
        found = method(name, **changes)(model, images)
        assert isinstance(found, Prediction) and found.log_p is not None
        return found.log_p

    return log_p


def images() -> Tensor:
    return torch.tensor(load_digits().images[:16, None] / 16, dtype=torch.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10)).eval()


def test_plain_is_the_log_of_the_softmax() -> None:
    model = network()
    z = model(images())
    torch.testing.assert_close(predict("plain")(model, images()).exp(), z.exp() / z.exp().sum(1, keepdim=True))


def test_flip_averages_the_probabilities_not_the_logits() -> None:
    model = network()
    z = [model(images()), model(torch.stack([torch.tensor(i.numpy()[..., ::-1].copy()) for i in images()]))]
    by_hand = (z[0].softmax(1) + z[1].softmax(1)) / 2
    found = predict("tta", views=["flip"])(model, images()).exp()
    torch.testing.assert_close(found, by_hand)
    assert (found - (z[0] / 2 + z[1] / 2).softmax(1)).abs().max() > 1e-5


def test_tta_without_views_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"predict.views: got \[\], must name at least one"):
        method("tta", views=[])


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Return images moved pixel by pixel, the border mirrored about its outermost pixel."""
    out = torch.empty_like(images)
    height, width = images.shape[2:]
    for y in range(height):
        for x in range(width):
            i, j = abs(y - down), abs(x - right)
            i, j = min(i, 2 * (height - 1) - i), min(j, 2 * (width - 1) - j)
            out[:, :, y, x] = images[:, :, i, j]
    return out


def test_shift_and_flip_average_six_views() -> None:
    model, x = network(), images()
    views = [x, moved(x, 2, 2), moved(x, -2, -2)]
    by_hand = sum(model(v).softmax(1) + model(v.flip(3)).softmax(1) for v in views) / 6
    torch.testing.assert_close(predict("tta", views=["flip", "shift"], shift=2)(model, x).exp(), by_hand)


@pytest.mark.parametrize("side", range(1, 9))
def test_ten_crop_averages_corners_centre_and_their_mirror_images(side: int) -> None:
    model, x = network(), images()
    crops = transforms.ten_crop(x, side)
    by_hand = sum(model(transforms.resize(v, [8, 8], antialias=False)).softmax(1) for v in crops) / 10
    torch.testing.assert_close(predict("ten_crop", crop=side / 8)(model, x).exp(), by_hand)


def test_ten_crop_of_the_whole_image_is_a_flip() -> None:
    whole, flip = predict("ten_crop", crop=1.0), predict("tta", views=["flip"])
    torch.testing.assert_close(whole(network(), images()), flip(network(), images()))


def test_mc_dropout_averages_passes_with_dropout_on_and_norms_off() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)).eval()
    statistics = model[1].running_mean.clone()
    torch.manual_seed(5)
    found = predict("mc_dropout", passes=3)(model, images()).exp()
    assert torch.equal(model[1].running_mean, statistics)
    torch.manual_seed(5)
    model[2].train()
    by_hand = sum(model(images()).softmax(1) for _ in range(3)) / 3
    torch.testing.assert_close(found, by_hand)
    assert (found - model.eval()(images()).softmax(1)).abs().max() > 0.01


def test_one_pass_without_dropout_is_plain() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    torch.testing.assert_close(predict("mc_dropout", passes=1)(model, images()), predict("plain")(model, images()))


@pytest.mark.parametrize("kind", [nn.Dropout2d, nn.AlphaDropout, StochasticDepth])
def test_mc_dropout_turns_on_all_that_drops(kind: type[nn.Module]) -> None:
    part = kind(0.5, "row") if kind is StochasticDepth else kind(0.5)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), part, nn.Flatten(), nn.Linear(144, 10)).eval()
    torch.manual_seed(0)
    assert not torch.allclose(predict("mc_dropout", passes=1)(model, images()), predict("plain")(model, images()))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    "regularizer",
    [
        {"name": "dropout", "p": 0.5, "where": ["block"], "ramp": None},
        {"name": "dropout_vanilla", "p": 0.5, "where": ["block"]},
        {"name": "dropblock", "p": 0.5, "size": 2, "ramp": None},
        {"name": "dropconnect", "p": 0.5, "layers": ["linear"]},
        {"name": "dropconnect", "p": 0.5, "layers": ["conv"]},
    ],
    ids=lambda config: "-".join([config["name"], *config.get("layers", [])]),
)
def test_mc_dropout_turns_on_each_regularizer_that_drops(regularizer: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), Slot("block"), nn.Flatten(), nn.Linear(144, 10)).eval()
    build("regularizer", regularizer).rewire(model)
    model.eval()
    torch.manual_seed(0)
    assert not torch.allclose(predict("mc_dropout", passes=1)(model, images()), predict("plain")(model, images()))


@pytest.mark.parametrize("library", ["torchvision.ops", "timm.layers"])
def test_mc_dropout_knows_what_drops_in_other_libraries(library: str) -> None:
    module = pytest.importorskip(library)
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    drop = [kind for kind in kinds if "Drop" in kind.__name__ or "StochasticDepth" in kind.__name__]
    assert drop
    assert [kind for kind in drop if not _is_dropout(kind.__new__(kind))] == []


def test_mc_dropout_takes_a_plugins_word_for_what_drops() -> None:
    class Noise(nn.Module):
        drops_at_random = True

    model = nn.Sequential(Noise())
    given = {"loss": build("loss", {"name": "mse", "class_weights": None}, num_classes=2)}
    build("predict", {"name": "mc_dropout", "passes": 1}, model=model, **given)
    with pytest.raises(ConfigError, match="requires a model with dropout"):
        build("predict", {"name": "mc_dropout", "passes": 1}, model=nn.Sequential(nn.Linear(1, 1)), **given)


@pytest.mark.parametrize("name", names("predict"))
def test_probabilities_sum_to_one_and_repeat_after_the_same_seed(name: str) -> None:
    model = network()
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(predict(name)(model, images()))
    assert found[0].shape == (16, 10)
    torch.testing.assert_close(found[0].exp().sum(1), torch.ones(16))
    assert torch.equal(found[0], found[1])
    assert not any(module.training for module in model.modules())


class Sure(nn.Module):
    """Logits so far apart that the probabilities of single views underflow."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e3 * torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1]], 1)


def test_a_view_without_any_probability_does_not_break_the_mean() -> None:
    image = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    torch.testing.assert_close(predict("tta", views=["flip"])(Sure(), image).exp(), torch.tensor([[0.5, 0.5]]))


def test_half_precision_logits_give_float32_log_probabilities() -> None:
    model = network().bfloat16()
    assert predict("plain")(model, images().bfloat16()).dtype == torch.float32


def normalized(sigmoids: Tensor) -> Tensor:
    return sigmoids / sigmoids.sum(1, keepdim=True)


def test_logits_are_averaged_beside_probabilities() -> None:
    model, x = network(), images()
    z = [model(x), model(x.flip(3))]
    found = method("tta", views=["flip"])(model, x)
    assert isinstance(found, Prediction)
    torch.testing.assert_close(found.logits, (z[0] + z[1]) / 2)


def test_the_probabilities_of_bce_are_sigmoids_divided_by_their_sum() -> None:
    model, x = network(), images()
    views = [normalized(1 / (1 + torch.exp(-model(view)))) for view in (x, x.flip(3))]
    found = method("tta", "bce", views=["flip"])(model, x)
    assert isinstance(found, Prediction) and found.log_p is not None
    torch.testing.assert_close(found.log_p.exp(), (views[0] + views[1]) / 2)


def test_a_bce_of_huge_logits_has_finite_log_probabilities() -> None:
    found = method("plain", "bce")(nn.Identity(), torch.tensor([[-1e4, -2e4, -1e4]]))
    assert isinstance(found, Prediction) and found.log_p is not None
    torch.testing.assert_close(found.log_p.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    assert torch.isfinite(found.log_p).all()


@pytest.mark.parametrize("name", names("predict"))
@pytest.mark.parametrize("loss", ["hinge", "mse"])
def test_a_loss_without_probabilities_predicts_scores_only(name: str, loss: str) -> None:
    found = method(name, loss)(network(), images())
    assert isinstance(found, Prediction) and found.log_p is None
    assert found.logits is not None and found.logits.shape == (16, 10)
