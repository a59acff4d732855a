"""The Python API: the same runs as on the command line, and a process that stays as it was."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from running import ROOT, command, metrics

import runner
from runner.__main__ import main

SMALL = ["model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "steps=12", "figures=never"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*words, capsys):
    """Return the line with which the command line refuses words."""
    assert main([*words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("runner: error: ")
    return line.removeprefix("runner: error: ").removesuffix("\n")


def test_a_run_is_that_of_the_command_line(here):
    done = command(*SMALL, "seed=3", cwd=here)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "outputs").glob("*/")
    result = runner.train([*SMALL, "seed=3"])
    # The same name, and the number of a second run
    assert result.folder == folder.with_name(f"{folder.name}-2")
    assert metrics(result.folder) == metrics(folder)
    assert yaml.safe_load((folder / "config.yaml").read_text()) == result.config
    saved = json.loads((folder / "result.json").read_text())
    assert (result.status, result.steps, result.scores) == (saved["status"], saved["steps"], saved["scores"])
    assert result.score == saved["scores"]["val"]["best"]["accuracy"]


def test_the_history_is_what_the_run_logged(here):
    result = runner.train([*SMALL, "log_every=1", "validate_every=4steps"])
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert result.history["val/loss"].steps == [4, 8, 12]
    assert result.history["train/loss"] == (
        [row["step"] for row in rows if "train/loss" in row],
        [row["train/loss"] for row in rows if "train/loss" in row],
    )
    steps, values = result.history["val/accuracy"]
    assert values[-1] == result.scores["val"]["last"]["accuracy"]
    assert steps[-1] == 12


@pytest.mark.rendered
def test_figures_are_shown_by_a_notebook(here):
    drawn = runner.train([*SMALL[:-1], "name=drawn"])
    assert drawn.figures["curves"]._repr_png_() == (drawn.folder / "curves.png").read_bytes()
    later = runner.train([*SMALL, "name=later"])
    assert not (later.folder / "curves.png").exists()
    assert later.figures["curves"].png[:8] == b"\x89PNG\r\n\x1a\n"


WRONG = [
    ["model=mlpp"],
    ["optim.lr=-1"],
    ["optimm.lr=1"],
    ["epochs=1", "steps=2"],
    ["optim=sgd,adam"],
    ["nonsense"],
    ["plugins=[no_such_module_here]"],
    ["--config-dir", "nowhere"],
    ["resume=nowhere"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_word_is_the_line_of_the_command_line(words, here, capsys):
    line = refused(*words, capsys=capsys)
    with pytest.raises(runner.ConfigError) as caught:
        runner.train(words)
    assert str(caught.value) == line
    assert (capsys.readouterr().err, caught.value.folder) == ("", None)
    # Neither the frames inside runner nor another exception
    assert len(caught.traceback) <= 4
    # A plugin may be the cause
    assert caught.value.__cause__ is None or isinstance(caught.value, runner.PluginError)
    assert caught.value.__suppress_context__
    assert list(here.iterdir()) == []


def test_a_password_in_a_wrong_word_is_not_shown(here):
    with pytest.raises(runner.ConfigError) as caught:
        runner.compose(["nonsense=postgresql://me:secret@host/db"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("plugins", ["my_lab", [Path("my_lab.py")]], ids=["text", "path"])
@pytest.mark.parametrize("call", [runner.train, runner.sweep, runner.compose, runner.load], ids=lambda f: f.__name__)
def test_plugins_are_a_list_of_modules_or_names(here, call, plugins):
    with pytest.raises(runner.ConfigError, match=r"plugins: got .*my_lab.*; expected a list of modules or of their na"):
        call("outputs" if call is runner.load else [], plugins=plugins)
    assert list(here.iterdir()) == []


def test_words_are_a_list(here):
    for given in ("model=mlp", b"model=mlp", {"model": "mlp"}, [("model", "mlp")], [1], None, 1):
        with pytest.raises(runner.ConfigError, match="must be a list of strings"):
            runner.train(given)
    for flag in ("-m", "--help", "--version"):
        with pytest.raises(runner.ConfigError, match="takes no flags but --config-dir and --config-name"):
            runner.train([flag])
    with pytest.raises(runner.ConfigError, match="takes no flags"):
        runner.train(["--cfg", "job"])


def test_compose_returns_what_cfg_job_prints(here, capsys):
    words = ["model=vit", "augment=[crop,hflip]", "optim.lr=0.02", "note=a,b"]
    assert main([*words, "--cfg", "job", "--resolve"]) == 0
    assert runner.compose(words) == yaml.safe_load(capsys.readouterr().out)
    with pytest.raises(runner.ConfigError, match="add -m"):
        runner.compose(["seed=0,1"])
    assert list(here.iterdir()) == []


def test_a_diverged_run_raises_and_leaves_its_folder(here):
    with pytest.raises(runner.Diverged, match="diverged at step") as caught:
        runner.train([*SMALL, "optim.lr=1e30"])
    result = runner.result(caught.value.folder)
    assert (result.status, result.reason) == ("diverged", str(caught.value))
    assert str(result.score) == "nan"
    with pytest.raises(runner.CheckpointError, match="holds no run"):
        runner.result(here / "nothing")


def test_a_run_is_resumed_and_loaded(here):
    first = runner.train([*SMALL, "name=one"])
    again = runner.train(["resume=outputs/one"])
    assert (again.folder, again.scores) == (first.folder, first.scores)
    digits, _ = __import__("sklearn.datasets").datasets.load_digits(return_X_y=True)
    trained = again.load()
    images = torch.from_numpy(digits[:5].reshape(-1, 1, 8, 8) / 16).float()
    assert trained.predict(images).probabilities.shape == (5, 10)


def test_another_task_runs_and_train_refuses_it(here, capsys):
    runner.train([*SMALL, "name=one"])
    capsys.readouterr()
    runner.run(["task=evaluate", "run=outputs/one"])
    assert "accuracy" in capsys.readouterr().out
    with pytest.raises(runner.ConfigError, match=r"call runner\.run"):
        runner.train(["task=list"])
    with pytest.raises(runner.ConfigError, match="run: "):
        runner.run(["task=evaluate", "run=outputs/two"])


def process_state():
    """Return what a call must leave as it was: streams, folder, handlers of signals, environment."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return (sys.stdout, sys.stderr, Path.cwd(), handlers, environment, signal.pthread_sigmask(signal.SIG_BLOCK, []))


