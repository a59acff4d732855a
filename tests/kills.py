"""Runs that are killed and resumed: configs, points of death, and comparison with an uninterrupted run.

`python tests/kills.py [trials] [seed] [auto]` makes that many and prints a line for each that did not; with `auto`,
checkpoints come by the clock, and so often that most kills find one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch then has no threads that a fork would lose

import fault_points
from running import events, job, metrics, result
from small_runs import as_bits, write_color_images, write_teacher
from worker_server import stop_worker_server

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.engine.saving import cadence, checkpoint
from runner.errors import RunnerError
from runner.tasks import start
from runner.tasks.job import Job

STEPS, INTERVAL = 40, 7
COMMON = ("figures=never", "log_every=5", "validate_every=13steps", f"checkpoint_every={INTERVAL}steps", "probe=[]")
DIGITS = (f"steps={STEPS}", "model=mlp", "model.hidden=[16]")
IMAGES = ("data=imagefolder", "data.size=[12,12]", "data.batch_size=8", "steps=26", "model=cnn", "model.channels=[4]")
CROP = ("augment=[crop,hflip,cutout]", "augment.crop.padding=1", "augment.cutout.size=2")
BENCHES = {
    "dropout, mixup, EMA": (
        *(*DIGITS, *CROP, "mix=mixup", "regularizer=[dropout,l2]", "average=ema", "scheduler.warmup=10steps"),
        *("clip=1.0", "probe=[update_ratio]", "probe.update_ratio.every=10"),
    ),
    "BatchNorm, cutmix, Polyak": (
        *(f"steps={STEPS}", "model=cnn", "model.channels=[4,8]", "model.hidden=[8]", "norm=batch", "optim=adamw"),
        *(
            "mix=cutmix",
            "mix.until=50%",
            "average=polyak",
            "average.last=22steps",
            "update=sam",
            "clip=0.05",
            "clip_by=agc",
        ),
    ),
    "plateau": (
        *(*DIGITS, "scheduler=plateau", "scheduler.patience=0", "scheduler.cooldown=1", "scheduler.threshold=0.05"),
        *("scheduler.gamma=0.5", "optim=adam", "average=none", "monitor=val/loss", "validate_every=3steps"),
    ),
    "accumulation, SWA": (
        *(*DIGITS, "accumulate=4", "data.batch_size=16", "regularizer=[dropout]", "optim=lion", "average=swa"),
        *("average.start=30%", "average.every=5steps"),
    ),
    "bf16, schedule-free, MC dropout": (
        *(*DIGITS, "norm=layer", "precision=bf16", "optim=schedulefree", "scheduler=constant", "average=schedulefree"),
        *("regularizer=[dropout]", "predict=mc_dropout"),
    ),
    "cycles, snapshots": (
        *(*DIGITS, "average=snapshots", "scheduler=cosine_restarts", "scheduler.cycle=25%", "regularizer=[dropout]"),
        *("predict=mc_dropout", "predict.passes=2"),
    ),
    "SWAG": (
        *(*DIGITS, "norm=batch", "average=swag", "average.start=20%", "average.every=4steps", "average.rank=3"),
        *("predict=swag", "predict.samples=3", "scheduler=constant"),
    ),
    "distillation, SAM": (
        *(*DIGITS, *CROP, "distillation=logits", "update=sam", "mix=mixup", "accumulate=2", "preprocess=scale01"),
        *("data.batch_size=32", "distillation.features=3.0"),
    ),
    "staged transfer, cached features": (
        *(*DIGITS, "transfer=staged", "transfer.head_for=40%", "transfer.all_from=70%", "augment=[]", "norm=batch"),
        *("regularizer=[l2]", "average=ema", "optim=momentum"),
    ),
    "linear probe, fine-tuning with dropout": (
        *(*DIGITS, *CROP, "transfer=lp_ft", "transfer.probe=30%", "transfer.layer_decay=0.5", "optim=adamw"),
        *("regularizer=[dropout]", "regularizer.dropout.where=[fc]", "regularizer.dropout.ramp=60%", "mix=mixup"),
    ),
    "early stopping": (*DIGITS, "patience=3", "validate_every=4steps", "optim.lr=0.5", "optim=nesterov"),
    "cached images": (*IMAGES, *CROP, "average=ema"),
    "images, 0 workers": (*IMAGES, "data.placement=disk", "data.crop=resized", "data.workers=0", "average=ema"),
    "images, 2 workers": (*IMAGES, "data.placement=disk", "data.crop=resized", "data.workers=2", "average=ema"),
}
SHARES = {
    "step.forward": 25,
    "step.backward": 25,
    "step.optimizer": 25,
    "evaluate": 25,
    "log.write": 25,
    "log.flush": 20,
    "checkpoint.serialize": 15,
    "checkpoint.write": 40,
    "checkpoint.fsync": 15,
    "checkpoint.rename": 25,
    "status.write": 10,
    "any time": 50,
}  # of 300 kills


@dataclass(frozen=True)
class Reference:
    """A run without a kill: its folder, its job, its seconds, how often it reached each point, if the clock saves."""

    bench: str
    folder: Path
    job: Job
    seconds: float
    counts: dict[str, int]
    auto: bool = False


@dataclass(frozen=True)
class Trial:
    """A run, the point where it is killed, and optionally one where it is killed again after it resumes."""

    number: int
    reference: Reference
    kills: tuple[str, ...]

    def __str__(self) -> str:
        return f"trial {self.number}: {self.reference.bench}, killed at {' and '.join(self.kills)}"


class Counting(fault_points.Fault):
    """Counts every point and kills at none."""

    def due(self, point):
        counts[point] = counts.get(point, 0) + 1
        return False


counts: dict[str, int] = {}


def make_reference(bench: str, place: Path, *, images: str, auto: bool = False) -> Reference:
    """Run a bench without a kill; `auto` saves it by the clock."""
    folder = place / f"whole {bench}"
    more = (f"data.root={images}", f"data.cache={place / 'cache'}") if "data=imagefolder" in BENCHES[bench] else ()
    more += (f"distillation.teacher={_teacher_in(place)}",) if "distillation=logits" in BENCHES[bench] else ()
    starts = any(word.startswith("transfer=") for word in BENCHES[bench])
    more += (f"init_from={_teacher_in(place)}",) if starts else ()
    more += ("checkpoint_every=auto",) if auto else ()
    words = {word.partition("=")[0]: word for word in (*COMMON, *BENCHES[bench], *more)}  # the last one of a key
    made = job(*words.values(), f"hydra.run.dir={folder}")

    def work():
        fault_points.install(Counting("none", 0))
        code = run(made)
        (place / f"{bench}.json").write_text(json.dumps(counts))
        return code

    began = time.monotonic()
    code, printed = run_child(work, place / f"{bench}.txt")
    assert code == 0, printed
    seconds, found = time.monotonic() - began, json.loads((place / f"{bench}.json").read_text())
    found["log.write"] = min(found["log.write"], found["log.flush"] - 6)  # more of them on a slower machine
    return Reference(bench, folder, made, seconds, found, auto)


def _teacher_in(place: Path) -> Path:
    """Return the folder of a trained run, a teacher or the start of a transfer; it is trained if it is not there."""
    if not (folder := place / "teacher").exists():
        code, printed = run_child(lambda: write_teacher(folder) and 0, place / "teacher.txt")
        assert code == 0, printed
    return folder


def run(made: Job, kill: str = "") -> int:
    """Start a job, to be killed at a point, and return its exit code; with `auto` the clock saves it each 20 ms."""
    cadence._LONGEST = 0.02
    if kill:
        fault_points.install(fault_points.parse(kill))
    try:
        return start(made)
    except RunnerError as error:
        sys.stderr.write(f"runner: error: {error}\n")
        return error.exit_code


def start_child(work, output: Path) -> int:
    """Run a function in a forked child, with its output in a file; return the pid."""
    stop_worker_server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads; the child uses none
        child = os.fork()
    if child:
        return child
    code = 99
    try:
        output.unlink(missing_ok=True)  # the helpers of a killed process may still write to the old one
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        code = work() or 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def wait_for_child(child: int, output: Path) -> tuple[int, str]:
    """Wait for a child; return its exit code, minus the signal's number if one killed it, and its output."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, output.read_text() if output.exists() else ""  # killed before it could open the file


