"""Mixes by hand on 4 x 4 images, and the statistics of their draws."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from running import job
from small_runs import build as run
from small_runs import interrupted, small, train_to, uninterrupted
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components import mix as mixes
from runner.engine.clock import Clock
from runner.engine.contracts import Mix
from runner.engine.logs.log import Log
from runner.engine.randomness import numpy_generator
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "mix"
K = 4


def mix(name: str, **changes: Any) -> Mix:
    return build(
        "mix",
        {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes},
        num_classes=K,
        shape=(2, 4, 4),
        clock=Clock(100, 10, batch=K),
    )


def flat(batch: int = K) -> tuple[Tensor, Tensor]:
    """Images of one color each, equal to their label, so that every pixel tells whose it is."""
    labels = torch.arange(batch) % K
    return labels[:, None, None, None].float().expand(batch, 2, 4, 4).clone(), labels


MIXES = [name for name in names("mix") if name != "none"]


@pytest.mark.parametrize("name", MIXES)
def test_a_run_mixes_until_the_given_step_and_then_leaves_batches_as_they_are(name: str) -> None:
    given = small({"mix": name, "mix.p": 1.0, "steps": 40})
    always, ended = run(given).recipe.mix, run({**given, "mix.until": "25%"}).recipe.mix
    torch.manual_seed(0)
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    for step in range(40):
        mixed, soft = ended(images, labels, step)
        if step < 10:
            expected = always(images, labels, step)
            assert torch.equal(mixed, expected[0]) and torch.equal(soft, expected[1])
        else:
            assert mixed is images and soft is labels
    assert not torch.equal(always(images, labels, 9)[0], images)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_that_stops_mixing_resumes_bit_for_bit(cut: int, tmp_path: Path) -> None:
    given = small({"mix": "mixup", "mix.alpha": 1.0, "mix.until": "2steps", "accumulate": 2})
    whole, again = uninterrupted(given, 4)[1], interrupted(given, cut, 4, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)


def test_after_its_end_a_mix_is_none() -> None:
    """The steps after the end equal those of a run without a mix from the same weights."""
    mixed, plain = run(small({"mix": "mixup", "mix.until": "2steps"})), run(small({"mix": "none"}))
    train_to(mixed, 2, Log())
    saved = mixed.learner
    plain.learner.load_weights(saved.weights())
    plain.learner.load_state_dict(copy.deepcopy(saved.state_dict()), saved.weights())
    for each in (mixed, plain):
        train_to(each, 5, Log())
    pairs = zip(mixed.learner.model.parameters(), plain.learner.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("until", ["100%", "30epochs", "0steps", "31epochs"])
def test_an_end_that_changes_nothing_is_refused(until: str) -> None:
    with pytest.raises(ConfigError, match=r"^mix.until: got .*must be "):
        job("mix=mixup", f"mix.until={until}")


def test_none_gives_back_what_it_got() -> None:
    images, labels = flat()
    out, same = mix("none")(images, labels, 3)
    assert out is images and same is labels


def test_mixup_blends_by_one_weight_drawn_from_the_key() -> None:
    images, labels = flat()
    random = numpy_generator(5)
    random.random()  # whether at all
    order = random.permutation(K)
    weight = random.beta(0.4, 0.4)
    out, soft = mix("mixup", alpha=0.4, p=1.0)(images, labels, 5)
    for i in range(K):
        assert torch.allclose(out[i], torch.full((2, 4, 4), weight * i + (1 - weight) * order[i]))
        wanted = torch.zeros(K)
        wanted[i] += weight
        wanted[order[i]] += 1 - weight
        assert torch.allclose(soft[i], wanted)


def test_mixup_is_linear_in_image_and_label_alike() -> None:
    images, labels = flat(64)
    for key in range(20):
        out, soft = mix("mixup", alpha=1.0, p=1.0)(images, labels, key)
        assert torch.allclose(out[:, 0, 0, 0], soft @ torch.arange(K).float(), atol=1e-6)


def test_cutmix_weighs_labels_by_the_pixels_really_pasted() -> None:
    images, labels = flat()
    shares = set()
    for key in range(200):
        out, soft = mix("cutmix", alpha=1.0, p=1.0)(images, labels, key)
        for i in range(K):
            counted = torch.stack([(out[i, 0] == k).float().mean() for k in range(K)])
            assert torch.allclose(soft[i], counted, atol=1e-6)
            shares.add(round(float(counted.max()) * 16))
    assert len(shares) > 5  # boxes of many sizes, and cut off at the border


def test_cutmix_pastes_one_box_at_the_same_place() -> None:
    images = torch.stack([torch.arange(32.0).view(2, 4, 4), 100 + torch.arange(32.0).view(2, 4, 4)])
    for key in range(50):
        out, _ = mix("cutmix", p=1.0)(images, torch.tensor([0, 1]), key)
        pasted = out[0] != images[0]
        assert torch.equal(out[0][pasted], images[1][pasted])  # the partner's pixels, unmoved
        rows, columns = pasted[0].any(1), pasted[0].any(0)
        assert torch.equal(pasted[0], rows[:, None] & columns[None, :])
        assert torch.equal(pasted[0], pasted[1])


def test_a_span_is_clipped_at_the_border() -> None:
    found = {mixes._box_span(4, 0.75, numpy_generator(key)) for key in range(200)}
    assert found == {(0, 2), (0, 3), (1, 4), (2, 4)}  # 3 pixels round 0, 1, 2, 3


@pytest.mark.parametrize("name", sorted(set(names("mix")) - {"none"}))
def test_soft_labels_are_distributions_and_follow_from_the_key(name: str) -> None:
    images, labels = (
        torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 3, 0, 1]),
    )
    before = images.clone()
    results = [mix(name)(images, labels, key) for key in range(30)]
    again = [mix(name)(images, labels, key) for key in range(30)]
    assert torch.equal(images, before)  # the batch it got is left alone
    for (out, soft), (same, alike) in zip(results, again, strict=True):
        assert torch.equal(out, same) and torch.equal(soft, alike)
        assert out.shape == images.shape and out.dtype == torch.float32
        assert soft.shape == (6, K) and soft.dtype == torch.float32 and (soft >= 0).all()
        assert torch.allclose(soft.sum(1), torch.ones(6))
    assert len({out.numpy().tobytes() for out, _ in results}) > 5


def test_saliencymix_pastes_the_box_round_the_partners_brightest_spot() -> None:
    images, labels = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
    images[0, 0, 1, 1] = 9.0
    images[1, 0, 3, 2] = 9.0
    images += torch.tensor([0.25, 0.5])[:, None, None, None]  # which tells a pixel's owner
    sizes = set()
    for key in range(100):
        out, soft = mix("saliencymix", alpha=1.0, p=1.0)(images, labels, key)
        random = numpy_generator(key)
        random.random()
        swapped = bool(random.permutation(2)[0])
        cut = int(4 * np.sqrt(1 - random.beta(1.0, 1.0)))
        for i, (y, x) in enumerate([(3, 2), (1, 1)] if swapped else [(1, 1), (3, 2)]):  # the partner's peak
            wanted = images[i].clone()
            top, left = y - cut // 2, x - cut // 2
            box = (slice(None), slice(max(0, top), top + cut), slice(max(0, left), left + cut))
            wanted[box] = images[i ^ swapped][box]
            assert torch.equal(out[i], wanted)
            share = wanted[box].numel() / 16 if swapped else 0.0
            assert torch.allclose(soft[i, i ^ 1], torch.tensor(share))
        sizes.add(cut)
    assert sizes == {0, 1, 2, 3}


def test_saliency_is_the_distance_to_the_surroundings() -> None:
    spot = torch.zeros(1, 3, 5, 5)
    spot[0, :, 2, 2] = 9.0
    # radius 1 and 2; the spot's neighbors differ from their own mean by 1 (one in nine) at least
    found = mixes._saliency(spot)[0]
    assert found.argmax() == 12 and torch.isclose(found[2, 2], torch.tensor(8.0 + 9 * 24 / 25))
    assert torch.isclose(found[1, 1], torch.tensor(1.0 + 9 / 16))  # 4 x 4 of its 5 x 5 surroundings exist
    assert (mixes._saliency(torch.full((1, 1, 4, 4), 3.0)) == 0).all()


def test_mixup_or_cutmix_does_one_or_the_other_as_often_as_told() -> None:
    images, labels = flat()
    either = mix("mixup_or_cutmix", mixup_alpha=1.0, cutmix_alpha=1.0, cutmix_p=0.3)
    results = [either(images, labels, key) for key in range(400)]
    blended = [bool((out != out.round()).any()) for out, _ in results]  # pasted pixels stay whole numbers
    assert 0.62 < np.mean(blended) < 0.75
    for out, soft in results:
        assert torch.allclose(out.mean((1, 2, 3)), soft @ torch.arange(K).float(), atol=1e-5)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_batch_is_left_alone_with_probability_1_minus_p(name: str) -> None:
    images, labels = flat()
    mixed = mix(name, p=0.25, alpha=1.0)
    results = [mixed(images, labels, key) for key in range(400)]
    alone = [torch.equal(out, images) and torch.equal(soft, torch.eye(K)) for out, soft in results]
    # a shuffle of 4 that moves nothing (1 in 24) or an empty box (about 1 in 6) looks the same
    assert 0.70 < np.mean(alone) < 0.87
    assert all(mix(name, p=0.0)(images, labels, key)[0] is images for key in range(20))


def test_mixups_weight_has_the_moments_of_its_beta() -> None:
    images, labels = flat(2)
    found = []
    for key in range(1500):
        out, _ = mix("mixup", alpha=0.5, p=1.0)(images, labels, key)
        if (out[0] != images[0]).any():
            found.append(float(out[0, 0, 0, 0]))  # the partner's weight
    assert abs(np.mean(found) - 0.5) < 0.05 and abs(np.var(found) - 0.125) < 0.02  # Beta(a, a): 1 / (4 (2a + 1))


def test_the_global_generator_is_left_alone() -> None:
    images, labels = flat()
    before = torch.get_rng_state()
    for name in names("mix"):
        mix(name)(images, labels, 1)
    assert torch.equal(torch.get_rng_state(), before)
