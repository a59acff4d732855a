"""The draws of an epoch: a function of (seed, epoch), each example once or each class equally often."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from runner.engine.batches import TrainBatches
from runner.engine.contracts import Augment, Images
from runner.engine.randomness import epoch_order
from runner.engine.sampling import Balanced, Repeated, Shuffle

CPU = torch.device("cpu")
# 90 examples of class 0, 9 of class 1, 1 of class 3; none of class 2
RARE = torch.tensor([0] * 90 + [1] * 9 + [3])[epoch_order(5, 0, 100)]


class AsFloat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Part:
    """A process that gets every second share, as a world of two does."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def slice(self, index: Tensor) -> Tensor:
        return index.tensor_split(2)[self.rank]


def batches(labels: Tensor = RARE, *, batch: int = 8, seed: int = 0, augments=(), sampler=Balanced, **more):
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return TrainBatches(
        Images(pixels, labels),
        batch=batch,
        seed=seed,
        augments=augments,
        preprocess=AsFloat(),
        device=CPU,
        sampler=sampler(labels),
        **more,
    )


def epoch_of(made: TrainBatches, epoch: int) -> tuple[Tensor, Tensor]:
    """Return the example numbers and labels of an epoch."""
    first = epoch * made.steps_per_epoch
    stream = list(made.stream(first, first + made.steps_per_epoch))
    return torch.cat([x[:, 0, 0, 0] for x, _ in stream]), torch.cat([y for _, y in stream])


@pytest.mark.parametrize("epoch", [0, 1, 2, 17])
def test_every_epoch_draws_each_class_equally_often(epoch):
    _, labels = epoch_of(batches(), epoch)
    assert labels.bincount().tolist() == [33, 33, 0, 33]  # 100 examples in 3 classes


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 1), (5, 1), (1, 1000), (7, 2, 13, 1), (4,)])
def test_equal_draws_for_any_counts(counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sampler = Balanced(labels)
    each = sum(counts) // len(counts)
    assert sampler.length == each * len(counts)
    for epoch in range(4):
        assert labels[sampler.draw(3, epoch).examples].bincount().tolist() == [each] * len(counts)


def test_a_class_repeats_no_example_before_all_of_its_others_are_drawn():
    sampler, drawn = Balanced(RARE), Counter()
    for epoch in range(30):
        drawn.update(sampler.draw(0, epoch).examples.tolist())
        for label in (0, 1, 3):
            times = [drawn[i] for i in (label == RARE).nonzero().flatten().tolist()]
            assert max(times) - min(times) <= 1, (epoch, label)
    assert sum(drawn.values()) == 30 * 99


def test_balanced_classes_are_drawn_once_each():
    labels = torch.arange(4).repeat(25)
    for epoch in range(3):
        assert Balanced(labels).draw(0, epoch).examples.sort().values.tolist() == list(range(100))


def test_classes_are_mixed_within_an_epoch():
    """Without the shuffle all draws of a class would stand together; 99 draws in random order have about 66 changes."""
    _, labels = epoch_of(batches(), 0)
    assert 40 < int((labels[1:] != labels[:-1]).sum()) < 92


def test_seed_and_epoch_change_the_draws_and_nothing_else_does():
    first = Balanced(RARE).draw(0, 3).examples
    assert torch.equal(first, Balanced(RARE).draw(0, 3).examples)
    assert not torch.equal(first, Balanced(RARE).draw(0, 4).examples)
    assert not torch.equal(first, Balanced(RARE).draw(1, 3).examples)


@pytest.mark.parametrize("start", [0, 1, 12, 13, 14, 30])
def test_a_stream_begun_anywhere_goes_on_as_the_whole_one(start):
    augments = [Augment(lambda images, draws: images + draws.uniform[:, :1, None, None], 1)]
    whole = list(batches(augments=augments).stream(0, 40))
    late = list(batches(augments=augments).stream(start, 40))
    for (x, y), (x_late, y_late) in zip(whole[start:], late, strict=True):
        assert torch.equal(x, x_late)
        assert torch.equal(y, y_late)


def test_repeated_draws_of_an_example_are_augmented_differently():
    add = Augment(lambda images, draws: images + draws.uniform[:, :1, None, None], 1)
    values, labels = epoch_of(batches(augments=[add]), 0)
    rare = values[labels == 3]
    assert len(rare) == 33 == len(rare.unique())


def test_random_numbers_without_epoch_belong_to_the_example():
    add = Augment(lambda images, draws: images + draws.uniform[:, :1, None, None] / 2, 1, per_epoch=False)
    found = {}
    for epoch in range(3):
        for value in epoch_of(batches(augments=[add]), epoch)[0].tolist():
            assert found.setdefault(int(value), value) == value


def test_two_processes_get_disjoint_parts_of_the_same_draws():
    alone = list(batches(batch=8).stream(0, 20))
    parts = [list(batches(batch=8, world=Part(rank)).stream(0, 20)) for rank in (0, 1)]
    for (x, y), (x0, y0), (x1, y1) in zip(alone, *parts, strict=True):
        assert torch.equal(x, torch.cat([x0, x1]))
        assert torch.equal(y, torch.cat([y0, y1]))


def test_shuffle_is_the_order_of_an_epoch_with_random_numbers_by_example():
    drawn = Shuffle(RARE).draw(7, 2)
    assert torch.equal(drawn.examples, epoch_order(7, 2, 100))
    assert torch.equal(drawn.rows, drawn.examples)


def thrice(labels: Tensor) -> Repeated:
    return Repeated(Shuffle(labels), 3)


def test_a_repeated_example_fills_places_in_a_row_of_one_step():
    made = batches(batch=12, sampler=thrice)
    assert made.examples_per_epoch == 99 and made.steps_per_epoch == 9
    for images, _ in made.stream(0, 18):
        groups = images[:, 0, 0, 0].view(-1, 3)
        assert (groups == groups[:, :1]).all() and len(set(groups[:, 0].tolist())) == len(groups)


def test_as_many_epochs_as_repeats_draw_every_example_in_each_place_once():
    labels = RARE[:99]
    made = batches(labels, batch=12, sampler=thrice)
    for first in (0, 3):
        seen = Counter(example for epoch in range(first, first + 3) for example in epoch_of(made, epoch)[0].tolist())
        assert seen == dict.fromkeys(range(99), 3)
    passes = [torch.cat([epoch_of(made, epoch)[0] for epoch in range(first, first + 3)]) for first in (0, 3)]
    assert not torch.equal(*passes), "each pass has an order of its own"
    assert torch.equal(passes[0][::3], epoch_order(0, 0, 99).float())


def test_each_repeat_has_random_numbers_of_its_own():
    rows = []
    shown = Augment(lambda images, draws: rows.append(draws.uniform[:, 0]) or images, uniforms=1)
    list(batches(batch=12, sampler=thrice, augments=[shown]).stream(0, 9))
    drawn = torch.cat(rows)
    assert len(set(drawn.tolist())) == len(drawn) == 99
    again = rows[4]
    rows.clear()
    list(batches(batch=12, sampler=thrice, augments=[shown]).stream(4, 5))  # as a run that resumes there
    assert torch.equal(rows[0], again)


def test_a_sampler_that_balances_can_be_repeated():
    made = batches(batch=12, sampler=lambda labels: Repeated(Balanced(labels), 3))
    assert made.sampler.epochs_per_pass == 3 and made.examples_per_epoch == 99
    labels = torch.cat([epoch_of(made, epoch)[1] for epoch in range(3)])
    assert labels.bincount().tolist() == [99, 99, 0, 99]