def run_child(work, output: Path) -> tuple[int, str]:
    """Run a function in a forked child; return its exit code and its output."""
    return wait_for_child(start_child(work, output), output)


def run_and_kill(reference: Reference, made: Job, kill: str, output: Path) -> bool:
    """Run a job and kill it at its point; return True if it died before its end."""
    point, _, when = kill.partition(":")
    if point != "any time":
        code, printed = run_child(lambda: run(made, kill), output)
    else:
        child = start_child(lambda: run(made), output)
        time.sleep(float(when) * reference.seconds)
        os.kill(child, signal.SIGKILL)
        code, printed = wait_for_child(child, output)
    assert code in (0, -signal.SIGKILL), printed
    return code != 0


def resume_job(reference: Reference, folder: Path, resume: Job) -> Job:
    """Return the job that resumes a folder: the same command if the run was killed before it wrote its config."""
    if not (folder / "config.yaml").exists():
        return replace(reference.job, folder=str(folder))
    return replace(resume, config={**resume.config, "resume": str(folder)}, overrides=(f"resume={folder}",))


def check_trial(trial: Trial, place: Path, resume: Job) -> str:
    """Run a trial; return what is wrong with its end, or nothing."""
    folder, output = place / f"{trial.number}", place / f"{trial.number}.txt"
    for number, kill in enumerate(trial.kills):
        died = run_and_kill(trial.reference, resume_job(trial.reference, folder, resume), kill, output)
        assert died or number or trial.reference.auto or kill.startswith("any time"), f"{kill} was not reached"
    has_config = (folder / "config.yaml").exists()
    steps = [int(path.stem) for path in (folder / "checkpoints").glob("*.json") if ".state." in path.read_text()]
    finished = has_config and result(folder)["status"] in ("done", "stopped")
    made = resume_job(trial.reference, folder, resume)
    code, printed = run_child(lambda: run(made), output)
    if code:
        return f"ends with {code}: {printed}"
    start = f"resumes after step {max(steps)} of" if steps else "no checkpoint: starts at step 0 of"
    if has_config and not finished and start not in printed:
        return f"does not say that it {start}: {printed}"
    return differences(trial.reference.folder, folder, auto=trial.reference.auto)


