"""Every wrong command line gets one exact error line and exit code 2, and creates nothing."""

import sys

import pytest

from runner.__main__ import main
from runner.errors import one_line

HYDRA = (
    "cannot be set (allowed: hydra/launcher, hydra/sweeper, hydra.launcher.*, hydra.sweeper.*, "
    "hydra.run.dir, hydra.sweep.*, hydra.mode)"
)
LINES = [
    # names
    (["model=resnt"], "model: unknown option 'resnt'; did you mean 'resnet'? (choose from: cnn, mlp, resnet)"),
    (["augment=[crop,flop]"], "augment: unknown option 'flop' (choose from: crop, hflip)"),
    (["augment=[crop,hflp]"], "augment: unknown option 'hflp'; did you mean 'hflip'? (choose from: crop, hflip)"),
    (["recipe=nope"], "recipe: unknown option 'nope' (choose from: fast, search)"),
    (["optim.lrr=1"], "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)"),
    (["+optim.lrr=1"], "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)"),
    (["++optim.lrr=1"], "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)"),
    (["optim={lrr: 1}"], "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name)"),
    (
        ["monitor=val/acuracy"],
        "monitor: unknown value 'val/acuracy'; did you mean 'val/accuracy'? "
        "(choose from: train_eval/accuracy, val/accuracy, val/loss, val/nll)",
    ),
    (
        ["optim.name=adam"],
        "optim.name: got 'adam', must be 'sgd' as in its YAML; choose another option with optim=adam",
    ),
    (["augment.crop.padding=2"], "augment.crop: 'crop' is not chosen; add it: augment=[crop]"),
    (
        ["augment=[crop]", "augment.crop.pading=2"],
        "augment.crop.pading: unknown key 'pading'; did you mean 'padding'? (choose from: mode, padding)",
    ),
    (["--config-name", "nope"], "--config-name: unknown config 'nope' (choose from: config)"),
    (["--config-dir", "a", "seed=1", "--config-dir=b"], "--config-dir: given twice ('a', 'b')"),
    (["--config-dir", "nowhere"], "--config-dir: got 'nowhere', must be a folder that exists"),
    # values
    (["optim.lr=abc"], "optim.lr: got 'abc', must be a number"),
    (["optim.lr=true"], "optim.lr: got true, must be a number"),
    (["optim.lr=nan"], "optim.lr: got nan, must be a number"),
    (["optim.lr=1e999"], "optim.lr: got inf, must be finite"),
    (["optim.lr="], "optim.lr: got '', must be a number"),
    (["optim.lr.x=3"], "optim.lr: got {'x': 3}, must be a number"),
    (["model.depth=8.5"], "model.depth: got 8.5, must be a whole number"),
    (["optim.fused=1"], "optim.fused: got 1, must be true or false"),
    (["optim.fused=no"], "optim.fused: got 'no', must be true or false"),
    (["scheduler.warmup=5"], "scheduler.warmup: got 5, must be a duration like 500steps, 2epochs, 10000examples or 5%"),
    (["model=mlp", "model.hidden=64"], "model.hidden: got 64, must be a list [a,b,...]"),
    (["optim=adam", "optim.rules=3"], "optim.rules: got 3, must be a mapping {a: b}"),
    (
        ["augment=crop", "augment.crop=2"],
        "augment.crop: got 2, must be set by its knobs (augment.crop.padding, augment.crop.mode)",
    ),
    (["augment=crop", "augment.crop.mode=3"], "augment.crop.mode: got 3, must be text"),
    (["epochs=0"], "epochs: got 0, must be > 0"),
    (["epochs=nan"], "epochs: got nan, must be a number"),
    (["steps=0"], "steps: got 0, must be >= 1"),
    (["seed=null"], "seed: got null, must be a whole number"),
    (["plugins=my_lab"], "plugins: got 'my_lab', must be a list [a,b,...]"),
    (["name=a/b"], "name: got 'a/b', must be letters, digits and . _ = , + - (at most 120)"),
    (["optim.lr=???"], "optim.lr: Missing mandatory value: lr"),
    (["optim.lr=${model.nope}"], "optim.lr: Interpolation key 'model.nope' not found"),
    (["optim.lr=${optim.lr}"], "optim.lr: Recursive interpolation detected"),
    (["seed=${oc.env:NO_SUCH_VARIABLE}"], None),
    (["optim=adam", "optim.betas.7=0"], "optim.betas.7: cannot be set there: list index out of range"),
    # choices
    (["model=resnet", "model=mlp"], "model: given twice ('resnet', 'mlp')"),
    (["seed=1", "+seed=2"], "seed: given twice (1, 2)"),
    (["augment=[crop,crop]"], "augment: given twice ('crop')"),
    (["optim=[adam,sgd]"], "optim: got [adam,sgd], must be one option (to try each: -m optim=adam,sgd)"),
    (["optim=null"], "optim: got null, must be an option"),
    (["augment=null"], "augment: got null, must be a list, [] for none"),
    (["steps=5", "epochs=1"], "steps: given together with epochs, must be one of the two"),
    (
        ["optim.lr=0.1,0.01"],
        "optim.lr: got several values (0.1,0.01); add -m to run each of them",
    ),
    (["seed=range(0,3)"], "seed: got several values (range(0,3)); add -m to run each of them"),
    # form
    (["augment=[crop"], "augment=[crop: the brackets do not match"),
    (["optim={lr: 1"], "optim={lr: 1: the braces do not match"),
    (["model='mlp"], "model='mlp: the quotes do not match"),
    (["seed=number(3)"], None),
    (
        ["model=é"],
        """model=é: cannot be read; put a value with special characters in two pairs of quotes: model='"..."'""",
    ),
    (["mlp"], "mlp: must be key=value or a flag (see --help); did you mean 'model=mlp'?"),
    ([""], "'': must be key=value or a flag (see --help)"),
    (["=5"], "=5: must be key=value or a flag (see --help)"),
    (["optim..lr=1"], "optim..lr=1: 'optim..lr' is not a key; must be key=value, as in optim.lr=0.1"),
    (["seed=1\n2"], None),
    (["~optim"], "~optim: removing a key is not supported; choose another option, or set [] or null"),
    (["~optim.lr=1"], "~optim.lr=1: removing a key is not supported; choose another option, or set [] or null"),
    (["note=" + "x" * 10_001], "note: is longer than 10000 characters"),
    (["seed=" + "[" * 4000 + "]" * 4000], "seed: holds more than 200 brackets"),
    (["--cfg", "all"], None),
    (["-m", "--cfg", "job"], "--cfg: not supported with -m; it prints the config of one run"),
    (["--resolve"], "--resolve: requires --cfg job"),
    # what calls, and what Hydra keeps to itself
    (["+optim._target_=os.system"], "optim._target_: a key must not start with '_' (a config cannot call code)"),
    (["optim={_target_: os.system}"], "optim._target_: a key must not start with '_' (a config cannot call code)"),
    (["optim=adam", "optim.rules={a: [{_target_: x}]}"], None),
    (
        ["hydra.launcher._target_=x"],
        "hydra.launcher._target_: a key must not start with '_' (a config cannot call code)",
    ),
    (
        ["hydra.sweeper.a={_target_: x}"],
        "hydra.sweeper.a._target_: a key must not start with '_' (a config cannot call code)",
    ),
    (["hydra.callbacks.x=1"], f"hydra.callbacks.x: {HYDRA}"),
    (["hydra/job_logging=stdout"], f"hydra/job_logging: {HYDRA}"),
    (["hydra.searchpath=[x]"], f"hydra.searchpath: {HYDRA}"),
    (["hydra.job.env_set.A=1"], f"hydra.job.env_set.A: {HYDRA}"),
    (["hydra=1"], f"hydra: {HYDRA}"),
    (["hydra/launcher=../../x"], "hydra/launcher: got '../../x', must be one word"),
    (["hydra/launcher=no_such"], "hydra/launcher: unknown option 'no_such' (choose from: basic)"),
    (["hydra.launcher.jobs=2"], "hydra.launcher.jobs: unknown key 'jobs' (choose from: nothing, it has no keys)"),
    (["hydra.mode=FOO"], "hydra.mode: Invalid value 'FOO', expected one of [RUN, MULTIRUN]"),
    (["model@teacher=mlp"], "model@teacher: '@' is not supported; an option's values are always in its group"),
]


