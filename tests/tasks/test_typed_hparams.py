"""Each hyperparameter has one type, whatever its values, so that a real TensorBoard server can sort and filter it."""

import re
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
from comparing_runs import write_run
from running import command, job
from small_runs import ONE, config
from tensorboard_server import served

from runner import plain_yaml, registry
from runner.engine.fingerprint import Fingerprint, Part
from runner.engine.logs.log import open_logs
from runner.engine.logs.plugin_pages import flat_hparams, session_start
from runner.keys import hyperparameters, knob_marks
from runner.registry import find, knobs, names, register
from runner.roles import Role
from runner.settings import SETTINGS
from runner.tasks import start
from runner.tasks.hparams import row_name, typed_hparams
from runner.tasks.report import log_session_end, log_start

STATUSES = ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"]
# Values of the keys that allow values of several types; {key: (choices, values)}
MIXED = {
    "clip": ({}, [None, 1.0, 5.0, 10.0]),
    "steps": ({}, [None, 20, 100]),
    "patience": ({}, [None, 2, 10]),
    "folds": ({}, [None, 2, 5]),
    "fold": ({}, [None, 1, 2]),
    "data.batch_size": ({}, [64, 128]),
    "effective_batch_size": ({}, [None, 256]),
    "distillation.stages": ({"distillation": "logits"}, [None, [["stage1", "stage2"]]]),
    "scheduler.warmup_start": ({}, [None, 0.1, 0.5]),
    "init.gain": ({}, [None, 1.0, "auto"]),
    "loss.alpha": ({"loss": "focal"}, [None, 0.25, [1.0, 2.0]]),
    "transfer.trained": ({"transfer": "partial"}, [2, ["stem"]]),
    "augment.random_erasing.fill": ({"augment": ["random_erasing"]}, [None, 0.0, 127.5]),
    "augment.cutout.size": ({"augment": ["cutout"]}, [4, 0.5]),
    "augment.crop.padding": ({"augment": ["crop"]}, [4, 0.125]),
    "data.limit": ({"data": "imagefolder"}, [None, 10, 200]),
    "data.depth": ({"data": "imagefolder"}, ["auto", 8, [0, 4095]]),
    "data.crop": ({"data": "imagefolder"}, [None, "center"]),
    "data.classes": ({"data": "imagefolder"}, [None, ["a", "b"]]),
    "data.labels": ({"data": "imagefolder"}, [None, "folders"]),
    "data.columns": ({"data": "imagefolder"}, [None, ["file", "label"]]),
    "data.label_regex": ({"data": "imagefolder"}, [None, "(.*)_"]),
    "data.groups": ({"data": "imagefolder"}, [None, "folder"]),
    "data.splits": ({"data": "imagefolder"}, [None, "auto", {"train": "a", "val": "b"}]),
    "data.inputs": ({"data": "arrays"}, [None, "x"]),
    "data.label": ({"data": "table"}, [None, "y"]),
    "data.split": ({"data": "table"}, [None, "part"]),
    "init.head": ({"init": "normal"}, [None, 0.01, 10, "zeros"]),
    "loss.class_weights": ({}, [None, "balanced", [1.0, 2.0]]),
    "init_from": ({}, [None, "w.pt"]),
    "extended_from": ({}, [None, "0123abcd@20"]),
    "model.swap": ({"model": "torchvision"}, [None, ["norm"]]),
    "scheduler.warmup": ({}, ["0%", "5epochs", "100steps"]),
    "validate_every": ({}, ["10%", "5epochs", "100steps"]),
    "augment": ({}, [[], ["hflip"], ["hflip", "crop"]]),
}
NUMBERS = {
    "clip",
    "folds",
    "fold",
    "scheduler.warmup_start",
    "steps",
    "patience",
    "augment.random_erasing.fill",
    "data.limit",
    "data.batch_size",
    "effective_batch_size",
    "augment.cutout.size",
    "augment.crop.padding",
}


