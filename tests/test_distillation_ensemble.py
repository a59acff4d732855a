"""Distillation with an ensemble as teacher: its logits, its identity, one member bit for bit, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.cases import teacher_folder
from running import job, result
from small_runs import build, interrupted, small, uninterrupted
from torch import Tensor

from runner import load
from runner.engine.saving.ensemble_file import Manifest, Member, sha256_of_file, write_manifest
from runner.errors import CheckpointError, ConfigError
from runner.hashes import content_of
from runner.plain_yaml import load as load_yaml
from runner.tasks import start


def ensemble_of(place: Path, folders: Sequence[str], weights: Sequence[float] | None = None, **more: Any) -> str:
    """Write the folder of an ensemble of copies of runs, and return it."""
    shutil.copytree(folders[0], place, ignore=shutil.ignore_patterns("checkpoints", "*.tfevents*"))
    members = []
    for number, each in enumerate(folders):
        own = Path(shutil.copytree(each, place / "members" / str(number)))
        file = result(own)["weights"]
        digest = content_of(load_yaml(own / "config.yaml"))["digest"]
        share = weights[number] if weights else 1 / len(folders)
        about = {"path": f"members/{number}", "weights": file, "config": digest, "weight": share}
        members.append(Member(sha256=sha256_of_file(own / file), **about))
    given = {"combine": "probabilities", "temperature": 1.0, "predict": None, **more}
    write_manifest(place, Manifest(members=tuple(members), **given))
    return str(place)


def distilling(teacher: str, **more: Any) -> dict[str, Any]:
    return small({"distillation": "logits", "distillation.teacher": teacher, "average": "none", **more})


def taught(choices: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the logits of a run's teacher for its first images, and these."""
    made = build(choices)
    images = next(made.batches.stream(0, 1))[0]
    return made.recipe.gradients.__self__.teach(images), images


def test_an_ensemble_of_one_teaches_as_its_member_bit_for_bit(tmp_path: Path) -> None:
    given = [
        distilling(each, steps=4) for each in (teacher_folder(), ensemble_of(tmp_path / "one", [teacher_folder()]))
    ]
    runs = [uninterrupted(each, 4)[1] for each in given]
    assert runs[0].rows == runs[1].rows
    assert {k: v for k, v in runs[0].state.items() if k != "tree"} == {
        k: v for k, v in runs[1].state.items() if k != "tree"
    }
    assert runs[0].printed == runs[1].printed


@pytest.mark.parametrize(("combine", "temperature"), [("probabilities", 1.0), ("probabilities", 2.5), ("logits", 1.0)])
def test_logits_are_those_of_the_mean_over_members_by_hand(combine: str, temperature: float, tmp_path: Path) -> None:
    folders, weights = [teacher_folder(), teacher_folder(1)], [0.25, 0.75]
    place = ensemble_of(tmp_path / "two", folders, weights, combine=combine, temperature=temperature)
    found, images = taught(distilling(place))
    with torch.no_grad():
        each = [load(folder).model(images).double().log_softmax(1) for folder in folders]
    means = [w * (log_p.exp() if combine == "probabilities" else log_p) for w, log_p in zip(weights, each, strict=True)]
    wanted = sum(means).log() if combine == "probabilities" else sum(means)
    wanted = (wanted / temperature).softmax(1)
    torch.testing.assert_close(found.double().softmax(1), wanted, rtol=1e-5, atol=1e-6)


def test_equal_members_teach_as_one(tmp_path: Path) -> None:
    found, _ = taught(distilling(ensemble_of(tmp_path / "same", [teacher_folder()] * 3)))
    single, _ = taught(distilling(teacher_folder()))
    torch.testing.assert_close(found.softmax(1), single.softmax(1), rtol=1e-6, atol=1e-7)


def test_a_student_of_an_ensemble_resumes_bit_for_bit(tmp_path: Path) -> None:
    given = distilling(ensemble_of(tmp_path / "two", [teacher_folder(), teacher_folder(1)]), steps=4)
    whole, again = uninterrupted(given, 4)[1], interrupted(given, 2, 4, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)


WORDS = ("distillation=logits", "model=linear", "augment=[]", "probe=[]", "steps=6", "figures=never", "test=never")


def test_checksums_identify_an_ensemble_and_not_its_path(tmp_path: Path) -> None:
    one, other = ([teacher_folder(), teacher_folder(1)], [teacher_folder(1), teacher_folder(1)])
    places = [ensemble_of(tmp_path / "a", one), ensemble_of(tmp_path / "b", one), ensemble_of(tmp_path / "c", other)]
    jobs = [job(*WORDS, f"distillation.teacher={place}") for place in places]
    assert jobs[0].hash8 == jobs[1].hash8 != jobs[2].hash8
    assert all(len(each.config["distillation"]["teacher_sha256"]) == 64 for each in jobs)
    assert start(job(*WORDS, f"distillation.teacher={places[0]}", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert math.isfinite(result(tmp_path / "run")["scores"]["val"]["best"]["accuracy"])


def test_an_ensemble_that_changed_is_refused_in_one_line(tmp_path: Path) -> None:
    place = Path(ensemble_of(tmp_path / "two", [teacher_folder(), teacher_folder(1)]))
    known = job(*WORDS, f"distillation.teacher={place}").config["distillation"]["teacher_sha256"]
    record = json.loads((place / "ensemble.json").read_text())
    record["members"][0]["weight"], record["members"][1]["weight"] = 0.4, 0.6
    (place / "ensemble.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"^distillation.teacher_sha256: got .*, but the tensors of .* have"):
        job(*WORDS, f"distillation.teacher={place}", f"distillation.teacher_sha256={known}")
    with pytest.raises(ConfigError, match=r"^distillation.teacher: the members of .* have the SHA-256 .*, expected "):
        build(distilling(str(place), **{"distillation.teacher_sha256": known}))
    file = place / record["members"][1]["path"] / record["members"][1]["weights"]
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(CheckpointError, match=r"the member 'members/1'.* has changed"):
        build(distilling(str(place)))
    shutil.rmtree(place / "members" / "0")
    with pytest.raises(CheckpointError, match=r"the member 'members/0' is missing") as refusal:
        build(distilling(str(place)))
    assert "\n" not in str(refusal.value)


def test_initial_weights_are_still_those_of_one_model(tmp_path: Path) -> None:
    place = ensemble_of(tmp_path / "one", [teacher_folder()])
    with pytest.raises(ConfigError, match=r"^init_from: got .*, an ensemble; expected one model"):
        job("model=mlp", f"init_from={place}", "augment=[]")
