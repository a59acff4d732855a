"""A trial's status follows from what its folder holds: damaged, edited, copied and removed files of a sweep."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from running import metrics, result
from test_data_identity import refused

from runner.__main__ import main
from runner.comparing.report import make_report
from runner.comparing.verdicts import Criterion

SMALL = (
    "data=synthetic", "model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "steps=6", "validate_every=3steps",
    "checkpoint_every=2steps", "device=cpu", "sweep=s",
)  # fmt: skip
GRID = ("-m", *SMALL, "optim.lr=0.1,0.01", "seed=0,1,2", "hydra.launcher.workers=2")
TOP = Path("outputs/sweeps/s")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main([*GRID]) == 0
    return place


@pytest.fixture
def sweep(finished, tmp_path, monkeypatch):
    """A copy of the finished sweep, and in it the first trial of the smaller rate."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return trial("lr=0.01-seed=0")


def trial(name: str) -> Path:
    (found,) = TOP.glob(f"{name}-????????")
    return found


def compared(*more: str):
    """Return the row of the smaller rate, all warnings, and the number of runs."""
    found = make_report([str(TOP), *more], Criterion(metric="val/accuracy", at="last"), "lr=0.1")
    (row,) = [row for row in found.rows if not row.is_baseline]
    return row, found.warnings, found.runs


def again(capfd, *words: str, code: int = 0):
    """Repeat the command, and return what it printed to both streams."""
    capfd.readouterr()
    assert main([*(words or GRID)]) == code
    return capfd.readouterr()


def set_fields(folder: Path, **changes) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without_score(folder: Path, value) -> None:
    scores = result(folder)["scores"]
    if value == "missing":
        del scores["val"]["best"]["accuracy"]
    else:
        scores["val"]["best"]["accuracy"] = scores["val"]["last"]["accuracy"] = value
    set_fields(folder, scores=scores)


LOST = {
    "deleted": lambda folder: (folder / "result.json").unlink(),
    "empty": lambda folder: (folder / "result.json").write_bytes(b""),
    "truncated": lambda folder: (folder / "result.json").write_bytes((folder / "result.json").read_bytes()[:100]),
    "a list": lambda folder: (folder / "result.json").write_text("[1]"),
    "no scores": lambda folder: set_fields(folder, scores={}),
    "null scores": lambda folder: without_score(folder, None),
    "NaN scores": lambda folder: without_score(folder, float("nan")),
    "no monitored score": lambda folder: without_score(folder, "missing"),
    "says pruned": lambda folder: set_fields(folder, status="pruned", scores={}),
}


@pytest.mark.parametrize("how", LOST)
def test_a_result_without_evidence_counts_as_missing_and_the_same_command_makes_it_again(sweep, capfd, how):
    before, curve, names = result(sweep), metrics(sweep), sorted(path.name for path in TOP.iterdir())
    LOST[how](sweep)
    row, warnings, runs = compared()
    assert (len(row.scores), len(row.group.runs), runs) == (2, 3, 6)
    assert row.verdict.startswith("none:") or row.verdict.endswith("from 2 of 3 seeds")
    assert sum("optim.lr=0.01: 1 of 3 failed (seed 0), excluded from the mean" in line for line in warnings) == 1
    out, _ = again(capfd)
    assert out.count("already done") == 5
    assert sorted(path.name for path in TOP.iterdir()) == names
    assert {**result(sweep), "seconds": 0} == {**before, "seconds": 0} and metrics(sweep) == curve
    row, warnings, _ = compared()
    assert len(row.scores) == 3 and not any("excluded" in line for line in warnings)
    if how in ("empty", "truncated", "a list"):
        assert (sweep / "result.json.unreadable").is_file()
    assert f"{sweep.name}" in Path("outputs/notebook.md").read_text()


@pytest.mark.parametrize("how", ["deleted", "no scores"])
def test_resume_makes_a_lost_result_again(sweep, capfd, how):
    before = result(sweep)
    LOST[how](sweep)
    again(capfd, f"resume={sweep}")
    assert {**result(sweep), "seconds": 0} == {**before, "seconds": 0}
    assert again(capfd).out.count("already done") == 6


def test_resume_names_a_result_that_it_cannot_read_and_how_to_go_on(sweep, capfd):
    LOST["truncated"](sweep)
    line = refused(capfd, f"resume={sweep}", code=3)
    assert "result.json: malformed" in line and line.endswith("remove it to go on from the last checkpoint\n")
    (sweep / "result.json").unlink()
    again(capfd, f"resume={sweep}")
    assert result(sweep)["status"] == "done"


def test_a_result_of_a_later_version_is_kept_and_its_trial_fails_alone(sweep, capfd):
    set_fields(sweep, schema=9, more=1)
    content = (sweep / "result.json").read_bytes()
    out, err = again(capfd, code=1)
    assert out.count("already done") == 5 and "1 of 6 trials failed" in err
    assert f"failed: {sweep.name}: {sweep}/result.json: malformed (not a result of schema 1 to 2)" in err
    assert (sweep / "result.json").read_bytes() == content
    assert any("1 of 3 failed (seed 0)" in line for line in compared()[1])


def test_a_result_is_kept_without_its_checkpoints(sweep, capfd):
    before = result(sweep)
    shutil.rmtree(sweep / "checkpoints")
    assert again(capfd).out.count("already done") == 6
    assert again(capfd, f"resume={sweep}").out.count("done after 6 steps") == 1
    assert result(sweep) == before and len(compared()[0].scores) == 3