@pytest.mark.parametrize(("argv", "line"), LINES, ids=[" ".join(argv)[:60] for argv, _ in LINES])
def test_a_wrong_command_line_is_answered_in_one_line(refused, argv, line):
    given = refused(*argv)
    assert given.startswith("runner: error: ")
    assert line is None or given == f"runner: error: {line}"


def test_an_unknown_flag_names_the_nearest(refused):
    assert refused("--hlep").startswith(
        "runner: error: --hlep: unknown flag '--hlep'; did you mean '--help'? (choose from: "
    )
    assert refused("--config-dri=x", "seed=1").startswith("runner: error: --config-dri: unknown flag")


def test_an_unknown_first_word_is_held_against_groups_and_global_fields(refused):
    assert refused("foo=1").startswith("runner: error: foo: unknown key 'foo' (choose from: ")
    assert refused("foo=1").endswith(" more: task=list)")
    assert refused("modle=mlp").startswith("runner: error: modle: unknown key 'modle'; did you mean 'model'? (choose ")


def test_every_one_edit_typo_of_a_key_names_the_key(refused):
    for typo, key in (("epoch", "epochs"), ("sedd", "seed"), ("devise", "device"), ("acumulate", "accumulate")):
        assert f"did you mean '{key}'?" in refused(f"{typo}=1")


def test_a_bug_prints_its_traceback_and_exits_70(bench, capsys, monkeypatch):
    monkeypatch.setattr("runner.door.arguments.read_arguments", lambda argv: 1 / 0)
    assert main(["seed=1"]) == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    said = "(this is a bug in runner, please report it with the lines above)"
    assert err.endswith(f"\nrunner: error: ZeroDivisionError: division by zero {said}\n")


def test_interrupting_exits_130(bench, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.door.arguments.read_arguments", interrupted)
    assert main(["seed=1"]) == 130


def test_an_error_stays_one_line_whatever_it_quotes():
    assert one_line("a\nb\x1b[31m\u2028c\udcff") == "a\\nb\\x1b[31m\\u2028c\\xff"
    assert len(one_line("x" * 10_000)) == 2000


def test_the_command_line_is_sys_argv_unless_given(bench, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["runner", "model=resnt"])
    assert main() == 2
    assert "did you mean 'resnet'" in capsys.readouterr().err