def differences(one: Path, other: Path, *, auto: bool = False) -> str:
    """Return what differs between two finished runs that should be equal, or nothing.

    With `auto` the clock decides which checkpoints there are, except the last one and the best weights.
    """
    files = {"last": last_checkpoint, "best": best_weights} if auto else {"files": file_names, "state": state}
    for name, read in {
        **files,
        "metrics.jsonl": metrics,
        "event files": events,
        "times": timed,
        "result": outcome,
        "description": saved_command,
    }.items():
        if (wanted := read(one)) != (found := read(other)):
            if isinstance(wanted, set) and isinstance(found, set):
                wanted, found = sorted(wanted - found), sorted(found - wanted)
            return f"{name} differ: {wanted!s:.300} / {found!s:.300}"
    return ""


AGAIN = re.compile(r"(\d{8})\.\d+\.")  # in the names of a step's files where another checkpoint of it was there


def file_names(folder: Path) -> set[str]:
    """Return the names of the files in a run folder, without event files and the pid in their names."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if ".tfevents." not in path.name}
    return {AGAIN.sub(r"\1.", name) for name in found}


def state(folder: Path) -> object:
    """Return all of every checkpoint, as something that compares bit for bit; where the logs end depends on times."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("*.json")):
        snapshot = checkpoint.load(folder, step=int(path.stem))
        if snapshot is None:
            found[path.name] = as_bytes(checkpoint.read_weights(checkpoint.weights_file(folder, int(path.stem))))
            continue
        snapshot.state["log"].pop("owed")  # what the disk had not taken: by now it is in the logs
        found[path.name] = as_bytes({"weights": snapshot.weights, "state": snapshot.state})
    return found


def last_checkpoint(folder: Path) -> object:
    """Return all of the last checkpoint, as something that compares bit for bit."""
    assert not list(folder.rglob(".tmp-*"))
    return dict([list(state(folder).items())[-1]])


def best_weights(folder: Path) -> object:
    """Return the selected weights, as something that compares bit for bit."""
    return as_bytes(checkpoint.read_weights(folder / result(folder)["weights"]))


