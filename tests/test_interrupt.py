"""A signal stops a run after the current step with a checkpoint; the resumed run equals an uninterrupted one.

The same trials as for kills, with a signal in the place of the kill; and real processes, at any moment.
"""

import ast
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import fault_points
import interrupting
import kills
import pytest
from interrupting import HINT, INT, TERM, Child, differences, group_is_alive, last_logged_step
from running import ROOT, result

from runner.__main__ import main
from runner.door.task_context import start
from runner.engine import interruption
from runner.engine.interruption import Interrupted, deferred, handled, raising
from runner.engine.saving import checkpoint

SLOW = [pytest.mark.slow, pytest.mark.ci_slice]
BOTH = [TERM, pytest.param(INT, marks=SLOW)]  # where a process takes seconds to start
TRAINING = [point for point in fault_points.POINTS if point != "status.write"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("interrupts")


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    place = tmp_path_factory.mktemp("wholes")  # not where `wholes_of_one` has made one of them
    images = kills.write_images(place)
    return [kills.make_reference(bench, place, images=images) for bench in kills.BENCHES]


def run_with_signal(made, point, number, output):
    """Run a job in a forked child that gets a signal at a point; return its exit code and its output."""

    def work():
        fault_points.die = lambda: os.kill(os.getpid(), number)
        try:
            with raising():
                return kills.run(made, point)
        except Interrupted as error:
            return error.exit_code

    return kills.run_child(work, output)


def check_interrupted_run(whole, folder, point, number, output, resume):
    """Interrupt a run at a point, resume it, and return what is wrong, or nothing."""
    made = kills.resume_job(whole, folder, resume)
    code, printed = run_with_signal(made, point, number, output)
    if code != 128 + number:
        return f"{point}: ended with {code}: {printed}"
    found = result(folder)
    saved = checkpoint.load(folder)
    if (found["status"], found["exit"], found["reason"]) != ("interrupted", code, signal.Signals(number).name):
        return f"{point}: left as {found}"
    # Before the first step there is nothing to save
    if (saved.step if saved else 0) != found["steps"]:
        return f"{point}: stopped at step {found['steps']}, saved {saved and saved.step}"
    if printed.splitlines()[-1] != f"{HINT}{folder}" and "'" not in printed.splitlines()[-1]:
        return f"{point}: says {printed}"
    if list(folder.rglob(".tmp-*")):
        return f"{point}: left temporary files"
    code, printed = kills.run_child(lambda: kills.run(kills.resume_job(whole, folder, resume)), output)
    if code or (saved and f"resumes after step {saved.step} of" not in printed):
        return f"{point}: goes on with {code}: {printed}"
    return differences(whole.folder, folder)


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("point", TRAINING)
def test_a_run_interrupted_at_each_point_stops_saved_and_goes_on(wholes_of_one, place, point, number):
    whole = wholes_of_one
    count = max(1, whole.counts[point] // 2)
    folder = place / f"{point} {number}"
    resume = kills.job("resume=somewhere")
    assert check_interrupted_run(whole, folder, f"{point}:{count}:0", number, place / "printed", resume) == ""


@pytest.fixture(scope="module")
def wholes_of_one(place):
    return kills.make_reference("dropout, mixup, EMA", place, images="")


@pytest.mark.slow
@pytest.mark.ci_slice
def test_interrupted_runs_of_every_kind_end_as_if_they_never_were(wholes, place):
    draw, resume = random.Random(1), kills.job("resume=somewhere")
    wrong = []
    for index in range(2 * len(wholes)):
        whole = wholes[index % len(wholes)]
        point = draw.choice(TRAINING)
        count = draw.randint(1, whole.counts[point])
        wrong.append(
            check_interrupted_run(
                whole, place / f"{index}", f"{point}:{count}:0", (TERM, INT)[index % 2], place / "s", resume
            )
        )
    assert not list(filter(None, wrong))


def test_a_run_interrupted_twice_still_ends_as_if_it_never_was(wholes_of_one, place):
    whole, resume, folder = wholes_of_one, kills.job("resume=somewhere"), place / "twice"
    for point in ("evaluate:2:0", "evaluate:1:0", "step.forward:5:0"):  # in a validation, and again as it is repeated
        assert run_with_signal(kills.resume_job(whole, folder, resume), point, TERM, place / "printed")[0] == 143
    assert check_interrupted_run(whole, folder, "evaluate:3:0", INT, place / "printed", resume) == ""


def test_the_last_validation_can_be_interrupted_too(wholes_of_one, place):
    whole, resume, folder = wholes_of_one, kills.job("resume=somewhere"), place / "last"
    count = whole.counts["evaluate"] - 1  # the last one is of the test split
    assert check_interrupted_run(whole, folder, f"evaluate:{count}:0", TERM, place / "printed", resume) == ""


def test_a_run_interrupted_while_it_reads_the_test_split_counts_both_reads(wholes_of_one, place):
    whole, resume, folder = wholes_of_one, kills.job("resume=somewhere"), place / "test"
    count = whole.counts["evaluate"]
    assert check_interrupted_run(whole, folder, f"evaluate:{count}:0", TERM, place / "printed", resume) == ""
    assert (result(whole.folder)["test_reads"], result(folder)["test_reads"]) == (1, 2)


# Real processes


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return interrupting.whole(tmp_path_factory.mktemp("real"))


def test_a_real_run_stops_and_goes_on(real, tmp_path):
    took = interrupting.interrupted(real, tmp_path, TERM, 0.4)
    assert took.computing < 2


@pytest.mark.slow
@pytest.mark.parametrize("index", [pytest.param(i, marks=[pytest.mark.ci_slice] * (i % 4 == 0)) for i in range(20)])
def test_a_real_run_interrupted_at_any_moment_goes_on(real, tmp_path, index):
    assert interrupting.trial(real, tmp_path, index).computing < 2


IMAGES = ("data=imagefolder", "data.size=[12,12]", "data.batch_size=8", "data.placement=disk", "data.workers=2")
IMAGES = (*IMAGES, "model=cnn", "model.channels=[4]", "epochs=500", "validate_every=20steps", "log_every=5")


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("number", BOTH)
def test_processes_that_load_images_end_with_the_run(tmp_path, number):
    (tmp_path / "images").mkdir()
    words = (*IMAGES, f"data.root={kills.write_color_images(tmp_path / 'images')}", "figures=never", "name=run")
    with Child(tmp_path, *words) as child:
        child.wait_for(lambda: last_logged_step(tmp_path / "outputs" / "run") >= 30)
        child.signal(number, group=True)
        code, printed, took = child.end()
    assert code == 128 + number, printed
    assert took.computing < 4
    assert printed[-1] == f"{HINT}outputs/run"
    assert checkpoint.load(tmp_path / "outputs" / "run").step == result(tmp_path / "outputs" / "run")["steps"] >= 30


def plugin(cwd, text):
    (cwd / "slow.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])}


@pytest.mark.parametrize("number", BOTH)
def test_a_download_is_left_at_once_and_leaves_nothing(tmp_path, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz"
        changes = plugin(tmp_path, f"from torchvision.datasets import CIFAR10\n\nCIFAR10.url = {url!r}\n")
        words = ("data=cifar10", "data.root=data", "model=mlp", "plugins=[slow]")
        with Child(tmp_path, *words, **changes, no_proxy="127.0.0.1", PYTHONWARNINGS="") as child:
            call, _ = silent.accept()
            child.signal(number)
            code, printed, took = child.end()
            call.close()
    assert code == 128 + number
    assert not any("Traceback" in line or "runner" in line for line in printed), (
        printed
    )  # triton's talk of leaks may be there
    assert took.computing < 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["data", "slow.py"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_second_signal_ends_a_run_that_hangs_and_loses_nothing_saved(tmp_path):
    text = """
import time
from pathlib import Path
from runner.engine.learner import Learner
step_optimizer = Learner.step_optimizer

def slow(learner, loss):
    if learner.step == 9:
        Path("hangs").touch()
        while True:
            time.sleep(0.01)
    step_optimizer(learner, loss)

Learner.step_optimizer = slow
"""
    words = ("model=mlp", "steps=20", "checkpoint_every=4steps", "figures=never", "name=run")
    with Child(tmp_path, *words, "plugins=[slow]", **plugin(tmp_path, text)) as child:
        child.wait_for((tmp_path / "hangs").exists)
        child.signal(TERM)
        time.sleep(0.3)
        assert child.process.poll() is None, "the first one lets the step end"
        child.signal(INT)
        code, printed, took = child.end()
    assert code == 128 + INT, printed
    assert took.computing < 1
    folder = tmp_path / "outputs" / "run"
    assert (result(folder)["status"], checkpoint.load(folder).step) == ("running", 8)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("plugins:\n- slow\n", "plugins: []\n"))
    assert start(kills.job(f"resume={folder}")) == 0


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_signal_ends_a_sweep_and_finished_trials_stay(tmp_path):
    words = ("-m", "hydra/launcher=basic", "model=mlp", "epochs=0.2,2000,1", "sweep=s", "log_every=5")
    with Child(tmp_path, *words) as child:
        trials = tmp_path / "outputs" / "sweeps" / "s"
        child.wait_for(lambda: any(last_logged_step(path.parent) >= 20 for path in trials.glob("*/metrics.jsonl")))
        child.signal(TERM)
        code, printed, _ = child.end()
    assert code == 143, printed
    assert not any("Traceback" in line for line in printed)
    assert sorted(result(path.parent)["status"] for path in trials.glob("*/result.json")) == ["done", "interrupted"]


# What it is made of


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("task", ["evaluate", "init_report"])
def test_other_tasks_end_at_once_without_a_traceback(task, number, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert start(kills.job("model=mlp", "model.hidden=[4]", "steps=2", "figures=never", "name=run")) == 0
    monkeypatch.setattr("runner.assemble.assemble", None)
    for name in ("runner.tasks.evaluate.restore_predictor", "runner.tasks.init_report.assemble"):
        monkeypatch.setattr(name, lambda *args, **more: os.kill(os.getpid(), number), raising=False)
    capfd.readouterr()
    words = ["task=evaluate", "run=outputs/run"] if task == "evaluate" else ["task=init_report", "model=mlp"]
    assert main(words) == 128 + number
    assert capfd.readouterr().err == ""


def handlers():
    return [signal.getsignal(number) for number in (INT, TERM)]


def test_handlers_are_there_for_the_body_only_and_the_first_signal_takes_them_away():
    before = handlers()
    with deferred() as stop:
        assert handlers() != before
        assert stop.signal == 0
    assert handlers() == before
    with pytest.raises(Interrupted, match="SIGTERM") as caught, deferred() as stop:
        os.kill(os.getpid(), TERM)
        assert stop.signal == TERM
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]
    assert caught.value.exit_code == 143
    assert handlers() == before
    with pytest.raises(Interrupted, match="SIGINT"), raising():
        os.kill(os.getpid(), INT)
        pytest.fail("a signal is raised where it comes")
    assert handlers() == before


def test_a_signal_that_a_library_swallows_still_ends_the_run():
    with pytest.raises(Interrupted, match="SIGTERM"), raising():
        try:
            os.kill(os.getpid(), TERM)
        except BaseException as error:
            assert isinstance(error, Interrupted)
        with deferred() as stop:
            assert stop.signal == TERM
    with deferred() as stop:
        assert stop.signal == 0


@pytest.mark.parametrize("then", ["", "raise ImportError('cannot load module more than once per process')"])
def test_a_signal_that_an_import_swallows_ends_the_run_before_anything_is_made(tmp_path, monkeypatch, then):
    lines = (
        "import os, signal",
        "try:",
        "    os.kill(os.getpid(), signal.SIGTERM)",
        "except BaseException:",
        "    pass",
        then,
    )
    (tmp_path / "swallowing_part.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "printed"
    child = kills.start_child(lambda: main(["plugins=[swallowing_part]", "model=linear", "steps=2"]), output)
    assert kills.wait_for_child(child, output)[0] == 143
    assert {path.name for path in tmp_path.iterdir()} <= {"printed", "swallowing_part.py", "__pycache__"}


def test_another_error_is_not_replaced_by_the_signal():
    with pytest.raises(ZeroDivisionError), deferred():
        os.kill(os.getpid(), TERM)
        raise ZeroDivisionError


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        with deferred() as stop:
            os.kill(os.getpid(), INT)
            assert stop.signal == 0
    finally:
        signal.signal(INT, before)


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with handled(lambda number, frame: None):
            seen.append(handlers())

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_only_sets_a_flag_or_raises():
    tree = ast.parse(Path(interruption.__file__).read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "handle"]
    assert [[ast.unparse(line) for line in body] for body in bodies] == [
        ["_restore_defaults()", "_raised.signal = number", "raise Interrupted(number)"],
        ["_restore_defaults()", "stop.signal = number"],
    ]


def test_the_harness_sees_a_process_that_is_left_over(tmp_path):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        time.sleep(30)
        sys.exit(0)
    try:
        time.sleep(0.1)
        assert group_is_alive(child, patience=0.2)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not group_is_alive(child)
