"""`ensemble.json`: what is written is read again, and anything else is one line."""

from __future__ import annotations

import hashlib
import json

import pytest

from runner.engine.saving.ensemble_file import (
    ENSEMBLE,
    Manifest,
    Member,
    is_ensemble,
    member_folder,
    read_manifest,
    sha256_of_file,
    write_manifest,
)
from runner.errors import CheckpointError


def member(**changes):
    return Member(**{"path": "../run", "weights": "w.safetensors", "sha256": "0" * 64, "config": "0" * 8, "weight": 1.0,
                     **changes})  # fmt: skip


def manifest(*members, **changes):
    return Manifest(**{"members": members or (member(),), "combine": "probabilities", "temperature": 1.0,
                       "predict": None, "about": {"split": "val"}, **changes})  # fmt: skip


def test_what_is_written_is_read_again(tmp_path):
    assert not is_ensemble(tmp_path, key="run")
    wanted = manifest(member(weight=0.25), member(path="../b", weight=0.75), predict={"name": "tta", "shift": 1})
    write_manifest(tmp_path, wanted)
    assert is_ensemble(tmp_path, key="run")
    assert read_manifest(tmp_path) == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema: got 2"),
        ({"schema": "1"}, "schema: got 1"),
        ({"members": []}, "members: got none"),
        ({"members": {}}, "members: got none"),
        ({"members": [1]}, "malformed"),
        ({"combine": "median"}, "combine: got 'median'"),
        ({"temperature": 0}, "temperature: got 0"),
        ({"temperature": "hot"}, "temperature: got 'hot'"),
        ({"predict": "tta"}, "predict: must be"),
        ({"combine": None}, "combine: got 'None'"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path, changes, reason):
    write_manifest(tmp_path, manifest())
    record = json.loads((tmp_path / ENSEMBLE).read_text()) | changes
    (tmp_path / ENSEMBLE).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"weight": 0.5}, {"weight": -1}, {"weight": "1"}, {"sha256": "abc"}, {"config": None}, {"path": 3}],
)
def test_a_malformed_member_is_one_line(tmp_path, changes):
    write_manifest(tmp_path, manifest())
    record = json.loads((tmp_path / ENSEMBLE).read_text())
    record["members"][0] |= changes
    (tmp_path / ENSEMBLE).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="malformed"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": 1}', "[" * 100_000, "\x00"])
def test_what_is_no_json_object_of_an_ensemble_is_one_line(tmp_path, text):
    (tmp_path / ENSEMBLE).write_text(text)
    with pytest.raises(CheckpointError, match="malformed"):
        read_manifest(tmp_path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_manifest(tmp_path)


def test_a_member_must_be_there_with_the_weights_that_it_had(tmp_path):
    ensemble, run = tmp_path / "ensemble", tmp_path / "run"
    ensemble.mkdir()
    run.mkdir()
    (run / "w.safetensors").write_bytes(b"weights")
    own = member(sha256=hashlib.sha256(b"weights").hexdigest())
    assert sha256_of_file(run / "w.safetensors") == own.sha256
    assert member_folder(ensemble, own) == ensemble / "../run"
    (run / "w.safetensors").write_bytes(b"Weights")
    for wrong, reason in (
        (own, "w.safetensors has changed"),
        (member(path="../gone"), "the member '../gone' is missing"),
        (member(weights="other.safetensors"), "lacks its weights other.safetensors"),
        (member(weights="../run/w.safetensors"), "name: got"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            member_folder(ensemble, wrong)
