"""The study of a search in Optuna's own hands: the same points and scores, opened by Optuna alone from a file."""

import subprocess
import sys

import pytest
from test_study import MIXED, NUMBERS, points, search

import runner
from runner.errors import ConfigError
from runner.search.study import Study


@pytest.fixture
def found(tmp_path):
    """Search 6 points, and return them."""
    return points(Study(search(MIXED, "random", 6), tmp_path))


def test_the_copy_has_the_points_the_scores_and_the_direction(tmp_path, found):
    rows = {row.number: row.value for row in Study(search(MIXED, "random", 6), tmp_path).rows()}
    before = (tmp_path / "study.journal").read_bytes()
    copy = runner.study(tmp_path)
    assert copy.direction.name == "MINIMIZE" and [each.params for each in copy.trials] == found
    assert {each.number: each.value for each in copy.trials} == rows and copy.best_value == min(rows.values())
    assert copy.trials[0].distributions["lr"].log and copy.trials[0].distributions["optim"].choices == (
        "momentum",
        "adam",
    )
    copy.enqueue_trial({"lr": 0.1})
    assert (tmp_path / "study.journal").read_bytes() == before


def test_a_process_that_knows_only_optuna_opens_the_exported_database(tmp_path, found):
    url = f"sqlite:///{tmp_path}/study.db"
    runner.study(tmp_path, url)
    code = (
        "import optuna, sys; [name] = optuna.get_all_study_names(sys.argv[1]);"
        "s = optuna.load_study(study_name=name, storage=sys.argv[1]); print(len(s.trials), s.best_params['lr'], "
        "'runner' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == ["6", str(runner.study(tmp_path).best_params["lr"]), "False"]
    with pytest.raises(ConfigError, match="storage: has a study s already; choose another database"):
        runner.study(tmp_path, url)


def test_a_database_that_a_search_used_needs_no_export(tmp_path):
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path}/shared.db"
    found = points(Study(search(NUMBERS, "random", 3, storage=url), tmp_path))
    assert [each.params for each in optuna.load_study(study_name="s", storage=url).trials] == found


def test_the_last_of_several_studies_is_meant_unless_one_is_named(tmp_path):
    points(Study(search(NUMBERS, "random", 2), tmp_path))
    points(Study(search(NUMBERS, "random", 3, study_name="other"), tmp_path))
    assert len(runner.study(tmp_path / "study.journal").trials) == 3
    assert len(runner.study(str(tmp_path), name="s").trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "folder: none holds no study.journal, as a search with hydra/sweeper=optuna has"),
        ((".", None, "os"), "name: unknown study 'os'; did you mean 's'?"),
        ((".", "study.db"), "storage: got study.db, must be the URL of a database, such as sqlite:///study.db"),
        ((".", "sqlite://"), "in memory"),
        ((".", "redis://x"), "hydra.sweeper.storage: got 'redis://...'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    points(Study(search(NUMBERS, "random", 1), tmp_path))
    with pytest.raises(ConfigError) as caught:
        runner.study(*arguments[:2], name=arguments[2] if len(arguments) > 2 else None)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()