@pytest.fixture
def surroundings(here):
    """Odd global settings, as a notebook may have them, checked to be the same after the test."""
    before = process_state()
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_flash_sdp(False)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        yield
        assert torch.get_default_device().type == "meta"
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    try:
        assert torch.get_num_threads() == 3
        assert torch.get_default_dtype() == torch.float64
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.conv.fp32_precision == "none"
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.get_default_device().type == "cpu"
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1] == states[1]).all()
        assert random.getstate() == states[2]
        assert process_state() == before
    finally:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.enable_flash_sdp(True)


@pytest.mark.parametrize("place", ["context", "default"])
def test_torch_computes_as_in_a_new_process_during_a_call(place):
    from runner.api.torch_state import default_torch

    backends = torch.backends
    before = [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]
    backends.fp32_precision, backends.cudnn.allow_tf32 = "tf32", False
    torch.set_default_device("meta" if place == "default" else None)
    try:
        with torch.device("meta") if place == "context" else nullcontext():
            with default_torch():
                assert [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision] == before
                assert torch.zeros(1).device.type == "cpu"
            assert torch.zeros(1).device.type == "meta"
        assert backends.fp32_precision == "tf32" and backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        torch.set_default_device(None)
        backends.fp32_precision, backends.cudnn.allow_tf32 = "none", True


def test_a_run_computes_the_same_in_any_surroundings_and_leaves_them(surroundings):
    assert command(*SMALL, "name=plain", cwd=Path.cwd()).returncode == 0
    assert metrics(runner.train([*SMALL, "name=odd"]).folder) == metrics(Path("outputs/plain"))


def test_an_error_leaves_the_surroundings(surroundings):
    for words in ([*SMALL, "optim.lr=1e30"], ["model=mlpp"], [*SMALL, "data=imagefolder", "data.root=nowhere"]):
        with pytest.raises(runner.RunnerError):
            runner.train(words)


def test_it_works_in_a_thread(here):
    found = []
    thread = threading.Thread(target=lambda: found.append(runner.train(SMALL)))
    thread.start()
    thread.join()
    assert found[0].status == "done"


def test_a_second_call_at_the_same_time_is_refused(here, monkeypatch):
    began, ended, errors = threading.Event(), threading.Event(), []

    def held(*_, **__):
        began.set()
        assert ended.wait(30)

    monkeypatch.setattr("runner.api.calls.checked_command", held)

    def first():
        with pytest.raises(AttributeError):
            runner.train(SMALL)

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(30)
    for call in (runner.train, runner.sweep, runner.compose):
        with pytest.raises(runner.ConfigError, match=r"because this process runs runner\.train; wait") as e:
            call(SMALL)
        errors.append(str(e.value))
    ended.set()
    thread.join()
    assert all("\n" not in each for each in errors)


NESTED = """
import runner
from torch import nn

@runner.register("activation")
def nested():
    runner.train(["model=mlp", "steps=1"])
    return nn.ReLU()
"""


def test_a_call_inside_a_run_is_refused(here, monkeypatch):
    (here / "nesting_parts.py").write_text(NESTED)
    (here / "conf" / "activation").mkdir(parents=True)
    (here / "conf" / "activation" / "nested.yaml").write_text("name: nested\n")
    monkeypatch.syspath_prepend(here)
    words = [*SMALL, "--config-dir", "conf", "activation=nested"]
    with pytest.raises(runner.ConfigError, match=r"^runner.train: cannot start, because this process runs"):
        runner.train(words, plugins=["nesting_parts"])
    (trial,) = runner.sweep([*words, "seed=1,"[:-1]], plugins=[sys.modules["nesting_parts"]])
    assert trial.status == "failed"
    assert trial.reason.startswith("runner.train: cannot start, because this process runs task=train")
    assert "\n" not in trial.reason