def as_bytes(value: object) -> object:
    """Return nested state with its tensors as bytes."""
    if isinstance(value, dict):
        return {repr(key): as_bytes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_bytes(item) for item in value]
    return as_bits(value)


def timed(folder: Path) -> list[tuple[int, str]]:
    """Return where `metrics.jsonl` has a time, whatever it is."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], tag) for row in rows for tag in row if tag.startswith("time/")]


def outcome(folder: Path) -> dict[str, object]:
    """Return result.json without the seconds."""
    found = result(folder)
    snapshots = [AGAIN.sub(r"\1.", name) for name in found.get("snapshots", [])]
    return {**found, "seconds": 0, "weights": AGAIN.sub(r"\1.", found["weights"]), "snapshots": snapshots}


def saved_command(folder: Path) -> list[bytes]:
    """Return the saved command line."""
    return [(folder / name).read_bytes() for name in ("config.yaml", "overrides.yaml")]


def draw_trials(wholes: list[Reference], count: int, seed: int, *, again: float = 0.2) -> Iterator[Trial]:
    """Draw trials: points in their shares, benches in turn, some killed a second time."""
    draw = random.Random(seed)
    points = [point for point, share in SHARES.items() for _ in range(share)]
    draw.shuffle(points)
    for number in range(count):
        one = wholes[number % len(wholes)]
        kills = [with_time(points[number % len(points)], one.counts, draw)]
        if draw.random() < again:
            few = {point: min(times, 6) for point, times in one.counts.items()}
            kills.append(with_time(draw.choice(points), few, draw))
        yield Trial(number, one, tuple(kills))


def with_time(point: str, counts: dict[str, int], draw: random.Random) -> str:
    """Return a point with the time at which to die there."""
    if point == "any time":
        return f"{point}:{draw.uniform(0.02, 0.98):.3f}"
    return f"{point}:{draw.randint(1, counts[point])}:{draw.random():.3f}"


def check_trials(trials: Iterable[Trial], place: Path, *, at_once: int = 2) -> dict[str, str]:
    """Run trials, some in parallel, each in its own process; return what was wrong, by trial."""
    resume = job("resume=somewhere")
    running_trials: dict[int, Trial] = {}
    found: dict[str, str] = {}

    def collect() -> None:
        # Not `os.wait`: this process may have other children
        while not (ended := [found for each in running_trials if (found := os.waitpid(each, os.WNOHANG))[0]]):
            time.sleep(0.005)
        for pid, status in ended:
            judge(running_trials.pop(pid), status)

    def judge(trial: Trial, status: int) -> None:
        path = place / f"problem {trial.number}"
        text = path.read_text() if path.exists() else ""
        if text or status:
            found[str(trial)] = text or "the harness failed"

    for trial in trials:
        while len(running_trials) >= at_once:
            collect()
        running_trials[
            start_child(lambda trial=trial: report(trial, place, resume), place / f"problem {trial.number}")
        ] = trial
    while running_trials:
        collect()
    return found


def report(trial: Trial, place: Path, resume: Job) -> int:
    """Make a trial and print what was wrong."""
    wrong = check_trial(trial, place, resume)
    if wrong:
        print(wrong)
        sys.stdout.flush()
    return 1 if wrong else 0


def write_images(place: Path) -> str:
    """Draw the images that the benches of image folders train on."""
    (place / "images").mkdir()
    return write_color_images(place / "images")


def main(count: int, seed: int, *, auto: bool = False) -> int:
    """Make `count` trials, and return 1 if one of them was wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        images = write_images(place)
        wholes = [make_reference(bench, place, images=images, auto=auto) for bench in BENCHES]
        ready = time.monotonic() - began
        found = check_trials(draw_trials(wholes, count, seed), place)
        for trial, wrong in found.items():
            print(f"{trial}\n  {wrong}")
    seconds = (
        f"{ready:.0f} s for the {len(wholes)} whole runs and {time.monotonic() - began - ready:.0f} s for the killed"
    )
    print(f"{count - len(found)}/{count} as if never killed (seed {seed}); {seconds}")
    return 1 if found else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        numbers = [int(word) for word in sys.argv[1:] if word != "auto"]
        sys.exit(main(*numbers, *(300, 0)[len(numbers) :], auto="auto" in sys.argv))