def test_without_checkpoints_and_result_the_trial_begins_anew(sweep, capfd):
    before = result(sweep)
    shutil.rmtree(sweep / "checkpoints")
    (sweep / "result.json").unlink()
    assert again(capfd).out.count("already done") == 5
    assert {**result(sweep), "seconds": 0} == {**before, "seconds": 0}


def test_the_folder_of_a_trial_that_is_gone_is_made_again(sweep, capfd):
    before = result(sweep)
    shutil.rmtree(sweep)
    row, _, runs = compared()
    assert (len(row.scores), runs) == (2, 5)
    assert row.verdict.startswith("none:") or row.verdict.endswith("from 2 of 3 seeds")
    assert again(capfd).out.count("already done") == 5
    assert {**result(sweep), "seconds": 0} == {**before, "seconds": 0}


@pytest.mark.parametrize("content", [None, "", "model: ["])
def test_a_lost_config_is_named_by_compare_and_written_again_by_the_same_command(sweep, capfd, content):
    before = yaml.safe_load((sweep / "config.yaml").read_text())
    (sweep / "config.yaml").unlink()
    if content is not None:
        (sweep / "config.yaml").write_text(content)
    row, warnings, _ = compared()
    assert (len(row.scores), len(row.group.runs)) == (2, 3)
    assert any("1 of 3 failed (seed 0), excluded from the mean: config.yaml" in line for line in warnings)
    out, err = again(capfd)
    assert out.count("already done") == 6 and "had no readable config.yaml; it is written again" in err
    # `threads` is of the launcher
    assert yaml.safe_load((sweep / "config.yaml").read_text()) == {**before, "threads": "auto"}
    assert len(compared()[0].scores) == 3


def test_an_edited_config_is_another_run_and_its_score_counts_nowhere(sweep, capfd):
    before = result(sweep)
    text = (sweep / "config.yaml").read_text()
    (sweep / "config.yaml").write_text(text.replace("lr: 0.01", "lr: 0.5"))
    row, warnings, _ = compared()
    assert (len(row.scores), len(row.group.runs)) == (2, 3)
    assert any("config.yaml: was edited after the run began" in line for line in warnings)
    for done in (5, 6):
        out, err = again(capfd)
        assert out.count("already done") == done
        assert "holds another run (its config.yaml is of other values); its own goes to <name>-2" in err
        new = sweep.with_name(f"{sweep.name}-2")
        assert {**result(new), "seconds": 0} == {**before, "seconds": 0}
    assert len(compared()[0].scores) == 3
    # A note or a comment changes nothing
    (sweep / "config.yaml").write_text("# my best\n" + text.replace("note: ''", "note: mine"))
    assert again(capfd).out.count("already done") == 6


def test_renamed_copied_and_moved_folders_count_once_and_are_named(sweep, capfd):
    shutil.copytree(sweep, sweep.with_name("copy"))
    row, warnings, _ = compared()
    assert len(row.scores) == 3
    assert any("1 run repeats a seed" in line and "(lr=0.01-seed=0" in line + "(" for line in warnings)
    assert again(capfd).out.count("already done") == 6
    sweep.rename(sweep.with_name("mine"))
    assert again(capfd).out.count("already done") == 5
    assert result(sweep)["status"] == "done"
    assert any("2 runs repeat a seed" in line for line in compared()[1])
    # The same trial of another sweep is found by its hash
    other = TOP.with_name("t")
    other.mkdir()
    sweep.rename(other / sweep.name)
    words = ["sweep=t" if word == "sweep=s" else word for word in GRID]
    assert again(capfd, *words).out.count("already done") == 1


def test_a_trial_of_a_failed_sweep_that_is_resumed_by_hand_is_done(sweep, capfd):
    set_fields(sweep, status="failed", exit=70, reason="x", scores={})
    again(capfd, f"resume={sweep}")
    assert result(sweep)["status"] == "done"
    assert again(capfd).out.count("already done") == 6


@pytest.mark.parametrize("status", ["diverged", "failed", "timeout", "interrupted", "running"])
def test_results_of_the_first_schema_keep_their_meaning(sweep, capfd, status):
    set_fields(sweep, schema=1, status=status, scores={})
    assert again(capfd).out.count("already done") == (6 if status == "diverged" else 5)
    assert result(sweep)["status"] == ("diverged" if status == "diverged" else "done")


SEARCH = (
    "-m", *SMALL, "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=3",
    "optim.lr=tag(log,interval(0.01,0.1))", "hydra.launcher.workers=2",
)  # fmt: skip


def test_a_search_and_its_folders_tell_one_truth(tmp_path, monkeypatch, capfd):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    assert main([*SEARCH]) == 0
    ranking = (TOP / "ranking.csv").read_text()
    first, *_ = folders = sorted(TOP.glob("*/result.json"))
    before = {path: result(path.parent) for path in folders}
    # The study says complete, the folder has no result
    first.unlink()
    out, err = again(capfd, *SEARCH)
    assert "1 point has a run without a result in its folder" in err and "3 points (3 complete)" in out
    assert {**result(first.parent), "seconds": 0} == {**before[first], "seconds": 0}
    assert [line.split(",")[3:] for line in (TOP / "ranking.csv").read_text().splitlines()] == [
        line.split(",")[3:] for line in ranking.splitlines()
    ]
    again(capfd, *SEARCH)
    assert sorted(TOP.glob("*/result.json")) == folders
    # The folder has a result, the study knows nothing
    (TOP / "study.journal").unlink()
    out, _ = again(capfd, *SEARCH)
    assert out.count("already done") == 3 and "3 points (3 complete)" in out
