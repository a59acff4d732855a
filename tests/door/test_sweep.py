"""Sweeps: all trials are checked before the first starts, Hydra runs them, and failures do not stop the others."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runner.__main__ import main
from runner.door import hydra_launchers
from runner.door.compose import compose_parts, hydra_opened
from runner.door.grid import Axes, check_trials, grid_of
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.plan import plan_sweep
from runner.hashes import hash8

ROOT = Path(__file__).parents[2]


def axes(conf, *overrides):
    return Axes(read_overrides(conf, overrides), [])


def names(sweep):
    return [job.folder_name for job in sweep.jobs]


def planned(*overrides):
    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return plan_sweep(conf, compose_parts(conf, [each for each in given if not each.swept]), given)


SWEEPS = [
    ["optim.lr=0.1,1e-3", "model=mlp,cnn"],
    ["seed=range(0,3)", "epochs=2", "optim=sgd,adam"],
    ["seed=range(6,0,-2)"],
    ["augment=[crop],[],[hflip,crop]", "model=choice(mlp,resnet)"],
    ["optim.lr=range(0.1,0.3,0.1)", "clip=null,1.0", "optim.fused=true,false"],
    ["optim={lr:1},{lr:2}", "note='a,b'"],
    ["model=mlp"],
]


@pytest.mark.parametrize("overrides", SWEEPS, ids=" ".join)
def test_trials_are_those_of_hydras_sweeper_in_its_order(bench, overrides):
    conf = find_conf()
    theirs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]
    ours = [[each.word for each in trial] for trial in grid_of(conf, axes(conf, *overrides), {}).all()]
    parse = OverridesParser.create().parse_override
    assert [[(parse(w).key_or_group, parse(w).value()) for w in trial] for trial in ours] == [
        [(parse(w).key_or_group, parse(w).value()) for w in trial] for trial in theirs
    ]


@pytest.mark.parametrize("overrides", SWEEPS, ids=" ".join)
def test_the_checked_configs_are_those_that_hydra_composes(bench, overrides):
    conf = find_conf()
    with hydra_opened(conf):
        checked = [trial.config for trial in check_trials(conf, axes(conf, *overrides), {})[0].values()]
        theirs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]
        assert checked == [OmegaConf.to_container(compose("config", words), resolve=True) for words in theirs]


def test_a_glob_is_written_out_with_the_users_options_too(bench, user):
    folder = user({"optim/spare": "name: sgd\nlr: 0.7\nfused: true\n"})
    conf = find_conf(str(folder))
    given = read_overrides(conf, ["optim=glob(s*)"])
    with hydra_opened(conf):
        sweep = plan_sweep(conf, compose_parts(conf, []), given)
    assert [name.partition("-")[0] for name in names(sweep)] == ["optim=sgd", "optim=spare"]


def test_trials_are_named_by_what_differs_and_their_hash(bench):
    sweep = planned("model=mlp,cnn", "optim.lr=0.5", "augment=[crop],[]")
    assert [name.rpartition("-")[0] for name in names(sweep)] == [
        f"model={model}-augment={augment}" for model in ("mlp", "cnn") for augment in ("crop", "none")
    ]
    assert len({name.rpartition("-")[2] for name in names(sweep)}) == 4


def test_a_sweep_keeps_its_folder_when_values_are_added(bench):
    folder = planned("seed=0,1", "optim.lr=0.1,0.2", "model=mlp").folder
    assert folder.parent == Path("outputs/sweeps")
    assert folder.name.startswith("lr-")
    assert planned("optim.lr=0.1,0.2,0.3", "seed=range(0,5)", "model=mlp").folder.name[-8:] == folder.name[-8:]
    assert planned("seed=0,1", "optim.lr=0.1,0.2", "model=mlp", "device=cpu", "note=x").folder == folder
    assert planned("seed=0,1", "optim.lr=0.1,0.2", "model=cnn").folder != folder
    assert planned("seed=0,1", "sweep=mine", "outputs=/tmp/o").folder == Path("/tmp/o/sweeps/mine")
    assert planned("seed=0,1", "hydra.sweep.dir=else").folder == Path("else")


REFUSED = [
    (["optim.lr=0.1,abc", "seed=0,1"], "optim.lr: got 'abc', must be a number"),
    (["optim=sgd,adm"], "optim: unknown option 'adm'; did you mean 'adam'? (choose from: adam, sgd)"),
    (["optim=sgd,adam", "optim.gamma=0.5"], "optim.gamma: unknown key 'gamma' (choose from: fused, lr, name)"),
    (["seed=0,0"], "seed=0: two trials of this sweep are the same"),
    (["seed=range(0,100000)"], "seed: the sweep has 10001 trials or more, must be at most 10000"),
    (["seed=range(0,1000)", "epochs=range(1,100)"], "seed: the sweep has 99000 trials or more, must be at most 10000"),
    (["seed=range(3,0)"], "seed: got range(3,0), which has no values"),
    (
        ["optim.lr=interval(0,1)"],
        "optim.lr: got interval(0,1), but a grid tries listed values only; "
        "list them (optim.lr=0.1,0.01) or choose a sweeper that searches (hydra/sweeper=...)",
    ),
    (["model=glob(x*)"], "model: unknown option 'glob(x*)' (choose from: cnn, mlp, resnet)"),
    (["seed=glob(*)"], "seed: got glob(*), but only options of a group can be globbed"),
    (["name=x", "seed=0,1"], "name: names a single run; for a sweep set sweep"),
    (["hydra.run.dir=x", "seed=0,1"], "hydra.run.dir: names a single run; for a sweep set hydra.sweep.dir"),
    (["plugins=[a],[b]"], "plugins: cannot be swept"),
    (["hydra/launcher=basic,joblib"], "hydra/launcher: cannot be swept"),
    (["sweep=a/b", "seed=0,1"], "sweep: got 'a/b', must be letters, digits and . _ = , + - (at most 120)"),
    (
        ["recipe=search", "optim.lrr=1"],
        "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)",
    ),
]


@pytest.mark.parametrize(("argv", "line"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_a_wrong_trial_is_found_before_the_first_one_starts(refused, argv, line):
    assert refused("-m", *argv) == f"runner: error: {line}"


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ("{plugins: 'a,b'}", "plugins: allowed on the command line only, because a file must not import code"),
        ("{optim.lr: '0.1,x'}", "optim.lr: got 'x', must be a number"),
        ("{optim.lrr: '0.1,1'}", "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)"),
        ("{hydra.callbacks.x: '1,2'}", "hydra.callbacks.x: cannot be set"),
        ("{optim: {lr: '1,2'}}", "hydra.sweeper.params.optim: must be text, as in 'optim.lr: 0.1,0.01' in a recipe"),
    ],
)
def test_a_search_space_in_a_recipe_is_checked_too(user, refused, params, line):
    header = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: "
    folder = user({"recipe/mine": f"{header}{params}\n"})
    assert refused("recipe=mine", "--config-dir", str(folder)).startswith(f"runner: error: {line}")


def jobs(folder: Path = Path("outputs/sweeps")) -> list[dict]:
    found = [json.loads(path.read_text()) | {"in": path.parent} for path in sorted(folder.rglob("job.json"))]
    for job in found:
        assert job["folder"] == str(job["in"])
        assert job["folder_name"] == job["in"].name
        assert job["in"].name.endswith(job["hash8"])
        assert job["hash8"] == hash8(job["config"])
        assert job["config"]["test"] == "never"
    return found


def test_a_sweep_runs_every_trial_in_its_folder(echo, capsys):
    wanted = names(planned("seed=1,2", "model=mlp,cnn"))
    assert main(["-m", *echo, "seed=1,2", "model=mlp,cnn", "note=which, one?", "sweep=both"]) == 0
    ran = jobs(Path("outputs/sweeps/both"))
    assert sorted((job["config"]["seed"], job["config"]["model"]["name"]) for job in ran) == [
        (1, "cnn"),
        (1, "mlp"),
        (2, "cnn"),
        (2, "mlp"),
    ]
    assert {job["folder_name"].rpartition("-")[0] for job in ran} == {name.rpartition("-")[0] for name in wanted}
    assert {job["config"]["note"] for job in ran} == {"which, one?"}
    assert len({job["group_hash"] for job in ran}) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "4 trials in outputs/sweeps/both"
    assert [line.split()[0] for line in out.splitlines()[1:5]] == [f"[{number}/4]" for number in range(1, 5)]
    assert err == ""


def test_a_failing_trial_does_not_stop_the_others(echo, capsys):
    argv = ["-m", *echo, "task.fail=1", "task.code=2", "seed=0,1,2,3", "hydra.sweeper.max_batch_size=2", "sweep=x"]
    assert main(argv) == 1
    assert [job["config"]["seed"] for job in jobs()] == [0, 3]
    lines = capsys.readouterr().err.splitlines()
    ended = {path.parent.name: json.loads(path.read_text()) for path in Path("outputs/sweeps/x").glob("*/result.json")}
    bad = sorted(name for name, result in ended.items() if result["status"] == "failed")
    reasons = [ended[name]["reason"] for name in bad]
    assert reasons[0] == "no such pictures"
    assert re.fullmatch(r"plugin \S*mine/lab_echo\.py:\d+: ZeroDivisionError: a mistake", reasons[1])
    assert lines[:2] == [f"failed: {name}: {ended[name]['reason']}" for name in bad]
    assert lines[2] == "logs: outputs/sweeps/x/*/trial.log"
    assert lines[-1] == f"runner: error: 2 of 4 trials failed: {', '.join(bad)}"
    assert main([word for word in argv if word != "task.fail=1" and word != "task.code=2"]) == 0


def test_a_recipe_with_a_search_space_needs_no_flag(echo):
    assert main([*echo, "recipe=search"]) == 0
    assert len(jobs()) == 4
    assert main([*echo, "recipe=search", "optim.lr=7", "sweep=fixed"]) == 0
    assert {job["config"]["optim"]["lr"] for job in jobs(Path("outputs/sweeps/fixed"))} == {7}
    assert len(jobs(Path("outputs/sweeps/fixed"))) == 2


def test_keys_of_open_mappings_and_knobs_can_be_swept(echo):
    assert main(["-m", *echo, "optim=adam", "optim.rules.bias=1,2", "optim.betas.0=0.5"]) == 0
    assert [job["config"]["optim"]["rules"] for job in jobs()] == [{"bias": 1}, {"bias": 2}]
    assert [job["config"]["optim"]["betas"] for job in jobs()] == [[0.5, 0.999]] * 2


def test_the_folders_can_be_given(echo):
    folders = ["hydra.sweep.dir=all, of them", "hydra.sweep.subdir=run-${seed}"]
    assert main(["-m", *echo, "seed=1,2", *folders]) == 0
    assert sorted(path.parent.name for path in Path("all, of them").glob("*/job.json")) == ["run-1", "run-2"]
    assert main(["-m", *echo, "seed=1,2", "task.fail=1", *folders]) == 1


def test_a_trial_whose_config_files_changed_after_the_plan_fails(bench, echo, monkeypatch, capsys):
    """As on a cluster whose nodes see another version of a file."""
    from runner.door import sweep

    save = sweep.save_command

    def change_a_file(*arguments):
        save(*arguments)
        (bench / "optim" / "sgd.yaml").write_text("name: sgd\nlr: 0.3\nfused: false\n")

    monkeypatch.setattr(sweep, "save_command", change_a_file)
    assert main(["-m", *echo, "seed=1,2", "sweep=x"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert "as planned; do config files differ?" in err[0]
    assert err[-1].startswith("runner: error: 2 of 2 trials failed: ")
    assert jobs() == []


def test_an_error_of_a_launcher_outside_its_runs_ends_the_sweep_in_one_line(echo, monkeypatch, capsys):
    def fail(*arguments):
        raise OSError("no queue")

    monkeypatch.setattr(hydra_launchers.HydraTask, "__call__", fail)
    assert main(["-m", *echo, "seed=1,2", "sweep=x"]) == 1
    assert capsys.readouterr().err == "runner: error: the launcher ended the sweep: OSError: no queue\n"


def test_recipes_and_none_can_be_swept(echo):
    assert main(["-m", *echo, "recipe=fast,null", "epochs=2", "sweep=r"]) == 0
    assert {job["config"]["optim"]["lr"] for job in jobs()} == {0.02, 0.1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hydra/launcher=basic", "hydra.sweeper.max_batch_size=0"], "got 0, must be"),
        (["hydra/launcher=basic", "hydra.sweeper.max_batch_size=-1"], "got -1, must be"),
    ],
)
def test_a_number_of_trials_that_start_together_has_an_effect_or_is_refused(echo, capsys, words, says):
    assert main(["-m", *echo, "seed=0,1", "sweep=x", *words]) == 2
    assert f"hydra.sweeper.max_batch_size: {says}" in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("code", [130, 143, 0], ids=["SIGINT", "SIGTERM", "raised"])
def test_a_trial_that_is_interrupted_by_itself_does_not_end_the_sweep(echo, monkeypatch, capsys, code):
    def interrupted(job):
        if job.config["seed"] != 2:
            return 0
        if code:
            return code
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.door.hydra_launchers.start", interrupted)
    assert main(["-m", *echo, "seed=1,2,3", "sweep=x"]) == (code or 130)
    found = {path.parent.name: json.loads(path.read_text()) for path in Path("outputs/sweeps/x").glob("*/result.json")}
    assert [found[name]["status"] for name in sorted(found)] == ["done", "interrupted", "done"]
    assert "interrupted: seed=2-" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_with_its_exit_code_and_a_table(echo, monkeypatch, capsys, number):
    def signalled(job):
        if job.config["seed"] == 2:
            os.kill(os.getppid(), number)
            time.sleep(60)
        return 0

    monkeypatch.setattr("runner.door.hydra_launchers.start", signalled)
    assert main(["-m", *echo, "seed=1,2,3", "sweep=x"]) == 128 + number
    found = {path.parent.name: json.loads(path.read_text()) for path in Path("outputs/sweeps/x").glob("*/result.json")}
    assert [found[name]["status"] for name in sorted(found)] == ["done", "interrupted"]
    printed = capsys.readouterr()
    assert printed.out.count("seed=1-") == 2  # its line and its row
    assert "stopped: 1 of 3 trials has a result; repeat the command to continue" in printed.err


LAUNCHER = '''
"""Runs the trials of a sweep in other processes, as Hydra's joblib launcher does."""
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict


