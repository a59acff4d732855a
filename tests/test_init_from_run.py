"""Runs that start from weights: what identifies them, sweeps, resume without the file, and old commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from running import MLP, job, killed_in_step, run_in_child
from safetensors.torch import load_file, save_file

from runner.__main__ import main
from runner.comparing.groups import group_runs
from runner.comparing.runs import Run, find_runs
from runner.engine.saving.folder import Result
from runner.hashes import group_hash, hash8
from runner.keys import hyperparameters
from runner.numerics import completed
from runner.status import Status
from runner.tasks import start
from runner.tasks.hparams import typed_hparams

TINY = (*MLP, "augment=[]", "probe=[]", "steps=4", "validate_every=2steps", "figures=never", "test=never", "device=cpu")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder with averaged weights, and its selected tensors."""
    folder = tmp_path_factory.mktemp("trained") / "base"
    assert main([*TINY, f"hydra.run.dir={folder}"]) == 0
    result = json.loads((folder / "result.json").read_text())
    saved = load_file(folder / result["weights"])
    return folder, {name.removeprefix("model."): t for name, t in saved.items() if name.startswith("model.")}


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_run_folder_gives_the_weights_that_the_run_selected(trained):
    folder, tensors = trained
    from runner.assemble import assemble

    model = assemble(job(*TINY, "seed=9", f"init_from={folder}").config).learner.model
    assert all(torch.equal(t, tensors[name]) for name, t in model.state_dict().items())


def test_the_tensors_identify_a_run_and_not_their_path(trained):
    _, tensors = trained
    torch.save(tensors, "a.pt")
    save_file(tensors, "elsewhere.safetensors")
    torch.save({name: t + 1 for name, t in tensors.items()}, "other.pt")
    first, moved, run, other, none = (
        job(*TINY, f"init_from={path}") for path in ("a.pt", "elsewhere.safetensors", trained[0], "other.pt", "null")
    )
    assert first.hash8 == moved.hash8 == run.hash8 and first.group_hash == moved.group_hash
    assert len({first.hash8, other.hash8, none.hash8}) == 3
    shutil.copy("other.pt", "a.pt")
    assert job(*TINY, "init_from=a.pt").hash8 == other.hash8
    assert hyperparameters(first.config) == hyperparameters(moved.config) != hyperparameters(other.config)
    assert job(*TINY).hash8 == hash8(completed({k: v for k, v in none.config.items() if "init_" not in k}))


def test_a_digest_that_is_given_must_be_that_of_the_tensors(trained, capsys):
    folder, _ = trained
    assert main([*TINY, f"init_from={folder}", f"init_sha256={'0' * 64}"]) == 2
    assert "init_sha256: got 000000000000..., but the tensors of" in capsys.readouterr().err
    assert main([*TINY, f"init_sha256={'0' * 64}"]) == 2
    assert not Path("outputs").exists()


def test_a_resumed_run_needs_no_file(trained):
    torch.save(trained[1], "w.pt")
    words = [*TINY, "init_from=w.pt", "checkpoint_every=2steps"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    assert run_in_child(killed_in_step(4, lambda: start(job(*words, "hydra.run.dir=cut")))) == -9
    Path("w.pt").unlink()
    assert main(["resume=cut"]) == 0
    whole, cut = (load_file(Path(name) / "checkpoints/00000004.weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(t, cut[name]) for name, t in whole.items())
    assert main(["task=evaluate", "run=cut", "task.split=val"]) == 0


def test_other_tensors_at_step_0_of_a_resumed_run_are_refused(trained, capsys):
    torch.save(trained[1], "w.pt")
    words = [*TINY, "init_from=w.pt", "hydra.run.dir=cut"]
    assert run_in_child(killed_in_step(1, lambda: start(job(*words)))) == -9
    torch.save({name: t + 1 for name, t in trained[1].items()}, "w.pt")
    assert main(["resume=cut"]) == 2
    assert "the tensors of w.pt have the SHA-256" in capsys.readouterr().err


def test_a_sweep_tries_several_weights_and_knows_them_by_their_tensors(trained, capsys):
    _, tensors = trained
    torch.save(tensors, "a.pt")
    torch.save({name: t + 1 for name, t in tensors.items()}, "b.pt")
    words = ["-m", *TINY, "init_from=a.pt,b.pt,null", "hydra.launcher.workers=1"]
    assert main(words) == 0
    [sweep] = Path("outputs/sweeps").iterdir()
    trials = sorted(each.name for each in sweep.iterdir() if each.is_dir())
    assert [name.rpartition("-")[0] for name in trials] == ["init_from=a.pt", "init_from=b.pt", "init_from=null"]
    labels = {group.label for group in group_runs(find_runs([str(sweep)]).runs)}
    assert labels == {"init_from=a.pt", "init_from=b.pt", "init_from=none"}
    configs = [config_of(sweep / name) for name in trials]
    assert [typed_hparams(each).get("init_from") for each in configs] == ["a.pt", "b.pt", None]
    # Other weights at the same path are another trial; the same ones are done
    shutil.copy("b.pt", "a.pt")
    assert main(words) == 0
    assert len([each for each in sweep.iterdir() if each.is_dir()]) == 4


def test_a_comparison_tells_apart_weights_that_lay_at_the_same_path_one_after_the_other(trained):
    folder, _ = trained
    config, done = config_of(folder), Result(status=Status.DONE)
    runs = [
        Run(folder=folder, config={**config, "init_from": "a.pt", "init_sha256": digest}, result=done, environment={})
        for digest in ("1" * 64, "2" * 64)
    ]
    labels = [group.label for group in group_runs(runs)]
    assert labels == ["init_from=a.pt (111111111111)", "init_from=a.pt (222222222222)"]
    elsewhere = replace(runs[0], config={**runs[0].config, "init_from": "b.pt"})
    labels = [group.label for group in group_runs([*runs, elsewhere])]
    assert labels == ["init_from=a.pt", "init_from=a.pt and 1 more"]


def test_the_same_weights_in_another_place_are_the_same_sweep_and_a_resumed_one_needs_no_file(trained, capsys):
    torch.save(trained[1], "a.pt")
    shutil.copy("a.pt", "b.pt")
    more = ["seed=0,1", "hydra.launcher.workers=1"]
    assert main(["-m", *TINY, "init_from=a.pt", *more]) == main(["-m", *TINY, "init_from=b.pt", *more]) == 0
    [sweep] = Path("outputs/sweeps").iterdir()
    written = {each: each.stat().st_mtime_ns for each in sweep.rglob("result.json")}
    Path("a.pt").unlink()
    Path("b.pt").unlink()
    capsys.readouterr()
    assert main([f"resume={sweep}"]) == 0
    assert {each: each.stat().st_mtime_ns for each in sweep.rglob("result.json")} == written


def test_a_run_that_an_older_version_saved_keeps_its_hash_and_its_value():
    now = job("model=torchvision", "augment=[]").config
    new = [key for key in now if key.startswith(("init_", "extend"))]
    old = {key: value for key, value in now.items() if key not in new}
    old["model"] = {**old["model"], "weights": "~/resnet18.pt"}
    found = completed(old)
    assert found["init_from"] == "~/resnet18.pt" and "weights" not in found["model"] and found["init_sha256"] is None
    without = {**old, "model": {**old["model"], "weights": None}}
    assert completed(without) == now and group_hash(completed(without)) == group_hash(now)
    assert group_hash(found) != group_hash(now)