def changed(choices, key, value):
    """Return a config with a value, without a check."""
    if key == "augment":
        return config({**choices, "augment": value})
    made = config({"model": "mlp", "augment": [], **choices})
    *path, last = key.split(".")
    place = made
    for word in path:
        place = place[word]
    place[last] = value
    return made


def mixed_keys():
    """Yield the keys of knobs and settings that change an experiment and allow null or values of several types."""
    for key, annotation in SETTINGS.items():
        if key in hyperparameters(config({})) and "|" in str(annotation):
            yield key
    for group in (*ONE, "augment", "regularizer"):
        for name in names(group):
            marked = knob_marks(group, {"name": name}, {})
            for knob, annotation in knobs(find(group, name)).items():
                role = marked[knob].role if knob in marked else Role.EXPERIMENT
                if role is Role.EXPERIMENT and ("|" in str(annotation) or "Union" in str(annotation)):
                    yield f"{group}.{name}.{knob}" if group in ("augment", "regularizer") else f"{group}.{knob}"


def test_every_key_of_several_types_is_tried_here():
    assert set(mixed_keys()) <= MIXED.keys()


@pytest.mark.parametrize("key", MIXED)
def test_a_key_has_one_type_whatever_its_value(key):
    choices, values = MIXED[key]
    found = [typed_hparams(changed(choices, key, value)) for value in values]
    kind = float if key in NUMBERS else str
    for value, hparams in zip(values, found, strict=True):
        if isinstance(value, dict):
            assert all(type(hparams[f"{key}.{name}"]) is str for name in value)
        elif value is None:
            assert key not in hparams
        else:
            assert type(hparams[key]) is kind
    if key in NUMBERS:
        assert [hparams.get(key) for hparams in found] == values
    words = flat_hparams(hyperparameters(changed(choices, key, values[-1])))
    assert found[-1].keys() == {each for each in words if words[each] not in ("none", "auto") or each in found[-1]}


def test_all_other_keys_have_the_values_that_they_had():
    for choices in ({}, {"model": "mlp"}, {"optim": "adam"}, {"scheduler": "step"}, {"augment": ["hflip", "crop"]}):
        before, now = flat_hparams(hyperparameters(config(choices))), typed_hparams(config(choices))
        assert {key: value for key, value in before.items() if key not in MIXED} == {
            key: value for key, value in now.items() if key not in MIXED
        }


