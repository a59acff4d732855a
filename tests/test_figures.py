"""No figure costs a result: each one fails here in a real task, and all are drawn the same in whatever surroundings."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import kills
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg  # noqa: F401  (once, not in each child)
import pytest
import scipy.stats  # noqa: F401
from comparing_runs import write_sweep
from running import MLP, ROOT, command, result

import runner.assemble  # noqa: F401  (once, not in each child)
from runner.__main__ import main
from runner.comparing import report
from runner.comparing.importance import Effect, Importance
from runner.engine.figures.picture import Picture

SOURCES = sorted((ROOT / "runner").rglob("*.py"))
SMALL = (*MLP, "steps=4", "probe=[]", "name=run", "test=never")
PARETO = "task.objectives=[val/accuracy,seconds]"
TASKS = {
    "train": (*SMALL, "figures=always"),
    "preview": (*SMALL, "task=preview", "augment=[hflip]"),
    "init_report": (*SMALL, "task=init_report"),
    "grid_vs_random": (
        *(
            "recipe=grid_vs_random",
            "epochs=0.5",
            "model.hidden=[8]",
            "device=cpu",
            "name=run",
            "hydra.launcher.workers=1",
        ),
        *("task.side=2", "task.draws=1", "task.matters=optim.lr", "task.between=[0.1,0.2]"),
    ),
    "compare": ("task=compare", "runs=runs", "task.out=outputs/run", "task.until=val/accuracy>=0.5", PARETO),
    "doctor": ("task=doctor", "run=outputs/seen", "task.out=outputs/run"),
    "protocol": (
        *(*SMALL, "task=protocol", "task.overfit={max_steps: 200, controls: false}", "hydra.launcher.workers=1"),
        "task.find_lr={iters: 20, seeds: 1, lrs: [0.01, 0.03, 0.1]}",
        "task.steps=[1,2,3,4,5]",
        "task.coarse={epochs: 1, lr_factors: [0.3, 1.0], weight_decays: [0.0]}",
        "task.refine={epochs: 1, points: 3, seeds: 1, confirm_seeds: 2}",
    ),
    "evaluate": ("task=evaluate", "run=outputs/run", "predict=mc_dropout"),
    "probe_stages": ("task=probe_stages", "run=outputs/run"),
}
# Figures that a task draws beside its own, with functions of others
MORE = {
    "evaluate": ["confusion_test.png", "calibration_test.png"],
    "protocol": ["04_coarse/axes.svg", "05_refine/axes.svg"],
}
# The function of each figure: the task that draws it, and the file
FIGURES = {
    "runner.engine.figures.curves.loss_figure": ("train", "curves.png"),
    "runner.engine.figures.classes.confusion_figure": ("train", "confusion_val.png"),
    "runner.engine.figures.classes.calibration_figure": ("train", "calibration_val.png"),
    "runner.engine.figures.preview.lr_figure": ("preview", "preview/lr.png"),
    "runner.engine.figures.preview.image_figure": ("preview", "preview/images.png"),
    "runner.engine.figures.preview.counts_figure": ("preview", "preview/classes.png"),
    "runner.doctor.figures.diagnosis_figure": ("doctor", "curves-1.svg"),
    "runner.engine.figures.search.search_figure": ("grid_vs_random", "grid_vs_random.png"),
    "runner.tasks.init_figures.histogram_figure": ("init_report", "report.png"),
    "runner.tasks.init_figures.depth_figure": ("init_report", "depth.png"),
    "runner.comparing.figures.draw_curves": ("compare", "curves.svg"),
    "runner.comparing.figures.draw_seeds": ("compare", "seeds.svg"),
    "runner.comparing.study_tables.draw_profiles": ("compare", "profiles.svg"),
    "runner.comparing.front_tables.draw_front": ("compare", "pareto.svg"),
    "runner.comparing.responses.draw_response": ("compare", "response.svg"),
    "runner.comparing.responses.draw_parallel": ("compare", "parallel.svg"),
    "runner.comparing.search_figures.draw_isolation": ("compare", "isolation.svg"),
    "runner.comparing.search_figures.draw_infeasible": ("compare", "infeasible.svg"),
    "runner.comparing.search_figures.draw_budgets": ("compare", "budgets.svg"),
    "runner.comparing.importance.draw_importance": ("compare", "importance.svg"),
    "runner.ensembles.figures.ensemble_figure": ("evaluate", "mc_dropout_test.png"),
    "runner.protocol.figures._initial_figure": ("protocol", "check_init.png"),
    "runner.protocol.figures._fit_figure": ("protocol", "overfit.png"),
    "runner.protocol.figures._rates_figure": ("protocol", "find_lr.png"),
    "runner.protocol.figures._coarse_figure": ("protocol", "coarse.png"),
    "runner.protocol.figures._refine_figure": ("protocol", "refine.png"),
    "runner.tasks.stage_report.stages_figure": ("probe_stages", "stages.png"),
}
# Reports on runs, which are no runs themselves, with their pages
PAGES = {"compare": "comparison", "doctor": "doctor"}
NUMBERS = {
    "compare": "comparison.csv",
    "doctor": "doctor.json",
    "init_report": "report.json",
    "grid_vs_random": "report.json",
}


def functions(text):
    """Return (name, node) of each function in the files of the source that contain a text."""
    for path in SOURCES:
        content = path.read_text()
        if text in content:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(content)):
                if isinstance(node, ast.FunctionDef):
                    yield f"{module}.{node.name}", node


def is_figure(function):
    return any(ast.unparse(each).startswith("figure(") for each in function.decorator_list)


def calls(function, name):
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) == name for node in ast.walk(function))


def test_every_figure_of_the_source_fails_here():
    """A figure begins with `new_figure`, and the function that calls it is under `@figure`."""
    assert {name for name, node in functions("@figure(") if is_figure(node)} == FIGURES.keys()
    assert {name for name, node in functions("new_figure(") if calls(node, "new_figure")} == FIGURES.keys()


def test_figures_are_drawn_in_one_place_only():
    only_there = ("savefig", "matplotlib.figure", "matplotlib.backends", "rc_context", "rcParams")
    for path in SOURCES:
        text = path.read_text()
        assert "pyplot" not in text and "matplotlib.use(" not in text, path
        if path != ROOT / "runner/engine/figures/picture.py":
            assert not [word for word in only_there if word in text], path


class Unspeakable(Exception):
    """An exception that cannot be turned into text."""

    def __str__(self):
        raise RuntimeError("no text")


def run_task(folder, task, before=lambda: None):
    """Run a task in a child in a folder of its own, with something done before; return its exit code and output."""
    folder.mkdir()
    if task == "compare":
        for decay in (0.0, 0.1):
            scores = {0.01: [0.7, 0.72, 0.71], 0.1: [0.80, 0.82, 0.81], 0.5: [0.90, 0.91, 0.92], 5.0: [0.3, None, None]}
            write_sweep(folder / "runs" / str(decay), scores, optim__weight_decay=decay)

    def work():
        os.chdir(folder)
        report.importance = lambda *_: Importance(method="as told", effects=(Effect("optim.lr", 0.5, 0.4, 0.6),))
        if task in ("evaluate", "probe_stages"):
            main([*SMALL, "figures=never", "regularizer=[dropout]"])
        elif task == "doctor":
            main([word for word in SMALL if word != "name=run"] + ["name=seen", "figures=never"])
        before()
        code = main(list(TASKS[task]))
        sys.stdout.flush()
        return code

    return kills.run_child(work, folder / "output")


def fail_to_draw(figure, error):
    """Return a function that makes one figure fail while it is drawn, as late as possible."""

    def patch():
        draw = Picture.draw

        def drawn(picture):
            content = draw(picture)
            if picture.figure == figure:
                raise error
            return content

        Picture.draw = drawn

    return patch


SLOW = [pytest.mark.slow, pytest.mark.ci_slice]


def marked(names, *slow):
    return [pytest.param(name, marks=SLOW) if name.startswith(slow) else name for name in names]


@pytest.mark.rendered
@pytest.mark.parametrize("figure", marked(FIGURES, "runner.engine.figures.search.search_figure", "runner.protocol."))
def test_a_figure_that_fails_is_one_line_and_costs_nothing_else(tmp_path, figure):
    task, name = FIGURES[figure]
    code, output = run_task(
        tmp_path / "run", task, fail_to_draw(figure, RuntimeError("broken on purpose\nsecond line"))
    )
    assert code == 0, output
    lines = [line for line in output.splitlines() if "not drawn" in line or "Traceback" in line]
    name_in_line = name.removesuffix(".svg")
    assert lines == [f"runner: warning: figure {name_in_line}: not drawn (RuntimeError: broken on purpose)"]
    folder = tmp_path / "run/outputs/run"
    for other, (drawn_by, path) in FIGURES.items():
        assert (folder / path).exists() == (other != figure and drawn_by == task)
    if task in PAGES:
        assert "</html>" in (folder / f"{PAGES[task]}.html").read_text()
        assert f"({name})" not in (folder / f"{PAGES[task]}.md").read_text()
    else:
        assert (result(folder)["status"], result(folder)["exit"]) == ("done", 0)
    assert (folder / NUMBERS.get(task, "config.yaml")).stat().st_size > 100


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        SystemExit(3),
        TimeoutError("too slow"),
        RecursionError("deep"),
        OSError(28, "No space"),
        Unspeakable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_figure_raises_the_run_is_done(tmp_path, error):
    code, output = run_task(tmp_path / "run", "train", fail_to_draw("runner.engine.figures.curves.loss_figure", error))
    assert code == 0 and output.count("figure curves.png: not drawn (") == 1, output
    assert "Traceback" not in output and "saved in" in output
    assert result(tmp_path / "run/outputs/run")["scores"]["val"]["best"]["accuracy"] > 0


@pytest.mark.parametrize("task", marked(TASKS, "grid_vs_random", "protocol"))
def test_no_task_needs_matplotlib(tmp_path, task):
    def hide():
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        sys.modules["matplotlib"] = None

    code, output = run_task(tmp_path / "run", task, hide)
    assert code == 0, output
    names = [path.removesuffix(".svg") for drawn_by, path in FIGURES.values() if drawn_by == task]
    names += MORE.get(task, [])
    assert output.count("not drawn (ModuleNotFoundError: ") == len(names)
    assert all(f"figure {name}: not drawn" in output for name in names)
    assert (tmp_path / "run/outputs/run" / NUMBERS.get(task, "config.yaml")).exists()


@pytest.mark.parametrize("task", marked(TASKS, "grid_vs_random", "protocol"))
def test_the_result_is_written_before_a_figure_is_begun(tmp_path, task):
    """A process that dies in the middle of a figure, as by the system when memory runs out, has its result."""

    def die():
        Picture.draw = lambda picture: os.kill(os.getpid(), 9)

    code, output = run_task(tmp_path / "run", task, die)
    assert code == -9, output
    folder = tmp_path / "run/outputs/run"
    if task in PAGES:
        assert (folder / NUMBERS[task]).exists() and (task != "compare" or (folder / "runs.csv").exists())
    else:
        assert (result(folder)["status"], result(folder)["exit"]) == ("done", 0)
        assert (folder / NUMBERS.get(task, "config.yaml")).exists()


DRAW = """
import json, sys, warnings
from pathlib import Path
from runner.engine.figures.curves import loss_figure
from runner.engine.figures.search import Trial, search_figure
rows = [{"step": s, "train/loss": 1 / s, "val/loss": 2 / s, "val/accuracy": 0.5} for s in range(1, 50)]
path = Path(sys.argv[1])
path.write_text("".join(json.dumps(row) + chr(10) for row in rows))
trials = [Trial(0.1, 0.2, 0.3), Trial(0.2, 0.1, 0.5)]
for picture in (loss_figure(path), search_figure(trials, trials, ("optim.lr", "$_^ \\u732b"), "val/accuracy")):
    sys.stdout.buffer.write(picture.draw())
