"""One tag, one meaning: no tag of a run comes from two places of the code."""

import math
import sys
from collections import defaultdict
from dataclasses import replace

import pytest
from planted import planted
from running import events, job, metrics

import runner.components  # noqa: F401  (registers all)
from runner.engine import probing
from runner.engine.contracts import Numbers, Probe
from runner.engine.logs.board_tags import board_tag
from runner.engine.logs.derived import Derived
from runner.engine.logs.log import Log
from runner.errors import Diverged
from runner.registry import names
from runner.tasks import start
from runner.tasks import train as task

WORDS = (
    *("model=cnn", "steps=6", "validate_every=3steps", "checkpoint_every=3steps", "log_every=2", "data.batch_size=64"),
    *("figures=always", "test=end", "scheduler=plateau", "patience=9", "clip=1.0", "device=cpu"),
    "optim.rules=[{match:fc,lr:0.5,name:head}]",
)


@pytest.fixture
def producers(monkeypatch):
    """Record where each tag of a run comes from: a probe, a call of `Log.add`, or the derived numbers."""
    found = defaultdict(set)
    probed = set()
    add, finish, extend = Log.add, probing._finish, Derived.extend

    def finishing(watch, outcome):
        producer = f"probe {watch.gi_code.co_filename}:{watch.gi_code.co_firstlineno}"
        values = finish(watch, outcome)
        for tag, value in values.items():
            if not isinstance(value, Numbers):
                found[tag].add(producer)
        probed.update(values)
        return {tag: scalars(value, producer) for tag, value in values.items()}

    def scalars(value, producer):
        """Return `Numbers` that record the tags that they become."""
        if not isinstance(value, Numbers):
            return value

        def to_scalars(numbers):
            made = value.to_scalars(numbers)
            for tag in made:
                found[tag].add(producer)
            return made

        return replace(value, to_scalars=to_scalars)

    def adding(log, step, values):
        caller = sys._getframe(1)
        for tag in values.keys() - probed:
            found[tag].add(f"{caller.f_code.co_qualname}:{caller.f_lineno}")
        probed.clear()
        add(log, step, values)

    def extending(derived, values):
        before = set(values)
        extend(derived, values)
        for tag in values.keys() - before:
            found[tag].add("derived")

    monkeypatch.setattr(Log, "add", adding)
    monkeypatch.setattr(probing, "_finish", finishing)
    monkeypatch.setattr(Derived, "extend", extending)
    return found


def shared(producers):
    """Return the tags with more than one producer."""
    return {tag for tag, places in producers.items() if len(places) > 1}


def trained(folder, *words):
    assert start(replace(job(*WORDS, *words, f"hydra.run.dir={folder}"), is_trial=True)) == 0


def test_no_tag_of_a_run_with_every_probe_has_two_producers(producers, tmp_path):
    every = names("probe")
    trained(
        tmp_path / "run", "accumulate=2", f"probe=[{','.join(every)}]", *(f"probe.{name}.every=2" for name in every)
    )
    assert shared(producers) == set()
    logged = {tag for _, tag, _ in metrics(tmp_path / "run")}
    renamed = {board_tag(tag) for tag in producers}
    assert len(renamed) == len(producers)
    assert {f"{split}/{metric}" for split in ("val", "train_eval") for metric in ("accuracy", "loss", "nll")} <= logged
    assert {"train/loss", "train/loss_average", "train/lr/head"} <= logged <= producers.keys()
    seen = {tag for _, tag, _ in events(tmp_path / "run") if not tag.startswith("custom_scalars")}
    # These are written after the log is closed
    drawn = {tag for tag in seen if tag in ("curves", "doctor") or tag.startswith("classes/")}
    assert {board_tag(tag) for tag in logged} < seen - drawn <= renamed and "curves" in drawn
    assert len({place for places in producers.values() for place in places if place.startswith("probe ")}) == len(every)


def test_each_step_has_one_value_of_each_tag(tmp_path):
    trained(tmp_path / "run")
    rows = [row[:2] for row in events(tmp_path / "run")]
    assert len(rows) == len(set(rows))
    assert [step for step, tag in rows if tag == board_tag("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_scores_under_the_tags_of_the_steps_would_be_found(producers, tmp_path, monkeypatch):
    assemble = task.assemble

    def as_before(*given, **options):
        made = assemble(*given, **options)
        return replace(made, validation={"train_eval": made.validation["val"], "val": made.validation["val"]})

    def merged(values):
        return {tag.replace("train_eval/loss", "train/loss"): value for tag, value in values.items()}

    from runner.engine import train as loop

    validate = loop.validate
    monkeypatch.setattr(task, "assemble", as_before)
    monkeypatch.setattr(loop, "validate", lambda *given: merged(validate(*given)))
    with pytest.raises(Exception, match="'train/loss' is logged twice in step 3"):
        trained(tmp_path / "run")
    assert shared(producers) == {"train/loss"}


def logs(tag):
    def watch(watched):
        yield
        return {tag: watched.images.mean()}

    return Probe(1, watch)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        (("own", "own"), "probe: two of them log 'own'; a probe needs tags of its own"),
        (("train/loss",), "probe: two of them log 'train/loss'"),
        (("train/lr",), "probe: 'train/lr' is logged twice in step 2"),
    ],
)
def test_a_probe_that_takes_a_tag_of_another_is_refused(tags, says, tmp_path, monkeypatch):
    assemble = task.assemble

    def with_probes(*given, **options):
        made = assemble(*given, **options)
        return replace(made, recipe=replace(made.recipe, probes=[logs(tag) for tag in tags]))

    monkeypatch.setattr(task, "assemble", with_probes)
    with pytest.raises(Exception, match=says):
        trained(tmp_path / "run")


def test_a_run_that_diverges_in_its_first_step_keeps_start_and_end_of_its_session(tmp_path, monkeypatch):
    """Both are of step 0, and TensorBoard's HPARAMS page needs both."""
    assemble = task.assemble
    monkeypatch.setattr(
        task, "assemble", lambda *given, **options: planted(assemble(*given, **options), "loss", math.nan, 0)
    )
    with pytest.raises(Diverged, match="at step 1"):
        trained(tmp_path / "run")
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    written = path.read_bytes()
    assert written.count(b"_hparams_/session_start_info") == written.count(b"_hparams_/session_end_info") == 1
