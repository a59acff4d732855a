"""The knobs of data=digits that choose classes and a number of images."""

from __future__ import annotations

import pytest
import torch
from running import job

from runner.assemble.load_data import load
from runner.engine.data_summary import summarize
from runner.errors import ConfigError


def loaded(*words):
    return load(job("data=digits", *words).config)


def pictures(split):
    return [row.numpy().tobytes() for row in split.pixels]


def test_chosen_digits_keep_their_splits_and_get_labels_in_the_given_order():
    whole, chosen = loaded().data, loaded("data.classes=[7,2]").data
    assert chosen.classes == ("7", "2")
    for split in ("train", "val"):
        every, some = getattr(whole, split), getattr(chosen, split)
        kept = torch.isin(every.labels, torch.tensor([2, 7]))
        assert pictures(some) == pictures(every.part(kept.nonzero().flatten()))
        assert [("7", "2")[label] for label in some.labels] == [str(int(label)) for label in every.labels[kept]]
    assert sorted(chosen.test().labels.bincount().tolist()) == sorted(whole.test().labels.bincount()[[2, 7]].tolist())


def test_all_digits_by_name_are_the_data_without_a_choice():
    whole, named = loaded(), loaded("data.classes=[0,1,2,3,4,5,6,7,8,9]")
    assert torch.equal(whole.data.train.pixels, named.data.train.pixels)
    assert torch.equal(whole.data.train.labels, named.data.train.labels)


def test_a_limit_takes_its_share_of_each_class_and_no_validation():
    first, again, other = (loaded("data.classes=[8,9]", "data.limit=20", f"data.limit_seed={s}") for s in (0, 0, 1))
    assert first.data.train.labels.bincount().tolist() == [10, 10]
    assert pictures(first.data.train) == pictures(again.data.train) != pictures(other.data.train)
    whole = loaded("data.classes=[8,9]").data
    assert pictures(first.data.val) == pictures(whole.val)
    assert set(pictures(first.data.train)) < set(pictures(whole.train))
    assert first.fingerprint.id != other.fingerprint.id
    assert "in 2 of 10 classes (8 174, 9 180): train 20 (of 236, data.limit)" in summarize(first.data).line


def test_classes_and_limit_make_other_data():
    given = ([], ["data.classes=[0,1]"], ["data.classes=[1,0]"], ["data.limit=20"], ["data.limit=30"])
    assert len({loaded(*words).fingerprint.id for words in given}) == 5
    assert loaded("data.limit=1200").data.train.labels.tolist() == loaded().data.train.labels.tolist()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.classes=[1,10]"], "data.classes: unknown class '10'"),
        (["data.classes=[1]"], "data.classes: got"),
        (["data.classes=[1,1]"], "data.classes: got"),
        (["data.limit=9"], "data.limit: got 9, must be >= 10, one image of each class"),
    ],
)
def test_what_makes_no_sense_is_refused(words, line):
    with pytest.raises(ConfigError, match=r"^data\.") as raised:
        loaded(*words)
    assert str(raised.value).startswith(line)
