"""Random command lines by seed: valid ones, ones with typos, and malformed or hostile ones."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from typos import typos

import runner.components  # noqa: F401  (registers them)
from runner.door.options import RECIPE, Conf, option_values
from runner.errors import ConfigError
from runner.registry import find
from runner.registry import knobs as types
from runner.relations import check_relations
from runner.schema import check
from runner.settings import SETTINGS
from runner.tasks import load_tasks

load_tasks()
TEXTS = ("name", "sweep", "note", "outputs", "resume", "run", "data.root", "data.cache", "init_from")
# A word by default, and a number is right, too
NUMBERS_TOO = ("init.head", "init.gain")
SHOW = ("--cfg", "job", "--resolve")


@dataclass(frozen=True)
class Case:
    """A command line with what must come of it: refused, accepted with these values, or either."""

    kind: str
    words: tuple[str, ...]
    refused: bool | None = None
    given: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # of the folder of --config-dir


Source = Callable[[Conf, random.Random], Case]


def cases(conf: Conf, seed: int, count: int) -> Iterator[Case]:
    """Yield cases of every kind in turn."""
    rng = random.Random(seed)
    for index in range(count):
        yield SOURCES[index % len(SOURCES)](conf, rng)


# --- what is true


def place_of(conf: Conf, group: str, name: str) -> str:
    """Return where the knobs of an option stand."""
    return f"{group}.{name}" if conf.several(group) else group


def knobs_of(conf: Conf, group: str, name: str) -> dict[str, Any]:
    """Return the knobs of an option with the values of its YAML."""
    values = option_values(conf, group, name)
    values = values[name] if conf.several(group) else values
    return {key: value for key, value in values.items() if key != "name"}


def drawn_option(conf: Conf, rng: random.Random) -> tuple[str, str]:
    """Return a group and one of its options."""
    group = rng.choice([group for group in conf.defaults if group != RECIPE])
    return group, rng.choice(sorted(conf.files[group]))


def option_word(conf: Conf, group: str, name: str) -> str:
    """Return the word that chooses an option."""
    return f"{group}=[{name}]" if conf.several(group) else f"{group}={name}"


def as_typed(key: str, value: Any) -> str:
    """Return a value as typed after `key=`."""
    if isinstance(value, str):
        plain = key in TEXTS or (value.isascii() and re.fullmatch(r"[\w/%.]+", value))
        return value if plain and not value.endswith("\\") else "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(as_typed("", item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{as_typed('', item)}" for name, item in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def other_value(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.randint(1, 1000)
    if isinstance(value, float):
        return rng.choice([value * 2 + 0.125, 1e-7, 3.5, 1.0])
    if isinstance(value, str) and value and value[0].isdigit():
        return rng.choice(["3steps", "1.5epochs", "12%", "640examples"])
    if isinstance(value, str) and value.startswith("val/"):
        return rng.choice(["val/loss", "val/nll", "val/f1_macro", "val/top5"])
    if isinstance(value, str):
        return rng.choice(["word", "some words", "it's", "a/b", "ünï", "x" * 300])
    return [other_value(item, rng) for item in value] if isinstance(value, list) else value


def other_valid_value(place: str, value: Any, kind: Any, rng: random.Random) -> Any:
    """Return another valid value of a knob, or the same if ten draws find none."""
    for _ in range(10):
        drawn = other_value(value, rng)
        with contextlib.suppress(ConfigError):
            check(place, drawn, kind)
            return drawn
    return value


FIELDS: dict[str, list[Any]] = {
    "epochs": [1, 0.5, 7.25],
    "seed": [0, 1, 2**32 - 1],
    "device": ["cpu", "cuda:7", "mps"],
    "precision": ["fp32", "bf16", "fp16", "pure_bf16"],
    "accumulate": [1, 9],
    "clip": [None, 0.5, 3],
    "monitor": ["val/loss", "train_eval/accuracy"],
    "patience": [None, 4],
    "validate_every": ["200steps", "5%", ".5epochs"],
    "checkpoint_every": ["2epochs", "10000examples"],
    "log_every": [1, 999],
    "test": ["auto", "end", "never"],
    "figures": ["always", "never"],
    "outputs": ["elsewhere", "a b/c", "ünï=1,2", "~/runs", "/tmp/x"],
    "name": ["mine", "a=b,c+d", "x" * 120, None],
    "note": ["", "does it, or not?", "a=b", "[x", 'it\'s "so"', "${seed} apples", "🎉 \u202e", "tab\there", "<b>&amp;"],
    "plugins": [["my_lab"], ["a.b", "c"], []],
}


@cache
def weights_file() -> Path:
    """Return a file of weights, which a transfer starts from."""
    path = Path(mkdtemp()) / "weights.pt"
    torch.save({"head.weight": torch.ones(10, 4)}, path)
    return path


def valid_line(conf: Conf, rng: random.Random) -> Case:
    """Return a valid line, which is only printed."""
    given: dict[str, Any] = {}
    words = []
    for group in rng.sample([group for group in conf.defaults if group != RECIPE], rng.randint(0, 3)):
        name = rng.choice(sorted(conf.files[group]))
        words.append(option_word(conf, group, name))
        knobs = knobs_of(conf, group, name)
        given[group if conf.several(group) else f"{group}.name"] = None if conf.several(group) else name
        place, kinds = place_of(conf, group, name), types(find(group, name))
        chosen_keys = rng.sample(sorted(knobs), rng.randint(0, min(3, len(knobs))))
        drawn = {key: other_valid_value(f"{place}.{key}", knobs[key], kinds[key], rng) for key in chosen_keys}
        try:
            check_relations(place, knobs | drawn, {key: kinds[key] for key in knobs})
        except ConfigError:  # each fits, but not beside the others
            drawn = {key: knobs[key] for key in drawn}
        given |= {f"{place}.{key}": value for key, value in drawn.items()}
    given |= {key: rng.choice(FIELDS[key]) for key in rng.sample(sorted(FIELDS), rng.randint(0, 4))}
    if given.get("transfer.name", "none") != "none":
        given["init_from"] = str(weights_file())
    chosen = {word.partition("=")[0] for word in words}
    keys = [key for key in given if key not in chosen and not key.endswith(".name")]
    words += [f"{rng.choice(['', '', '+', '++'])}{key}={as_typed(key, given[key])}" for key in keys]
    shown = {key: value for key, value in given.items() if key in keys or key.endswith(".name")}
    shown = {key: value.replace("${seed}", str(shown.get("seed", 0))) if value == "${seed} apples" else value
             for key, value in shown.items()}  # fmt: skip
    rng.shuffle(words)
    return Case("true", tuple(words), refused=False, given=shown)


# --- slips


def line_with_typos(conf: Conf, rng: random.Random) -> Case:
    """Return a line with one or two typos in a key or an option, among valid words."""
    group, name = drawn_option(conf, rng)
    knobs = sorted(knobs_of(conf, group, name))
    which = rng.randrange(4)
    if which == 0 or not knobs:
        word = f"{with_typos(name, rng)}"
        return Case("typo of an option", (option_word(conf, group, word),), refused=None)
    if which == 1:
        return Case("typo of a field", (f"{with_typos(rng.choice([*SETTINGS]), rng)}=1",), refused=None)
    if which == 2:
        return Case("typo of a group", (f"{with_typos(group, rng)}={name}",), refused=None)
    key = rng.choice(knobs)
    words = (option_word(conf, group, name), f"{place_of(conf, group, name)}.{with_typos(key, rng)}=1")
    return Case("typo of a knob", words, refused=None)


def with_typos(word: str, rng: random.Random) -> str:
    """Return a word with one typo, or with two."""
    for _ in range(rng.randint(1, 2)):
        word = rng.choice(list(typos(word, rng, 1)) or [word + "x"])
    return word


def line_with_unknown_knob(conf: Conf, rng: random.Random) -> Case:
    """Return a line with a knob of another option, or with an unknown key."""
    group, name = drawn_option(conf, rng)
    made_up = rng.choice(["nesterov_typo", "foo", "Lr", "kernel-size", "a.b.c", "0", "name.x", "x" * 3000])
    return Case("foreign key", (option_word(conf, group, name), f"{group}.{made_up}=1"), refused=True)


# --- wrong values

WRONG: dict[type, list[str]] = {
    bool: ["1", "0", "no", "on", "yes", "'true'", "0.0", "[true]", "{a: true}", "tru", ""],
    int: ["1.5", "true", "'1'", "1e3", "0x10", "012", "nan", "inf", "[1]", "{a: 1}", "one", "", "1 2", "1,2",
    "9" * 40],
    float: ["abc", "true", "nan", "inf", "-inf", "1e999", "'0.1'", "[0.1]", "{a: 1}", "0,1", "1.2.3", "", "1/2",
    "9" * 400],
    list: ["5", "abc", "true", "{a: 1}", "1,2", "", "'[1]'"],
    str: ["5", "1.5", "true", "[a]", "{a: b}", "nan"],
}  # fmt: skip


def line_with_wrong_type(conf: Conf, rng: random.Random) -> Case:
    """Return a line with a value of the wrong type."""
    group, name = drawn_option(conf, rng)
    knobs = {key: value for key, value in knobs_of(conf, group, name).items() if type(value) in WRONG}
    if not knobs:
        return line_with_unknown_knob(conf, rng)
    key = rng.choice(sorted(knobs))
    place = f"{place_of(conf, group, name)}.{key}"
    word = rng.choice(WRONG[type(knobs[key])])
    refused = None if place in (*TEXTS, *NUMBERS_TOO) else True
    return Case("wrong type", (option_word(conf, group, name), f"{place}={word}"), refused=refused)


OUT = {
    "epochs": ["0", "-1", "nan", "inf", "1e999", "null", "true", "[]", "abc", "", "1_", "--1", "9" * 4000,
    "9" * 5000],
    "steps": ["0", "-5", "1.5", "true", "1e3", "9" * 30, "abc", "inf"],
    "seed": ["-1", "4294967296", "1.0", "null", "abc", "'1'", "true", "9" * 20],
    "device": ["gpu", "cuda:", "cuda:x", "cpu:0", "CPU", "1", "null", "tpu", "cuda:-1", "cpu;ls", "cpu\n"],
    "precision": ["fp8", "32", "float32", "null", "true", "BF16", "16"],
    "accumulate": ["0", "-1", "1.5", "null", "true"],
    "clip": ["0", "-1", "nan", "inf", "abc", "true", "[]"],
    "monitor": ["loss", "val_accuracy", "val/acc", "null", "test/accuracy", "VAL/LOSS"],
    "patience": ["0", "-1", "1.5", "true", "never"],
    "validate_every": ["1", "epoch", "1 epoch", "-1steps", "1e3steps", "5%%", "null", "1hour", "", "infsteps",
    "١steps"],
    "checkpoint_every": ["0", "x", "1.2.3epochs", "[1epoch]", "true"],
    "log_every": ["0", "-1", "x", "null", "1.0"],
    "test": ["yes", "true", "always", "null", "1"],
    "figures": ["on", "true", "png", "null"],
    "plugins": ["os", "null", "{a: b}", "[1]", "[[os]]", "[null]", "''"],
    "name": ["../x", "/etc/x", "..", ".", ".hidden", "a/b", "a b", "x" * 121, "", "a\0b", "é", "🎉", "a\\b", "a:b",
    "~", "$x"],
    "sweep": ["../../x", "a/b", "", ".", "a b"],
    "note": ["a\0b", "\udcff", "x" * 20_000, "[a]x'" * 3000],
    "outputs": ["a\0b", "\udcfe/x"],
    "augment": ["null", "{}", "true", "1", "crop", "[crop,crop]", "[[crop]]", "[null]", "[crop,[]]", "[os.system]",
    "crop,hflip"],
    "optim": ["null", "{}", "[]", "[sgd,adam]", "os.system", "../sgd", "sgd.yaml", "/optim/sgd", "sgd,adam",
    "__import__", "None"],
    "recipe": ["{}", "[]", "{a: 1}", "../x", "none", "true", "[digits]", "digits,digits"],
}  # fmt: skip


def line_out_of_range(conf: Conf, rng: random.Random) -> Case:
    """Return a line with a value out of range."""
    key = rng.choice(sorted(OUT))
    text = rng.choice(OUT[key])
    taken = (key, text) in {("augment", "crop"), ("name", "a\\b")}
    return Case("wrong value", (f"{key}={text}",), refused=None if taken else True)


# --- form

NOISE = ["[", "]", "{", "}", "(", ")", ",", ":", "=", "'", '"', "\\", "$", "${", "@", "~", "+", "*", "#", "%", "&",
    "!", "|",
         "\n", "\t", "\r", "\0", " ", "\u2028", "\u202e", "🎉", "é", "\udcff", "..", "../", "null", "nan", "-", "--",
         "\x1b[31m"]  # fmt: skip


def line_with_noise(conf: Conf, rng: random.Random) -> Case:
    """Return a valid line with characters inserted, removed or doubled anywhere."""
    case = valid_line(conf, rng)
    words = list(case.words) or ["seed=1"]
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(words))
        word = words[index]
        place = rng.randrange(len(word) + 1)
        edit = rng.randrange(3)
        put = rng.choice(NOISE) if edit == 0 else word[place:] if edit == 1 else ""
        words[index] = word[:place] + put + word[place + (edit == 2) :]
    words = [word for word in words if word not in ("-", "--")]
    return Case("noise", tuple(words))


FORMS = [
    ("optim",), ("=",), ("=1",), ("",), (" ",), ("optim=",), ("optim.lr",), ("optim..lr=1",), (".lr=1",),
    ("optim.=1",),
    ("~optim",), ("~optim.lr",), ("~",), ("+",), ("++=1",), ("optim@x=sgd",), ("optim/sgd=1",), ("/optim=sgd",),
    ("--nope",), ("--hlep",), ("-x",), ("-cfg",), ("--cfg",), ("--cfg", "all"), ("--config-dir",),
    ("--resolve=1",),
    ("--config-dir", ""), ("--config-dir", "/dev/null"), ("--config-dir", "x" * 5000), ("--config-dir", "a\0b"),
    ("--config-name", ""), ("--config-name", "../config"), ("--config-name", "x" * 5000), ("--config-name",
    "optim/sgd"),
    ("--config-name", "a", "--config-name", "b"), ("--info", "nope"), ("--multirun=1",), ("--version=1",),
    ("--help=x",),
    ("seed=1", "seed=2"), ("seed=1", "++seed=1"), ("optim=sgd", "+optim=adam"), ("epochs=1", "steps=2"),
    ("seed=" + "[" * 150 + "]" * 150,), ("seed=" + "[" * 5000,), ("seed=" + "{a:" * 150 + "1" + "}" * 150,),
    ("model=" + "[" * 199 + "]" * 199,), ("optim.rules=" + "{a:" * 60 + "1" + "}" * 60,), ("seed=" + "(" * 4000,),
    ("a." * 4000 + "b=1",), ("optim." + "a." * 3000 + "b=1",), ("x" * 9000 + "=1",), ("note=" + "x" * 1_000_000,),
    ("optim.lr=" + "1" * 1_000_000,), ("model=" + "resnet," * 100_000,), ("'seed'=1",), ("seed=1;seed=2",),
    ("seed==1",),
    ("seed:1",), ("{seed: 1}",), ("[seed=1]",), ("optim[lr]=1",), ("optim.lr[0]=1",), ("seed=1\n2",), ("se\0ed=1",),
    ("seed=choice(1,2)",), ("seed=range(0,3)",), ("seed=interval(0,1)",), ("seed=1,2",), ("model=glob(*)",),
    ("seed=sort(3,1)",),
    ("seed=exec(1)",), ("note=__import__('os')",), ("seed=int('x')",), ("seed=int()",), ("seed=float(abc)",),
    ("seed=bool(2)",),
    ("hydra.run.dir=",), ("hydra.run.dir=null",), ("hydra.run.dir=a\0b",), ("hydra=1",), ("hydra.x=1",),
    ("hydra.sweep.dir=x",),
    ("hydra.job.name=x",), ("hydra.searchpath=[/tmp]",), ("hydra/launcher=basic",), ("hydra/launcher=../x",),
    ("hydra/env=x",),
    ("hydra.launcher._target_=os.system",), ("hydra.sweeper.params={seed: 1}",), ("hydra.sweeper.params.seed=1,2",),
    ("hydra.callbacks.a._target_=os.mkdir",), ("hydra.job_logging.x=1",), ("hydra.job.env_set.A=1",),
    ("hydra.mode=X",),
    ("hydra.verbose=true",), ("hydra.output_subdir=x",), ("hydra.hydra_logging=null",),
    ("hydra/job_logging=default",),
    ("defaults=[]",), ("defaults.0=x",), ("_target_=os.system",), ("optim._target_=os.system",),
    ("optim={_target_: x}",),
    ("optim.rules={a: [{b: {_target_: x}}]}",), ("+x=1",), ("++x.y=1",), ("_self_=1",), ("package=x",), ("_here_=1",),
    ("recipe.x=1",), ("recipe.name=digits",), ("data.name=cifar10",), ("task.name=evaluate",), ("augment.crop=1",),
    ("augment.crop=null",), ("augment.crop={}",), ("augment.hflip.p=1",), ("augment=[crop]", "augment=[hflip]"),
    ("optim=null",), ("optim.name=null",), ("optim.name=os.system",), ("optim.lr={}",), ("optim.lr={a: 1}",),
    ("optim.lr.x=1",),
]  # fmt: skip
FINE = {("hydra.run.dir=x",)}


def malformed_line(conf: Conf, rng: random.Random) -> Case:
    """Return a malformed line."""
    return Case("form", rng.choice(FORMS), refused=None)


INTERPOLATIONS = [
    "${", "${}", "${nope}", "${optim.nope}", "${.}", "${..}", "${...lr}", "${optim.lr", "${{seed}}", "${seed:}",
    "${oc.env:NO_SUCH}",
    "${oc.env:}", "${oc.decode:'['}", "${oc.create:{_target_: x}}", "${nope:1}", "${hydra:runtime.cwd}",
    "${hydra.run.dir}",
    "${oc.select:nope}", "${oc.dict.keys:optim}", "${oc.dict.values:nope}", "${optim}", "${augment}", "${now:%Y}",
    "${now:%}",
    "${runner_trial:}", "${python_version:x}", "${" * 30, "${a" * 30 + "}" * 30, "${oc.deprecated:seed}",
    "${__import__('os')}",
    "${optim.__class__}", "${seed.real}", "${plugins.0}", "${data.batch_size}", "${oc.env:PATH,1}",
]  # fmt: skip


def line_with_interpolation(conf: Conf, rng: random.Random) -> Case:
    """Return a line with a broken, dangling or circular interpolation."""
    key = rng.choice(
        ["seed", "optim.lr", "note", "data.batch_size", "model", "augment", "plugins", "outputs", "optim.rules"]
    )
    if rng.random() < 0.3:
        a, b = rng.sample(["seed", "accumulate", "log_every", "note"], 2)
        return Case("circle", (f"{a}=${{{b}}}", f"{b}=${{{a}}}"), refused=True)
    if rng.random() < 0.2:
        return Case("circle", (f"{key}=${{{key}}}",), refused=True)
    return Case("interpolation", (f"{key}={rng.choice(INTERPOLATIONS)}",))


SWEEPS = ["1,2", "range(0,4)", "choice(1,2)", "interval(0,1)", "range(0,1e12)", "range(0,10,0)", "range(5,1)",
    "1,,2", "1,", "glob(*)",
          "choice()", "tag(a,choice(1,2))", "shuffle(1,2)", "sort(2,1)", "1,x", "[1],[2]", "{a:1},{b:2}", "nan,1",
          "1,1", "null,1"]  # fmt: skip


def impossible_sweep(conf: Conf, rng: random.Random) -> Case:
    """Return a sweep whose last word is wrong, so that no trial starts."""
    key = rng.choice(
        ["seed", "optim.lr", "model", "augment", "name", "epochs", "optim.lrr", "data.batch_size", "hydra.mode"]
    )
    wrong = rng.choice(
        ["optim.no_such=1", "model=resnt", "log_every=0", "hydra.run.dir=x", "name=x", "loss.smoothing=abc"]
    )
    words = (
        "-m",
        f"{key}={rng.choice(SWEEPS)}",
        *([wrong] if not wrong.startswith(f"{key}=") else ["optim.no_such=1"]),
    )
    return Case("sweep", words, refused=True)


SOURCES: list[Source] = [
    valid_line,
    line_with_typos,
    line_with_wrong_type,
    line_with_noise,
    line_out_of_range,
    line_with_typos,
    line_with_unknown_knob,
    malformed_line,
    line_with_interpolation,
    impossible_sweep,
]