@dataclass
class Conf:
    _target_: str = "hydra_plugins.fresh.launcher.FreshLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="fresh", node=Conf)


def job(state, context, function, config, overrides, number):
    setup_globals()
    Singleton.set_state(state)
    config = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    HydraConfig.instance().set_config(config)
    return run_job(function, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)


class FreshLauncher(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        from joblib import Parallel, delayed

        state = Singleton.get_state()
        return Parallel(n_jobs=2)(
            delayed(job)(state, self.context, self.function, self.config, overrides, initial_job_idx + number)
            for number, overrides in enumerate(job_overrides)
        )
'''


@pytest.mark.ci_slice
@pytest.mark.slow
def test_trials_run_in_other_processes_with_the_same_names(echo, tmp_path):
    plugin = tmp_path / "site/hydra_plugins/fresh"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "launcher.py").write_text(LAUNCHER)
    wanted = names(planned("seed=1,2"))
    words = ["-m", "--config-dir", echo[1], "plugins=[lab_echo]", "seed=1,2", "hydra/launcher=fresh", "sweep=x"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "site"), echo[1]])}
    program = "from runner.door import options; from pathlib import Path\n"
    program += f"options.conf_folder = lambda: Path({str(tmp_path / 'conf')!r})\n"
    program += "import sys; from runner.__main__ import main\nif __name__ == '__main__': sys.exit(main())\n"
    (tmp_path / "start.py").write_text(program)
    command = [sys.executable, str(tmp_path / "start.py"), *words]
    done = subprocess.run([*command, "task=echo"], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert {job["folder_name"].rpartition("-")[0] for job in jobs()} == {name.rpartition("-")[0] for name in wanted}
    failing = subprocess.run(
        [*command, "task=echo", "task.fail=2"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert failing.returncode == 1
    assert failing.stderr.splitlines()[-1].startswith("runner: error: 1 of 2 trials failed: seed=2-")
