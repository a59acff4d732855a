"""One study, several processes: no point twice, no process fails, and what a killed one left is run by another."""

import collections
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from postgres import postgres
from running import RAISED, ROOT
from test_study import MIXED, NUMBERS, OPTIM, bowl, came, search

from runner.engine.saving.locking import lock
from runner.search import owners
from runner.search.samplers import distinct_points
from runner.search.space import Axis, Space
from runner.search.study import Study

GRID = Space((Axis(key="a", kind="int", low=1, high=6, step=1.0), OPTIM))
STARTERS = 3


@pytest.fixture(scope="module")
def server():
    with postgres() as url:
        yield url


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """Import once what the children would import each."""
    for sampler in ("qmc", "cmaes"):
        folder = tmp_path_factory.mktemp(sampler)
        tried_in(folder, search(NUMBERS, sampler, 2, storage=f"sqlite:///{folder}/x.db"))


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def url(request, tmp_path):
    """A storage that does not exist yet; in Postgres the tables may."""
    if request.param == "postgresql":
        return request.getfixturevalue("server")
    return f"sqlite:///{tmp_path}/new.db" if request.param == "sqlite" else str(tmp_path / "new.journal")


def started(work) -> int:
    """Run a function in a forked process and return its pid; an exception ends it with RAISED."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = RAISED
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def sweep(folder: Path, asked):
    """Open a study as a sweep does: in a locked folder, with a sign of life."""
    folder.mkdir(exist_ok=True)
    with lock(folder), closing(Study(asked, folder)) as study, study.alive():
        yield study


def rows(folder: Path, asked) -> list[str]:
    """Return the states of the points."""
    with closing(Study(asked, folder)) as study:
        return [row.state for row in study.rows()]


def tried_in(folder: Path, asked, *, pause: float = 0.002) -> None:
    """Run points until there are no more, and note each."""
    with sweep(folder, asked) as study, (folder / "points").open("a") as file:
        while (one := study.ask()) is not None:
            file.write(json.dumps(one.point) + "\n")
            file.flush()
            time.sleep(pause)
            study.tell(one, came(bowl(one.point) if "lr" in one.point else 1.0))


def noted(tmp_path: Path) -> list[tuple]:
    """Return the points of all processes."""
    lines = [line for path in tmp_path.glob("*/points") for line in path.read_text().splitlines()]
    return [tuple(json.loads(line).items()) for line in lines]


def run_together(tmp_path: Path, asked, starters: int = STARTERS) -> list[int]:
    """Search in several processes that start at the same moment; return their exit codes."""
    at = time.monotonic() + 0.3

    def work(folder: Path):
        time.sleep(max(0.0, at - time.monotonic()))
        tried_in(folder, asked)

    children = [started(lambda n=n: work(tmp_path / str(n))) for n in range(starters)]
    return [ended(child) for child in children]


@pytest.mark.parametrize(
    ("sampler", "space", "count"),
    [("grid", GRID, None), ("random", NUMBERS, 13), ("qmc", NUMBERS, 13), ("tpe", MIXED, 13), ("cmaes", NUMBERS, 13)],
)
def test_several_processes_try_each_point_once_and_as_many_as_were_asked_for(tmp_path, url, sampler, space, count):
    if url.startswith("postgresql") and sampler in ("random", "cmaes"):
        pytest.skip("takes long, and the other storages show it")
    asked = search(space, sampler, count, storage=url, study_name=f"together-{sampler}")
    assert run_together(tmp_path, asked) == [0] * STARTERS
    found = noted(tmp_path)
    assert len(found) == (count or 12)
    assert [point for point, times in collections.Counter(found).items() if times > 1] == []
    if sampler in ("grid", "random", "qmc"):  # which do not depend on the order of results
        alone = itertools.islice(distinct_points(space, asked.sampler), len(found))
        assert sorted(found) == sorted(tuple(point.items()) for point in alone)


@pytest.mark.slow
def test_gaussian_processes_in_two_processes_never_ask_alike(tmp_path, url):
    asked = search(NUMBERS, "gp", 14, storage=url, study_name="together-gp")
    assert run_together(tmp_path, asked, 2) == [0, 0]
    found = noted(tmp_path)
    assert len(found) == len(set(found)) == 14


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(8))
def test_many_processes_create_a_study_together(tmp_path, attempt, url):
    """Also where the tables do not exist; in Postgres they are dropped first."""
    if url.startswith("postgresql"):
        from sqlalchemy import create_engine, text

        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        engine.dispose()
    asked = search(NUMBERS, "random", 40, storage=url, study_name="many")
    assert run_together(tmp_path, asked, 8) == [0] * 8
    assert len(noted(tmp_path)) == len(set(noted(tmp_path))) == 40


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_the_points_of_a_killed_process_are_run_by_another_one(tmp_path, url, sampler):
    asked = search(GRID, sampler, 12, storage=url, study_name=f"killed-{sampler}")
    for name in ("killed", "other"):
        (tmp_path / name).mkdir()

    def killed():
        with sweep(tmp_path / "killed", asked) as study:
            for _ in range(2):  # two workers
                study.ask()
            os.kill(os.getpid(), signal.SIGKILL)

    child = started(killed)
    assert ended(child) == -signal.SIGKILL
    tried_in(tmp_path / "other", asked)
    assert len(noted(tmp_path)) == 12 and set(rows(tmp_path / "other", asked)) == {"complete"}
    if sampler == "grid":
        assert len(set(noted(tmp_path))) == 12
    # The first command finds nothing left
    with sweep(tmp_path / "killed", asked) as again:
        assert again.ask() is None


def test_the_points_of_a_process_that_runs_are_left_alone(tmp_path, url):
    asked = search(GRID, "grid", None, storage=url, study_name="alone")
    with sweep(tmp_path / "first", asked) as first, sweep(tmp_path / "second", asked) as second:
        theirs = [first.ask(), first.ask()]
        found = []
        while (one := second.ask()) is not None:
            second.tell(one, came(1.0))
            found.append(one.point)
        assert len(found) == 10 and not any(each.point in found for each in theirs)
        for each in theirs:
            assert first.tell(each, came(1.0)) == "complete"
    assert rows(tmp_path / "second", asked) == ["complete"] * 12


def test_a_sweep_on_another_machine_counts_as_ended_after_five_minutes_of_silence(tmp_path, url, monkeypatch):
    asked = search(GRID, "grid", 2, storage=url, study_name="far")
    far = tmp_path / "far"
    with sweep(far, asked) as study:
        point = study.ask().point
        # As if its machine had died: nothing more is written
        write = owners.Heartbeat._write
        monkeypatch.setattr(owners.Heartbeat, "_write", lambda self, value: write(self, value) if value else None)
    (far / ".study-owner").unlink()  # its disk cannot be seen from here
    monkeypatch.undo()
    with sweep(tmp_path / "near", asked) as near:
        assert near.ask().point != point
        near._next_look = 0
        assert near.ask() is None
        now = time.time()
        monkeypatch.setattr(owners.time, "time", lambda: now + 301)
        near._next_look = 0
        assert near.ask().point == point


def test_a_result_that_comes_after_another_sweep_took_the_point_is_not_counted(tmp_path, capsys):
    asked = search(GRID, "grid", 1, storage=f"sqlite:///{tmp_path}/x.db")
    with sweep(tmp_path / "slow", asked) as slow:
        point = slow.ask()
        slow._storage.set_trial_user_attr(point.trial, "owner", "somebody")
        slow.tell(point, came(0.5))
    assert "another sweep runs it" in capsys.readouterr().err
    assert rows(tmp_path / "slow", asked) == ["running"]


def test_two_samplers_in_one_study_each_try_all_their_points(tmp_path):
    space = Space((Axis(key="a", kind="choice", choices=tuple("uvwxyz")),))
    url = f"sqlite:///{tmp_path}/x.db"
    with sweep(tmp_path / "a", search(space, "random", 3, storage=url)) as random:
        while one := random.ask():
            random.tell(one, came(1.0))
    with sweep(tmp_path / "b", search(space, "grid", None, storage=url)) as grid:
        found = set()
        while one := grid.ask():
            grid.tell(one, came(1.0))
            found.add(one.point["a"])
    assert found == set("uvwxyz")


def test_one_process_on_a_shared_storage_tries_the_points_of_a_search_of_its_own(tmp_path):
    found = []
    for sampler, storage in itertools.product(("random", "tpe", "cmaes"), (None, f"sqlite:///{tmp_path}/x.db")):
        folder = tmp_path / f"{sampler}{storage is None}"
        tried_in_new = search(NUMBERS, sampler, 8, storage=storage, study_name=sampler)
        folder.mkdir()
        tried_in(folder, tried_in_new, pause=0)
        found.append((folder / "points").read_text())
    assert found[0::2] == found[1::2]


SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "average=none", "epochs=1", "device=cpu")
COMMAND = ("-m", "hydra/sweeper=optuna", *SMALL, "hydra.launcher.workers=2")


def launched(folder: Path, name: str, *words: str) -> subprocess.Popen:
    """Start a search on the command line; its sweep has this name."""
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *COMMAND, f"sweep={name}", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished_runs(folder: Path) -> list[str]:
    """Return the names of the runs of all sweeps that have a result."""
    results = folder.glob("outputs/sweeps/*/*/result.json")
    return sorted(path.parent.name for path in results if json.loads(path.read_text())["status"] == "done")


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_three_commands_that_start_together_share_a_new_database(tmp_path, attempt):
    words = "optim.lr=0.1,0.2,0.3", "seed=0,1", "hydra/sweeper/sampler=grid", "hydra.sweeper.storage=sqlite:///new.db"
    commands = [launched(tmp_path, f"s{n}", *words) for n in range(STARTERS)]
    errors = [command.communicate(timeout=300)[1] for command in commands]
    assert [command.returncode for command in commands] == [0] * STARTERS, errors
    assert errors == [""] * STARTERS
    names = finished_runs(tmp_path)
    assert len(names) == len(set(names)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_command_that_is_killed_costs_the_others_no_point(tmp_path, sampler):
    words = (
        "optim.lr=tag(log,interval(1e-3,1))",
        f"hydra/sweeper/sampler={sampler}",
        "hydra.sweeper.storage=sqlite:///new.db",
        "hydra.sweeper.n_trials=10",
        "hydra.sweeper.study_name=shared",
    )
    commands = [launched(tmp_path, f"s{n}", *words) for n in range(2)]
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(tmp_path.glob("outputs/sweeps/s0/*/environment.json")):
        time.sleep(0.02)
    commands[0].kill()
    commands[0].communicate(timeout=60)
    errors = commands[1].communicate(timeout=300)[1]
    assert commands[1].returncode == 0, errors
    names = finished_runs(tmp_path)
    assert len(names) == len(set(names)) == 10
