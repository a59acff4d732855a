"""Run folders of every released format load, resume and evaluate, or are rejected in one line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from running import events, job, metrics, result

import runner.tasks.train  # noqa: F401
from runner.engine.saving import checkpoint, manifest
from runner.engine.saving.checkpoint import load
from runner.errors import CheckpointError, ConfigError
from runner.tasks import start

RUNS = Path(__file__).parent / "fixtures" / "runs"
VERSIONS = sorted(path.name for path in RUNS.iterdir() if path.is_dir())
STEPS = 9


@pytest.fixture(params=VERSIONS)
def run(request, tmp_path):
    """A copy of the folder of a killed run, with what its last validation printed."""
    shutil.copytree(RUNS / request.param, tmp_path / "run")
    return tmp_path / "run", json.loads((RUNS / f"{request.param}.json").read_text())


def test_the_present_format_has_its_folder():
    manifests = [json.loads(path.read_bytes()) for path in RUNS.glob("*/checkpoints/*.json")]
    assert {record["format"] for record in manifests} == set(range(1, manifest.FORMAT + 1))


def test_the_folders_are_small():
    assert all(sum(file.stat().st_size for file in (RUNS / name).rglob("*")) < 60_000 for name in VERSIONS)


def test_an_old_run_goes_on(run):
    folder, _ = run
    before = metrics(folder)
    assert load(folder).step == 6
    assert start(job(f"resume={folder}", "device=cpu")) == 0
    assert (result(folder)["status"], result(folder)["steps"]) == ("done", STEPS)
    kept = [row for row in before if row[0] <= 6]
    assert metrics(folder)[: len(kept)] == kept
    assert [step for step, tag, _ in metrics(folder) if tag == "train/loss"] == list(range(1, STEPS + 1))
    both = ("train/loss", "2 train/loss")  # older versions wrote the tags of the log
    assert [step for step, tag, _ in events(folder) if tag in both] == list(range(1, STEPS + 1))


def test_an_old_run_is_evaluated_to_the_score_it_had(run, capfd):
    folder, last = run
    assert start(job("task=evaluate", "task.split=val", f"run={folder}", "device=cpu")) == 0
    assert f"{last['val/accuracy']:.4f}" in capfd.readouterr().out


def saved(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def save(folder, config):
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def test_a_key_that_no_version_left_out_is_missed_in_one_line(run):
    folder, _ = run
    save(folder, {key: value for key, value in saved(folder).items() if key != "patience"})
    with pytest.raises(ConfigError, match=r"config\.yaml: patience: missing, and every version of runner writes it"):
        start(job(f"resume={folder}", "device=cpu"))


@pytest.mark.parametrize("change", [{"from_later": 1}, {"seed": None}])
def test_a_config_of_another_version_is_refused_in_one_line(run, change):
    folder, _ = run
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) | change
    path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None or key != "seed"}))
    with pytest.raises(ConfigError, match="is not a config of this version of runner"):
        start(job(f"resume={folder}"))


def of_a_later_format(path):
    """Give a manifest the format number of a later version, and a valid checksum."""
    record = json.loads(path.read_bytes())
    del record["sha256"]
    body = json.dumps(record | {"format": manifest.FORMAT + 1}, separators=(",", ":")).encode()[:-1]
    path.write_bytes(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')


@pytest.mark.parametrize("words", [["resume={}"], ["task=evaluate", "run={}"]], ids=["resume", "evaluate"])
@pytest.mark.parametrize("which", ["*", "00000006"])
def test_a_later_format_is_refused_in_one_line_and_nothing_is_changed(run, which, words):
    folder, _ = run
    for path in (folder / "checkpoints").glob(f"{which}.json"):
        of_a_later_format(path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        start(job(*(word.format(folder) for word in words)))
    assert "written in format 2 by a later version, this one reads format 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_result_of_a_later_schema_is_refused_in_one_line(run):
    folder, _ = run
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(record | {"schema": 3, "more": 1}))
    with pytest.raises(CheckpointError, match=r"result\.json: malformed \(not a result of schema 1 to 2\)"):
        start(job(f"resume={folder}"))


def test_what_the_folder_holds_is_still_what_a_run_writes(run, tmp_path):
    folder, _ = run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    words = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert config.keys() <= job(*words).config.keys()
    assert set(checkpoint.load(folder).state) == {"learner", "log"}
