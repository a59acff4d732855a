"""Fingerprints as records: read back as written, and never trusted further than their form."""

import copy
import json

import pytest

from runner.engine.fingerprint import Fingerprint, Part, differences, digest, from_record, named

PART = Part(listing="0" * 32, content="1" * 32, counts=(3, 4))
FOUND = Fingerprint(parts={"train": PART, "val": PART}, classes=("a", "\udcff"))


def changed(*path, value):
    record = copy.deepcopy(FOUND.to_record())
    place = record
    for word in path[:-1]:
        place = place[word]
    place[path[-1]] = value
    return record


def test_a_record_is_read_back_as_it_was_written():
    assert from_record(json.loads(json.dumps(FOUND.to_record()))) == FOUND
    bare = Fingerprint(parts={"train": Part(listing="0" * 32, content="1" * 32)})
    assert from_record(json.loads(json.dumps(bare.to_record()))) == bare


@pytest.mark.parametrize(
    "record",
    [
        None, [], 3, "text", {}, {"splits": {}, "classes": []}, {"splits": 3, "classes": None},
        changed("splits", "train", value=None), changed("splits", "train", "listing", value="short"),
        changed("splits", "val", "content", value=7), changed("splits", "val", "counts", value=["x"]),
        changed("classes", value=5),
    ],
)  # fmt: skip
def test_what_is_no_record_says_nothing(record):
    assert from_record(record) is None


def test_the_id_follows_names_and_contents_and_nothing_else():
    other = Part(listing="2" * 32, content="1" * 32, counts=(3, 4))
    assert Fingerprint(parts={"train": other, "val": PART}).id != FOUND.id
    assert Fingerprint(parts={"train": PART, "val": other}).id != FOUND.id
    assert Fingerprint(parts={"train": PART}).id != FOUND.id
    assert Fingerprint(parts={"val": PART, "train": PART}).id == FOUND.id


def test_no_two_sequences_have_one_digest():
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], ["c", "ab"], ["1:a"], ["a"]]
    assert len({digest(each) for each in texts}) == len(texts)


def test_the_order_of_classes_takes_the_counts_along():
    turned = FOUND.in_order_of(["\udcff", "new", "a"])
    assert turned.parts["train"].counts == (4, 0, 3) and turned.id == FOUND.id
    assert "another order" not in differences(FOUND, FOUND)


def test_many_names_are_cut():
    line = named(f"class{number}" for number in range(1000))
    assert line.endswith("and 994 more") and len(line) < 120
