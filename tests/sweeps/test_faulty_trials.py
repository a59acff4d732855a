"""A sweep whose trials fail in many ways: each fails alone and reports the reason."""

import re
import uuid

import pytest
from running import command, result
from trials import PATHS, PLUGIN, SMALL, surviving_processes, sweep, trial_folders

REASONS = {
    1: ("failed", r"plugin \S*faulty\.py:\d+: ZeroDivisionError: a mistake"),
    3: ("failed", r"plugin \S*faulty\.py:\d+: SystemExit: 0"),
    5: ("failed", "the process ended with exit code 7 and left no result"),
    7: ("failed", r"killed \(SIGKILL\), as by the system when memory runs out"),
    9: ("failed", r"crashed \(SIGSEGV\): a segmentation fault in native code"),
    11: ("failed", "out of memory"),
    13: ("failed", "out of memory"),
    15: ("failed", "out of memory"),
    17: ("timeout", "took longer than hydra.launcher.timeout=8 s"),
    19: ("failed", "printed more than 64 MB"),
    21: ("failed", "image 7 is not readable"),
    23: ("diverged", ""),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    where, mark = tmp_path_factory.mktemp("faulty"), uuid.uuid4().hex
    words = ["mix=faulty", "mix.which=range(24)", "mix.at=10", "epochs=1", *PLUGIN]
    limits = ["hydra.launcher.timeout=8", "hydra.launcher.memory=2", "hydra.launcher.workers=2"]
    done = sweep(*words, *limits, cwd=where, RUNNER_TEST_MARK=mark)
    assert surviving_processes(mark) == []
    return done, {int(name.partition("=")[2].partition("-")[0]): path for name, path in trial_folders(where).items()}


def test_every_healthy_trial_completes(ended):
    _, trials = ended
    healthy = [result(trials[which]) for which in range(0, 24, 2)]
    assert [one["status"] for one in healthy] == ["done"] * 12
    assert len({one["scores"]["val"]["best"]["accuracy"] for one in healthy}) == 1  # they are the same run


def test_every_faulty_trial_says_why_in_its_folder(ended):
    _, trials = ended
    for which, (status, reason) in REASONS.items():
        found = result(trials[which])
        assert (found["status"], found["exit"] == 0) == (status, False)
        assert re.match(reason, found["reason"])
        assert "\n" not in found["reason"]
        assert (trials[which] / "config.yaml").is_file()
    assert "a mistake" in (trials[1] / "trial.log").read_text()
    assert "Traceback" in (trials[1] / "trial.log").read_text()


def test_a_trial_that_hangs_ends_in_time_with_what_it_started(ended):
    _, trials = ended
    assert 8 <= result(trials[17])["seconds"] <= 10.5


def test_a_trial_that_prints_without_end_does_not_fill_the_disk(ended):
    _, trials = ended
    assert (trials[19] / "trial.log").stat().st_size <= 1 << 20


def test_the_sweep_tells_of_all_and_ends_with_1(ended):
    done, trials = ended
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("24 trials in ")
    assert sum(line.startswith("[") for line in lines) == 24
    names = {path.name for path in trials.values()}
    table = [words for words in map(str.split, lines) if words and words[-1] in names and not words[0].startswith("[")]
    assert len(table) == 24
    assert {row[-1]: row[-3] for row in table} == {path.name: result(path)["status"] for path in trials.values()}
    for which, (status, reason) in REASONS.items():
        assert re.search(f"{re.escape(f'{status}: {trials[which].name}: ')}{reason}", done.stderr)
    assert done.stderr.splitlines()[-1].startswith("runner: error: 11 of 24 trials failed: ")


def test_a_trial_that_fails_is_tried_again(tmp_path):
    words = ["-m", *SMALL, "task=flaky", *PLUGIN, "seed=0,1", "hydra.launcher.retries=2"]
    done = command(*words, cwd=tmp_path, PYTHONPATH=PATHS)
    assert done.returncode == 0, done.stderr
    for path in trial_folders(tmp_path).values():
        assert (path.parent / f"{path.name}.attempts").read_text() == "xxx"
        assert result(path)["status"] == "done"


def test_out_of_memory_is_tried_again_because_others_may_have_used_the_memory(tmp_path):
    words = ["-m", *SMALL, "task=forgetful", *PLUGIN, "seed=0,1", "hydra.launcher.retries=2"]
    done = command(*words, cwd=tmp_path, PYTHONPATH=PATHS)
    assert done.returncode == 0, done.stderr
    for path in trial_folders(tmp_path).values():
        assert (path.parent / f"{path.name}.attempts").read_text() == "xxx"
        assert result(path)["status"] == "done"


def test_a_killed_trial_says_how_far_it_came(tmp_path):
    """The curves and the newest checkpoint, after the first epoch of 19 steps, are all that is left of it."""
    words = ("mix=faulty", "mix.which=5,7", "mix.at=25", "epochs=2", "checkpoint_every=1epoch")
    done = sweep(*words, *PLUGIN, cwd=tmp_path)
    assert done.returncode == 1
    for path in trial_folders(tmp_path).values():
        found = result(path)
        assert found["status"] == "failed"
        assert 19 <= found["steps"] < 25
        assert found["epochs"] == pytest.approx(found["steps"] / 19, abs=1e-5)


@pytest.mark.parametrize(
    ("seeds", "code", "says"),
    [
        ("0,1", 143, "1 of 2 trials interrupted: seed=1"),
        ("0,3", 130, "1 of 2 trials interrupted: seed=3"),
        ("0,1,5", 1, "1 of 3 trials failed: seed=5"),
    ],
)
def test_a_trial_that_a_signal_stopped_is_not_a_failed_one(tmp_path, seeds, code, says):
    done = command("-m", *SMALL, "task=stopped", *PLUGIN, f"seed={seeds}", cwd=tmp_path, PYTHONPATH=PATHS)
    assert done.returncode == code, done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert "1 of 3 trials interrupted: seed=1" in done.stderr or len(seeds) == 3
    statuses = {name.partition("-")[0]: result(path)["status"] for name, path in trial_folders(tmp_path).items()}
    assert statuses["seed=0"] == "done" and "failed" not in {statuses.get("seed=1"), statuses.get("seed=3")}
    assert done.stderr.count("interrupted; resume") == 0