assert "torch" not in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def drawn(folder, *, options=(), **changes):
    """Return the bytes of two figures, drawn by an interpreter in these surroundings; it may print nothing else."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MPL")}
    environment |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": os.environ["MPLCONFIGDIR"], **changes}
    words = [sys.executable, *options, "-c", DRAW, str(folder / "metrics.jsonl")]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("plain"))


RC = {
    "settings": b"""
text.usetex: True
backend: module://nowhere
interactive: True
font.family: Nowhere
figure.dpi: 30
savefig.bbox: tight
axes.facecolor: red
axes.prop_cycle: cycler('color', ['r'])
axes.formatter.use_locale: True
lines.linewidth: wide
no.such.key: 1
no colon
""",
    "no text": b"\xff\xfe\x00\x80",
}


@pytest.mark.parametrize("rc", RC)
def test_figures_take_no_settings_of_the_user(tmp_path, plain, rc):
    for place in ("here", "config", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "matplotlibrc").write_bytes(RC[rc])
    (tmp_path / "other" / "matplotlibrc").unlink()
    assert drawn(tmp_path / "here") == plain
    assert drawn(tmp_path / "other", MATPLOTLIBRC=str(tmp_path / "config" / "matplotlibrc")) == plain


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"])
def test_figures_ignore_the_backend_of_the_environment(tmp_path, plain, backend):
    assert drawn(tmp_path, MPLBACKEND=backend, options=("-W", "error")) == plain


def test_a_settings_file_that_blocks_or_cannot_be_read_is_not_opened(tmp_path, plain):
    os.mkfifo(tmp_path / "matplotlibrc")
    assert drawn(tmp_path) == plain


def test_figures_need_no_folder_for_caches(tmp_path, plain):
    (tmp_path / "file").write_text("")
    (tmp_path / "home").mkdir(mode=0o500)
    assert drawn(tmp_path, MPLCONFIGDIR=str(tmp_path / "file"), TMPDIR=str(tmp_path)) == plain


def test_the_surroundings_are_as_before_after_the_first_figure(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    text = DRAW + (
        "import os, logging\n"
        "assert Path.cwd() == path.parent and os.environ['MPLBACKEND'] == 'nonsense'\n"
        "assert os.environ['MATPLOTLIBRC'] == 'x' and logging.getLogger('matplotlib').level == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense", "MATPLOTLIBRC": "x"}
    words = [sys.executable, "-c", text, str(tmp_path / "metrics.jsonl")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def test_a_run_from_a_notebook_has_its_scores_and_its_curves(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    done = command(*TASKS["train"], cwd=tmp_path, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    assert (tmp_path / "outputs/run/curves.png").read_bytes().startswith(b"\x89PNG")
    assert result(tmp_path / "outputs/run")["status"] == "done"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_trial_whose_time_ends_while_it_draws_is_done(tmp_path):
    """A sweep ends a trial that takes too long; this one has its result already."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom runner.engine.figures.picture import Picture\n"
        "Picture.draw = lambda picture: time.sleep(600)\n"
    )
    words = ("-m", *SMALL[:-2], "figures=always", "seed=0", "sweep=s", "hydra.launcher.timeout=20", "plugins=[slow]")
    done = command(*words, cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert done.returncode == 0, done.stderr
    [folder] = [path.parent for path in (tmp_path / "outputs/sweeps/s").glob("*/result.json")]
    assert result(folder)["status"] == "done" and not Path(folder / "curves.png").exists()