def test_a_sweep_returns_every_trial_with_its_status(here, capsys):
    words = [*SMALL, "optim.lr=0.1,1e30", "seed=0,1", "hydra.launcher.workers=2"]
    results = runner.sweep(words)
    assert [(each.config["optim"]["lr"], each.config["seed"], each.status) for each in results] == [
        (0.1, 0, "done"),
        (0.1, 1, "done"),
        (1e30, 0, "diverged"),
        (1e30, 1, "diverged"),
    ]
    alone = runner.train([*SMALL, "optim.lr=0.1", "seed=1", "name=alone"])
    assert metrics(results[1].folder) == metrics(alone.folder)
    capsys.readouterr()
    assert [each.folder for each in runner.sweep(words)] == [each.folder for each in results]
    assert capsys.readouterr().out.count("already done") == 4
    with pytest.raises(runner.ConfigError, match=r"resume: names a sweep; call runner\.sweep"):
        runner.train([f"resume={results[0].folder.parent}"])


def test_a_search_returns_the_best_first(here):
    pytest.importorskip("optuna")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.launcher.workers=1"]
    results = runner.sweep([*SMALL, *words, "optim.lr=tag(log,interval(1e-4,1e-1))"])
    scores = [each.score for each in results]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3


def test_a_user_file_is_read_again(here):
    (here / "conf" / "recipe").mkdir(parents=True)
    recipe = here / "conf" / "recipe" / "mine.yaml"
    for seed in (5, 6):
        recipe.write_text(f"# @package _global_\nseed: {seed}\n")
        assert runner.compose(["--config-dir", "conf", "recipe=mine"])["seed"] == seed


def test_another_use_of_hydra_stays(here):
    from hydra import compose, initialize_config_dir

    (here / "other").mkdir()
    (here / "other" / "config.yaml").write_text("mine: 1\n")
    with initialize_config_dir(str(here / "other"), version_base="1.3"):
        assert runner.compose(["model=mlp"])["model"]["name"] == "mlp"
        assert compose("config").mine == 1


SCRIPT = """
import runner
print("script")
results = runner.sweep(["model=mlp", "model.hidden=[8]", "probe=[]", "steps=4", "seed=0,1"])
print([str(each.status) for each in results])
"""


def test_a_script_without_a_main_guard_does_not_start_again_in_the_trials(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run_script(tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script") == 1
    assert "['done', 'done']" in done.stdout
    logs = [path.read_text() for path in tmp_path.rglob("trial.log")]
    assert len(logs) == 2
    assert not any("script" in log.splitlines() for log in logs)


def run_script(path, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, path, *words],
        cwd=path.parent, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


INTERRUPTED = """
import os, signal, sys
import runner
from runner.engine.learner import Learner
step = Learner.step_optimizer
found = []
def interrupting(learner, loss):
    step(learner, loss)
    if learner.step == 3 and not found:
        found.append(True)
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGINT)
Learner.step_optimizer = interrupting
words = ["model=mlp", "model.hidden=[8]", "probe=[]", "steps=9", "name=one"]
try:
    runner.train(words)
except KeyboardInterrupt as error:
    print(type(error).__name__, getattr(error, "folder", None))
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(runner.result("outputs/one").status, runner.train(["resume=outputs/one"]).status)
"""


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_saves_the_run_and_raises(tmp_path, signals):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    done = run_script(tmp_path / "script.py", str(signals))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "outputs/one" in line or "interrupted" in line]
    assert f"Interrupted {tmp_path / 'outputs' / 'one'}" in lines
    if signals == 1:
        assert "resumes after step" in done.stderr
    # A second one ends the run at once, and never the process
    assert "interrupted done" in done.stdout.splitlines()


TYPED = """
from pathlib import Path

import runner

result: runner.Result = runner.train(["model=mlp"], plugins=["my_parts"])
folder: Path = result.folder
score: float = max(each.score for each in runner.sweep(["seed=0,1"]))
steps: list[int] = result.history["val/loss"].steps
png: bytes = result.figures["curves"].png
model: runner.Trained = result.load()
name: str = runner.compose(["model=mlp"])["model"]["name"]
try:
    runner.run(["task=compare"])
except runner.Diverged as error:
    print(error.folder)
runner.train(3)
result.folder = Path()
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_users_file_is_type_checked(tmp_path):
    (tmp_path / "mine.py").write_text(TYPED)
    words = ["--strict", "--no-error-summary", "--cache-dir", os.devnull, "--follow-imports", "silent", "mine.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    errors = [line.partition(": error: ")[2] for line in done.stdout.splitlines() if ": error: " in line]
    assert [each.partition(" ")[0] for each in errors] == ["Argument", "Property"], done.stdout
    assert (ROOT / "runner" / "py.typed").is_file()
