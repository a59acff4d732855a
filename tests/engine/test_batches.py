"""Order and augmentation are functions of (seed, epoch, example) only."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Augment
from runner.engine.randomness import epoch_order, key, step_keys

CPU = torch.device("cpu")


@dataclass
class Numbered:
    """Images whose every pixel is the example's number."""

    labels: Tensor

    def fetch(self, index):
        return index.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)


class AsFloat(nn.Module):
    def forward(self, images):
        return images.float()


def shift(images, draws):
    return images.float() + draws.uniform[:, :1, None, None] + 1000 * draws.epoch


def batches(n=23, batch=5, seed=0, augments=()):
    split = Numbered(torch.arange(n))
    return TrainBatches(split, batch=batch, seed=seed, augments=augments, preprocess=AsFloat(), device=CPU)


def test_each_epoch_visits_every_example_once_in_its_own_order():
    stream = list(batches().stream(0, 10))
    epochs = [torch.cat([labels for _, labels in stream[start : start + 5]]) for start in (0, 5)]
    assert [len(labels) for _, labels in stream[:5]] == [5, 5, 5, 5, 3]
    for visits in epochs:
        assert visits.sort().values.tolist() == list(range(23))
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("start", range(11))
def test_a_stream_begun_anywhere_goes_on_as_the_whole_one(start):
    augments = [Augment(shift, 2), Augment(shift, 1)]
    whole = list(batches(augments=augments).stream(0, 13))
    late = list(batches(augments=augments).stream(start, 13))
    assert len(late) == 13 - start
    for (x, y), (x_late, y_late) in zip(whole[start:], late, strict=True):
        assert torch.equal(x, x_late)
        assert torch.equal(y, y_late)


TWO = (Augment(shift, 2), Augment(shift, 1))


def pixels_by_sample(batch, epochs=2, augments=TWO):
    made = batches(batch=batch, augments=augments)
    found = {}
    for epoch in range(epochs):
        first = epoch * made.steps_per_epoch
        for x, y in made.stream(first, first + made.steps_per_epoch):
            found |= {(epoch, int(label)): image for label, image in zip(y, x, strict=True)}
    return found


def test_a_samples_pixels_do_not_depend_on_the_batch_size():
    small, large = pixels_by_sample(4), pixels_by_sample(23)
    assert small.keys() == large.keys()
    for place, image in small.items():
        assert torch.equal(image, large[place])


def test_draws_differ_by_sample_epoch_and_position():
    one = pixels_by_sample(23, augments=[Augment(shift, 1)])
    two = pixels_by_sample(23, augments=[Augment(shift, 1), Augment(shift, 1)])
    offsets = {place: float((image - place[1]).mean()) % 1000 for place, image in one.items()}
    assert len(set(offsets.values())) == len(offsets)
    second = {place: float((two[place] - one[place]).mean()) % 1000 for place in one}
    assert all(abs(second[place] - offsets[place]) > 1e-6 for place in one)


def test_draws_without_epoch_stay_the_same_in_every_epoch():
    found = pixels_by_sample(5, augments=[Augment(shift, 1, per_epoch=False)])
    for n in range(23):
        assert torch.allclose(found[1, n] - found[0, n], torch.tensor(1000.0), atol=1e-3)


def test_the_seed_changes_order_and_draws():
    assert epoch_order(0, 0, 100).tolist() != epoch_order(1, 0, 100).tolist()
    assert key(0, "order", 1) != key(0, "order", 2) != key(1, "order", 2)
    keys = {step_keys(seed, word)(step) for seed in range(3) for word in ("mix", "layers") for step in range(1000)}
    assert len(keys) == 6000
    assert all(0 <= k < 2**63 for k in keys)


def test_evaluation_batches_are_whole_and_in_order():
    made = EvalBatches(Numbered(torch.arange(23)), batch=5, preprocess=AsFloat(), device=CPU)
    assert torch.cat([labels for _, labels in made]).tolist() == list(range(23))
    two = torch.tensor([3, 9])
    some = EvalBatches(Numbered(torch.arange(23)), batch=5, preprocess=AsFloat(), device=CPU, index=two)
    assert len(some) == 2
    assert [x[:, 0, 0, 0].tolist() for x, _ in some] == [[3.0, 9.0]]
