"""Why a run ended is one line of limited length without control characters, whatever was raised, everywhere."""

import json
import os
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from odd_errors import CONTROLS, ODD, SHOWN
from running import MLP, result, run_in_child

import runner.assemble  # noqa: F401  (once, not in each child)
from runner import __main__ as entry
from runner.engine.saving.folder import RESULT, Result, read_result, write_result
from runner.errors import ConfigError, one_line
from runner.status import Status, ending, print_error
from runner.streams import open_screen
from runner.sweeps.outcome import describe_exit

HERE = str(Path(__file__).parent)
PLUGIN = """
import odd_errors
from runner.registry import register

@register("mix")
def odd(*, which: str):
    def mix(images, labels, key):
        # Components are tried on four examples before step 1
        if which == "nothing" or len(images) == 4:
            return images, labels
        raise odd_errors.ODD[which][0]()

    return mix
"""
SMALL = (*MLP, "steps=4", "probe=[]", "figures=never", "plugins=[odd]", "--config-dir=conf", "mix=odd")
MOST = 2000


def controls(text):
    """Return the characters of a text that a terminal would not show, but for the ends of lines."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each != "\n"}


def run(folder, *arguments):
    """Return the exit code of a command in a forked child, and what it printed."""
    (folder / "odd.py").write_text(PLUGIN)
    (folder / "conf" / "mix").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "mix" / "odd.yaml").write_text("name: odd\nwhich: nothing\n")

    def work():
        os.chdir(folder)
        sys.path[:0] = ["", HERE]
        with open("said", "w") as said:  # noqa: PTH123
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.stdout, sys.stderr = open_screen(1), open_screen(2)
        sys.argv = ["runner", *arguments]
        code = entry.command()
        sys.stdout.flush()
        return code

    code = run_in_child(work)
    return code, (folder / "said").read_text()


@pytest.mark.parametrize("which", ODD)
def test_any_exception_has_a_reason(which, capfd):
    make, begins = ODD[which]
    found = print_error(make())
    assert found.status in ("failed", "interrupted")
    assert found.reason.startswith(begins.replace("OwnInterrupt: ", ""))
    assert len(found.reason) <= MOST
    assert not controls(found.reason) | set(found.reason) & {"\n"}
    said = capfd.readouterr().err
    assert not controls(said)
    assert len(said) < 50_000


def test_the_start_and_the_end_of_a_long_reason_are_kept():
    found = ending(ConfigError(f"start {'x' * 10**6} end")).reason
    assert (found[:6], found[-4:], len(found)) == ("start ", " end", MOST)
    assert " ... " in found
    assert one_line("x" * MOST) == "x" * MOST
    assert len(one_line("\x1b" * 10**6)) == MOST


def test_an_exit_code_is_one_that_a_process_can_have():
    class Odd(ConfigError):
        exit_code = 99999

    class Odder(KeyboardInterrupt):
        @property
        def exit_code(self):
            raise ValueError

    assert ending(Odd("x")).exit_code == 2
    assert ending(Odder()).exit_code == 130


@pytest.mark.parametrize(
    "which", ["str raises", "controls", "long", "own interrupt", "exit with an object", "no class"]
)
def test_a_run_ends_with_its_reason_whatever_a_plugin_raises(tmp_path, which):
    code, said = run(tmp_path, *SMALL, f"mix.which={which}", "name=run")
    assert code == 2
    found = result(tmp_path / "outputs" / "run")
    assert (found["status"], found["exit"]) == ("failed", 2)
    assert found["reason"].startswith("plugin odd.py:")
    assert ODD[which][1] in found["reason"]
    assert len(found["reason"]) <= MOST
    assert not controls(found["reason"])
    assert not controls(said)
    assert f"runner: error: {one_line(found['reason'], MOST)}" in said.splitlines()
    # The run can be resumed
    assert run(tmp_path, "resume=outputs/run", "plugins=[odd]", "--config-dir=conf")[0] == 2


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_trials_of_a_sweep_show_their_reasons_everywhere(tmp_path):
    names = ["str raises", "controls", "long", "nothing"]
    sweep = ("-m", *SMALL, "hydra/launcher=basic", "sweep=odd", f"mix.which={','.join(map(repr, names))}")
    code, said = run(tmp_path, *sweep)
    assert code == 1
    assert not controls(said)
    trials = {json.loads(path.read_text())["reason"] for path in tmp_path.glob("outputs/sweeps/odd/*/result.json")}
    for which in names[:-1]:
        assert any(ODD[which][1] in (reason or "") for reason in trials)
        assert any(ODD[which][1] in line for line in said.splitlines() if line.startswith("failed: "))
    # Again: what is done is kept, what failed runs again
    code, said = run(tmp_path, *sweep)
    assert (code, said.count("already done")) == (1, 1)
    code, said = run(tmp_path, "task=compare", "runs=outputs/sweeps/odd", "name=page")
    assert code == 0
    assert not controls(said)
    for path in (*tmp_path.glob("outputs/compare-odd/*.*"), tmp_path / "outputs" / "notebook.md"):
        assert not controls(path.read_text()), path
    assert len((tmp_path / "outputs" / "notebook.md").read_text()) < 10_000


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_search_goes_on_after_odd_exceptions(tmp_path):
    words = (
        "hydra/launcher=basic",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.max_failure_rate=1",
    )
    search = (
        "-m",
        *SMALL,
        *words,
        "sweep=odd",
        "mix.which=choice(controls,long,nothing)",
        "hydra/sweeper/sampler=grid",
    )
    for _ in range(2):
        code, said = run(tmp_path, *search)
        assert code == 1, said
        assert not controls(said)
        assert ODD["controls"][1] in said
    table = (tmp_path / "outputs" / "sweeps" / "odd" / "ranking.csv").read_text()
    assert ODD["controls"][1] in table
    assert not controls(table)


def test_a_process_that_any_signal_killed_has_a_reason():
    assert [describe_exit(-number) for number in (10, 40, 64)] == [
        "killed (SIGUSR1)",
        "killed (signal 40)",
        "killed (SIGRTMAX)",
    ]


def test_a_result_of_an_older_version_is_read_with_its_reason_made_short(tmp_path):
    write_result(tmp_path, Result(status=Status.FAILED, exit=70, reason="x"))
    path = tmp_path / RESULT
    path.write_text(path.read_text().replace('"x"', json.dumps(f"{CONTROLS}{'y' * 2_000_000}")))
    found = read_result(tmp_path)
    assert found.reason.startswith(SHOWN)
    assert len(found.reason) == MOST


@pytest.mark.ci_slice
@pytest.mark.slow
def test_names_and_notes_of_users_do_not_reach_the_terminal_raw(tmp_path):
    note = CONTROLS.replace("\0", "")
    code, said = run(tmp_path, *SMALL, "name=run", f"note='{note}'", "outputs=out\x1b[2J")
    assert code == 0, said
    assert not controls(said)
    assert r"out\x1b[2J" in said
    assert not controls((tmp_path / "out\x1b[2J" / "notebook.md").read_text())
    code, said = run(tmp_path, "task=compare", "runs=out*")
    assert code == 0, said
    assert not controls(said)
    code, said = run(tmp_path, "--cfg", "job", f"note='{note}'")
    assert code == 0, said
    assert not controls(said)
    assert yaml.safe_load(said)["note"] == note
