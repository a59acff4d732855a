"""`~` in a path is the home folder wherever the path is given, and never a folder with that name."""

import pytest

from runner.__main__ import main
from runner.errors import ConfigError
from tests.door.test_compose import ours


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("key", ["outputs", "resume"])
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_path_begins_at_home(home, key, quote):
    _, config = ours(f"{key}={quote}~/some runs{quote}")
    assert config[key] == f"{home}/some runs"


def test_so_does_one_of_a_task_and_of_a_model(home):
    assert ours("task=compare", "task.out=~/report")[1]["task"]["out"] == f"{home}/report"
    assert ours("model=torchvision", "model.weights=~/a.pt")[1]["init_from"] == f"{home}/a.pt"


def test_so_do_paths_of_a_list(home):
    _, config = ours("task=compare", "runs=['~/a',b,'~/c d']")
    assert config["runs"] == [f"{home}/a", "b", f"{home}/c d"]


def test_a_config_says_of_its_data_the_same_on_every_machine():
    _, config = ours("data=cifar10")
    assert config["data"]["root"] == "~/.cache/runner"


@pytest.mark.parametrize("word", ["outputs=~nobody-here/runs", "data.root=~nobody-here", "outputs=~a\0b/runs"])
def test_a_user_that_is_not_there_is_named(word):
    key, _, path = word.partition("=")
    with pytest.raises(ConfigError) as refusal:
        ours("data=cifar10", word)
    line = f"{key}: got {path!r}, must be a path (there is no such user; ./~ is a folder of that name)"
    assert str(refusal.value) == line


def test_a_folder_whose_name_begins_like_that_can_be_named():
    assert ours("outputs=./~x")[1]["outputs"] == "./~x"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_run_at_home_is_found_there_again(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["model=linear", "steps=2", "figures=never"]
    assert main([*words, "outputs=~/runs", "name=first"]) == 0
    assert main(["resume=~/runs/first"]) == 0
    assert (home / "runs/first/result.json").is_file() and not (tmp_path / "~").exists()
    assert main(["-m", *words, "seed=0,1", "outputs=~/runs", "sweep=two"]) == 0
    assert main(["-m", "resume=~/runs/sweeps/two"]) == 0
    assert main(["task=compare", "runs=~/runs/sweeps/two"]) == 0
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.storage='~/study.journal'"]
    assert main(["-m", *words, *search, "optim.lr=interval(0.1,0.2)", "outputs=~/runs", "sweep=three"]) == 0
    assert (home / "study.journal").exists()
    assert main([*words, "hydra.run.dir=~/runs/second"]) == 0
    assert main(["-m", *words, "seed=0,1", "hydra.sweep.dir=~/runs/four"]) == 0
    assert (home / "runs/second/result.json").is_file() and len([*(home / "runs/four").glob("seed=*/result.json")]) == 2
    assert not (tmp_path / "~").exists()
