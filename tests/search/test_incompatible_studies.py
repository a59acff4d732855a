"""A study or a storage that is not of this search is refused in one line, and stays as it is."""

import math
from contextlib import closing

import pytest
from test_study import LR, NUMBERS, OPTIM, points, search

from runner.errors import ConfigError, RunnerError
from runner.search.space import Axis, Space
from runner.search.storage import open_storage
from runner.search.storage_lock import locked
from runner.search.study import Study


def made(path, *, directions=("minimize",), name="s"):
    """Create a study as another program does."""
    import optuna

    return optuna.create_study(study_name=name, storage=open_storage(str(path), path.parent), directions=directions)


def opened(folder, asked=None, **changes) -> Study:
    return Study(asked or search(NUMBERS, "tpe", storage=str(folder / "j"), **changes), folder)


def refused(folder, asked=None, **changes) -> str:
    with pytest.raises(ConfigError) as info:
        opened(folder, asked, **changes)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_a_study_with_several_scores(tmp_path):
    made(tmp_path / "j", directions=["minimize", "maximize"])
    assert "'s' exists with 2 scores (here 1); choose another name" in refused(tmp_path)


OTHER_AXES = {
    "wider": (Axis(key="lr", kind="float", low=1e-5, high=1.0, log=True), "other values of lr"),
    "narrower": (Axis(key="lr", kind="float", low=1e-4, high=0.5, log=True), "other values of lr"),
    "linear": (Axis(key="lr", kind="float", low=1e-4, high=1.0), "other values of lr"),
    "whole numbers": (Axis(key="lr", kind="int", low=1, high=5), "other values of lr"),
    "choices": (Axis(key="lr", kind="choice", choices=("0.1", "1")), "other values of lr"),
    "another key": (Axis(key="decay", kind="float", low=1e-4, high=1.0), "another key, lr"),
}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("other", OTHER_AXES)
def test_a_study_over_another_space(tmp_path, sampler, other):
    url, (axis, says) = str(tmp_path / "j"), OTHER_AXES[other]
    points(Study(search(Space((LR,)), sampler, 2, storage=url), tmp_path))
    assert says in refused(tmp_path, search(Space((axis,)), sampler, storage=url))


def test_a_study_over_fewer_keys_or_choices_in_another_order(tmp_path):
    url = str(tmp_path / "j")
    points(Study(search(Space((LR,)), "random", 2, storage=url), tmp_path))
    assert "points without optim" in refused(tmp_path, search(Space((LR, OPTIM)), "random", storage=url))
    points(Study(search(Space((OPTIM,)), "random", 2, storage=url, study_name="o"), tmp_path), lambda point: 1.0)
    turned = Space((Axis(key="optim", kind="choice", choices=OPTIM.choices[::-1]),))
    assert "other values of optim" in refused(tmp_path, search(turned, "random", storage=url, study_name="o"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": (1, 2)}, "seeds=[0] (here [1, 2])"),
        ({"settings": {"model": {"name": "cnn", "width": 8}}}, "model.name=mlp (here cnn)"),
        ({"settings": {"model": {"name": "mlp", "width": 9}}}, "model.width=8 (here 9)"),
    ],
)
def test_a_study_with_other_settings_whose_scores_cannot_be_compared(tmp_path, changes, says):
    same = {"settings": {"model": {"name": "mlp", "width": 8}}}
    points(opened(tmp_path, **same))
    assert points(opened(tmp_path, **same)) == []
    assert says.replace("mlp", "'mlp'").replace("cnn", "'cnn'") in refused(tmp_path, **same | changes)


def test_a_study_with_another_score_of_the_same_direction(tmp_path):
    from runner.engine.monitor import Monitor

    points(opened(tmp_path))
    assert "monitor='val/loss' (here 'val/nll')" in refused(tmp_path, monitor=Monitor("val/nll"))


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"lr": 5.0}, "lr: got 5.0, must be a number from 0.0001 to 1.0"),
        ({"lr": math.nan}, "lr: got nan, must be a number"),
        ({"lr": "0.1"}, "lr: got '0.1', must be a number"),
        ({"width": 3}, "width: got 3, must be a whole number from 4 to 64"),
        ({"width": 8.5}, "width: got 8.5, must be a whole number"),
        ({"width": True}, "width: got true, must be a whole number"),
        ({"momentum": 0.5}, "momentum: not a key of the search (lr, width)"),
    ],
)
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_enqueued_value_outside_the_space_is_refused_and_not_clipped(tmp_path, capsys, fixed, says, sampler):
    study = made(tmp_path / "j")
    study.enqueue_trial(fixed)
    asked = search(NUMBERS, sampler, 2, storage=str(tmp_path / "j"))
    assert says in refused(tmp_path, asked)
    # Enqueued while a search runs: it costs that point alone
    running = Study(search(NUMBERS, sampler, 2, storage=str(tmp_path / "k")), tmp_path)
    running._study.enqueue_trial(fixed)
    assert len(points(running)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "cmaes"])