def test_knobs_of_one_name_have_one_type_over_all_options_of_a_group(monkeypatch):
    """`activation.level` is a number in one option, and text in the other."""

    monkeypatch.setattr(registry, "_parts", {**registry._parts, "activation": dict(registry._parts["activation"])})

    @register("activation", name="level_number")
    def level_number(*, level: float, flag: bool) -> Any: ...

    @register("activation", name="level_word")
    def level_word(*, level: Literal["low", "high"] | None, flag: bool | None) -> Any: ...

    given = [{"name": "level_number", "level": 0.5, "flag": True}, {"name": "level_word", "level": "low", "flag": None}]
    found = [typed_hparams({**config({}), "activation": values}) for values in given]
    assert [each["activation.level"] for each in found] == ["0.5", "low"]
    assert found[0]["activation.flag"] is True and "activation.flag" not in found[1]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A folder with a run for each value of each mixed key, as its own process would log it."""
    folder = tmp_path_factory.mktemp("runs")
    one = job("model=mlp")
    data = Fingerprint(parts={"train": Part(listing="0" * 16, content="0" * 16)})
    for key, (choices, values) in MIXED.items():
        for number, value in enumerate(values):
            (folder / f"{key}-{number}").mkdir()
            log = open_logs(folder / f"{key}-{number}", positions=None, step=0)
            made = replace(one, config=changed(choices, key, value), group_hash=f"{key}-{number}", is_trial=True)
            log_start(log, made, data)
            log.add(1, {"val/accuracy": 0.5 + 0.01 * number})
            log_session_end(log, made, 1, succeeded=True)
            log.close()
    return folder


@pytest.fixture(scope="module")
def ask(logged, tmp_path_factory):
    """Return a function that asks a TensorBoard server on loopback."""
    with listed(logged, tmp_path_factory.mktemp("server"), len(list(logged.iterdir()))) as ask:
        yield ask


@contextmanager
def listed(logdir, folder, count, fast="false"):
    """Serve so many runs, and wait until the page has all of them."""
    with served(logdir, folder, fast=fast) as ask:
        ask.wait(lambda: len(ask("data/runs")) == count)
        ask.wait(lambda: len(groups(ask)) == count)
        yield ask


def groups(ask, *columns):
    body = {"startIndex": 0, "sliceSize": 1000, "allowedStatuses": STATUSES, "colParams": list(columns)}
    return ask("data/plugin/hparams/session_groups", body).get("sessionGroups", [])


def infos(ask):
    return ask("data/plugin/hparams/experiment", {"hparamsLimit": 1000})["hparamInfos"]


TYPES = {"DATA_TYPE_FLOAT64": float, "DATA_TYPE_BOOL": bool, "DATA_TYPE_STRING": str}


def as_type(value, kind):
    return float(value) if kind is float and type(value) is int else value


def check_page(ask):
    """Sort and filter by each column, and check that its values have the type of its axis in parallel coordinates."""
    every = groups(ask)
    for info in infos(ask):
        name, kind = info["name"], TYPES[info["type"]]
        values = [as_type(row["hparams"][name], kind) for row in every if name in row["hparams"]]
        assert {type(value) for value in values} == {kind}, name
        for order, backwards in (("ORDER_ASC", False), ("ORDER_DESC", True)):
            rows = groups(ask, {"hparam": name, "order": order})
            found = [as_type(row["hparams"][name], kind) for row in rows if name in row["hparams"]]
            assert len(rows) == len(every) and found == sorted(values, reverse=backwards), name
        if kind is float:
            low, high = info["domainInterval"]["minValue"], info["domainInterval"]["maxValue"]
            assert (low, high) == (min(values), max(values))
            highest = {"filterInterval": {"minValue": high, "maxValue": high}, "excludeMissingValues": True}
            assert len(groups(ask, {"hparam": name, **highest})) == values.count(high) > 0, name
        else:
            assert set(info["domainDiscrete"]) == set(values), name
            for value in info["domainDiscrete"]:
                only = {"hparam": name, "filterDiscrete": [value], "excludeMissingValues": True}
                assert len(groups(ask, only)) == values.count(value) > 0, name


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_server_sorts_and_filters_every_column(ask):
    assert {"clip", "init.head", "steps", "data.depth"} <= {info["name"] for info in infos(ask)}
    check_page(ask)


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_filter_on_numbers_keeps_or_drops_the_runs_without_one(ask):
    interval = {"hparam": "clip", "filterInterval": {"minValue": 2, "maxValue": 6}}
    with_missing = groups(ask, interval)
    without = groups(ask, {**interval, "excludeMissingValues": True})
    assert [row["hparams"]["clip"] for row in without] == [5]
    assert len(with_missing) == len(groups(ask)) - 2


def write_old_run(folder, number, **changes):
    """Write a run as an older version did: null is the text "none"."""
    write_run(folder, 0.5 + number / 100, **changes)
    log = open_logs(folder, positions=None, step=0)
    entry = flat_hparams(hyperparameters(plain_yaml.load(folder / "config.yaml")))
    log.add(0, {"hparams/start": session_start(entry, f"old-{number}")})
    log.add(1, {"val/accuracy": 0.5})
    log.close()


@pytest.mark.slow
@pytest.mark.ci_slice
def test_entries_of_older_versions_fit_beside_the_new_ones_after_task_notebook(tmp_path):
    """The runs of the older version alone cannot be sorted by `clip`; their event files stay as they are."""
    outputs = tmp_path / "outputs"
    for number, clip in enumerate((None, 1.0, 5.0)):
        write_old_run(outputs / f"old{number}", number, clip=clip, init__head=(None, 0.1, "zeros")[number])
    before = {path: path.read_bytes() for path in outputs.glob("*/events.out*")}
    with listed(outputs, tmp_path, 3) as ask, pytest.raises(urllib.error.HTTPError):
        groups(ask, {"hparam": "clip", "order": "ORDER_ASC"})
    assert start(job("task=notebook", f"outputs={outputs}")) == 0
    assert {path: path.read_bytes() for path in before} == before
    with listed(outputs, tmp_path, 3, fast="true") as ask:
        check_page(ask)
        assert {row["name"]: row["hparams"].get("clip") for row in groups(ask)} == {
            "old-0": None,
            "old-1": 1,
            "old-2": 5,
        }
    names_before = sorted(outputs.glob("*/events.out*"))
    assert start(job("task=notebook", f"outputs={outputs}")) == 0
    assert sorted(outputs.glob("*/events.out*")) == names_before and len(names_before) == 6


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_server_shows_a_real_sweep_over_null_numbers_and_words(tmp_path):
    words = ("-m", "model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "epochs=1", "sweep=s")
    done = command(*words, "clip=null,1,5", "init.head=null,0.1,zeros", "scheduler.warmup=0%,3steps", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with listed(tmp_path / "outputs", tmp_path, 18) as ask:
        check_page(ask)
        differing = {info["name"] for info in infos(ask) if info["differs"]}
        assert differing == {"clip", "init.head", "scheduler.warmup"}


DATA = Fingerprint(parts={"train": Part(listing="0" * 16, content="0" * 16)})
OTHER = Fingerprint(parts={"train": Part(listing="0" * 16, content="1" * 16)})


def trial(*words, name):
    """Return a trial with a command line and the name of its folder."""
    made = job(*words)
    return replace(made, is_trial=True, overrides=words, folder_name=f"{name}-{made.hash8}")


def test_a_row_is_named_by_what_is_swept_and_shared_by_seeds_on_the_same_data():
    words = ("epochs=3", "optim=adam", "optim.lr=0.1")
    rows = [row_name(trial(*words, f"seed={seed}", name=f"optim=adam-lr=0.1-seed={seed}"), DATA) for seed in (0, 1)]
    assert rows[0] == rows[1] and re.fullmatch(r"optim=adam, lr=0\.1 \([0-9a-f]{8}\)", rows[0])
    longer = trial("epochs=4", *words[1:], "seed=0", name="optim=adam,optim.lr=0.1,seed=0")
    assert len({rows[0], row_name(longer, DATA), row_name(trial(*words, name="optim=adam,optim.lr=0.1"), OTHER)}) == 3
    assert row_name(longer, DATA).startswith("optim=adam, lr=0.1 (")


def test_a_row_has_whole_keys_where_their_last_words_are_equal_and_no_settings_of_the_machine():
    words = ("optim.name=sgd", "scheduler.name=cosine", "device=cpu", "data.workers=2")
    with_names = replace(trial(name="runs/3"), overrides=words)
    assert row_name(with_names, DATA).startswith("optim.name=sgd, scheduler.name=cosine (")
    assert row_name(trial("seed=3", name="seed=3"), DATA).startswith("default (")


def test_single_runs_are_not_on_the_page(tmp_path):
    one = job("model=mlp")
    with closing(open_logs(tmp_path, positions=None, step=0)) as log:
        log_start(log, one, DATA)
        log_session_end(log, one, 1, succeeded=True)
    (path,) = tmp_path.glob("events.out*")
    assert b"_hparams_" not in path.read_bytes() and b"custom_scalars" in path.read_bytes()