def test_an_enqueued_point_is_run_first_with_every_sampler_and_open_values_are_sampled(tmp_path, sampler):
    whole = Axis(key="a", kind="int", low=1, high=9, step=2.0)
    space = Space((whole, Axis(key="b", kind="int", low=0, high=3, step=1.0)))
    study = made(tmp_path / "j")
    study.enqueue_trial({"a": 3, "b": 2})
    study.enqueue_trial({"a": 9})
    found = points(Study(search(space, sampler, 4, storage=str(tmp_path / "j")), tmp_path), lambda point: 1.0)
    assert found[0] == {"a": 3, "b": 2} and found[1]["a"] == 9 and found[1]["b"] in range(4)
    assert len(found) == 4


def test_attributes_and_odd_trials_of_others_do_no_harm(tmp_path):
    import optuna

    study = made(tmp_path / "j")
    axes = {"lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)}
    axes["width"] = optuna.distributions.IntDistribution(4, 64)
    values = {"params": {"lr": 0.1, "width": 8}, "distributions": axes}
    strange = {"again": "x", "index": [1], "runs": "none", "sweep": 3, "owner": 4, "sampler": 5}
    add = study.add_trial
    add(optuna.trial.create_trial(value=0.5, user_attrs=strange, **values))
    add(optuna.trial.create_trial(value=math.inf, **values))
    add(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    add(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, **values))
    add(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING))
    add(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=strange, **values))
    add(optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED, **values))
    for sampler in ("random", "tpe"):
        ours = Study(search(NUMBERS, sampler, 8, storage=str(tmp_path / "j")), tmp_path)
        found = points(ours)
        assert len(found) == (3 if sampler == "random" else 0)  # five were there
        assert ours.rows()[0].value is not None


@pytest.mark.parametrize("content", [b"a text\n", b"12 pages\n", b"{}\n", b"SQLite format 3\0", b"\x89PNG\r\n"])
def test_a_file_that_is_no_storage_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    for url in (str(path), f"sqlite:///{path}"):
        with pytest.raises(ConfigError, match=r"^hydra.sweeper.storage: .*x"):
            open_storage(url, tmp_path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(tmp_path, url):
    with pytest.raises(ConfigError, match="a database in memory, which ends with this process; name a file"):
        open_storage(url, tmp_path)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:secret@h:port/x", "postgresql://u:sec{r}et@nowhere.invalid/x", "mysql+none://u:secret@h/x"],
)
def test_a_database_that_cannot_be_opened_is_one_line_without_its_password(tmp_path, url):
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.storage: cannot use ") as info:
        open_storage(url, tmp_path)
    assert "\n" not in str(info.value) and "sec" not in str(info.value).replace("hydra.sweeper", "")


def test_a_database_of_another_version_of_optuna_or_one_that_cannot_be_written_is_one_line(tmp_path):
    from sqlalchemy import create_engine, text

    url = f"sqlite:///{tmp_path}/x.db"
    with closing(Study(search(NUMBERS, "random", 1, storage=url), tmp_path)):
        pass
    only = f"sqlite:///file:{tmp_path}/x.db?mode=ro&uri=true"
    with pytest.raises(RunnerError, match="readonly database") as info:
        Study(search(NUMBERS, "random", 1, storage=only, study_name="new"), tmp_path)
    assert "\n" not in str(info.value)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.9.9.z'"))
    engine.dispose()
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.storage: cannot use .*optuna"):
        open_storage(url, tmp_path)


def test_a_storage_whose_lock_cannot_be_made_is_one_line(tmp_path):
    with pytest.raises(RunnerError, match=r"none/x"), locked(f"sqlite:///{tmp_path}/none/x"):
        pass
