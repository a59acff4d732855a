"""`vary`: a variant of a config equals the config that the same overrides compose; errors are one line."""

import copy

import pytest

from runner.__main__ import main
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.task_context import _Vary
from runner.door.variants import Composer, vary
from runner.errors import ConfigError
from runner.hashes import hash8
from runner.registry import checked
from runner.schema import ImageSize


def composed(conf, *words):
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        return compose_run(conf, compose_parts(conf, given), given)


@pytest.mark.parametrize(
    "words",
    [
        ["optim.lr=0.25"],
        ["optim=adam", "optim.lr=1e-2"],
        ["init.std=0.1", "init=normal"],
        ["augment=[hflip,crop]", "augment.crop.padding=2"],
        ["augment=[]", "regularizer=[l2]"],
        ["model.hidden=[8,16]", "model.hidden.1=4"],
        ["task=preview", "note='a, b'"],
        ["seed=7", "clip=1.5", "steps=10"],
    ],
    ids=" ".join,
)
def test_a_variant_equals_what_the_words_compose(words):
    conf = find_conf()
    base = composed(conf, "model=mlp")
    before = copy.deepcopy(base)
    assert vary(conf, base, words) == composed(conf, "model=mlp", *words)
    assert base == before


FOLDER = ("data=imagefolder", "data.root=/images")


def test_one_number_is_the_size_of_a_square():
    conf = find_conf()
    wanted = composed(conf, *FOLDER, "data.size=[28,28]")
    assert wanted["data"]["size"] == [28, 28]
    found = composed(conf, *FOLDER, "data.size=28")
    assert found == wanted == vary(conf, composed(conf, *FOLDER), ["data.size=28"])
    assert hash8(found) == hash8(wanted) != hash8(composed(conf, *FOLDER))
    with hydra_opened(conf):
        composer = Composer(conf)
        trials = [composer.trial(read_overrides(conf, [*FOLDER, f"data.size={size}"])).config for size in (20, 28)]
    assert [each["data"]["size"] for each in trials] == [[20, 20], [28, 28]]
    # A size that is one number stays one
    assert composed(conf, "data=synthetic", "data.kind=shapes", "data.size=16")["data"]["size"] == 16


def test_one_number_is_the_size_of_a_square_in_a_file_and_in_a_plugin(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [imagefolder]\nroot: /images\nsize: 28\n")
    (tmp_path / "data" / "lab.yaml").write_text("name: lab\nsize: [32, 32]\nbatch_size: 8\n")
    conf = find_conf(str(tmp_path))
    assert composed(conf, "data=mine")["data"]["size"] == [28, 28]
    # Its types are known when it is imported
    config = composed(conf, "data=lab", "data.size=28", "plugins=[lab_data]")["data"]
    assert checked(_lab, "data", {k: v for k, v in config.items() if k != "name"})["size"] == [28, 28]
    with pytest.raises(ConfigError, match=r"^data\.batch_size: got \[8\], must be a whole number$"):
        composed(conf, "data=lab", "data.batch_size=[8]", "plugins=[lab_data]")


def _lab(*, size: ImageSize, batch_size: int) -> None: ...


OLD, NEW = "monitor=train/accuracy", "monitor=train_eval/accuracy"


def test_an_old_name_of_a_value_is_the_present_one():
    conf = find_conf()
    base = composed(conf, "model=mlp")
    now = composed(conf, "model=mlp", NEW)
    assert now["monitor"] == "train_eval/accuracy"
    assert composed(conf, "model=mlp", OLD) == vary(conf, base, [OLD]) == vary(conf, base, [NEW]) == now
    assert hash8(composed(conf, "model=mlp", OLD)) == hash8(now) != hash8(base)
    with hydra_opened(conf):
        composer = Composer(conf)
        found = [composer.trial(read_overrides(conf, ["model=mlp", word])).config for word in ("monitor=val/loss", OLD)]
    assert [each["monitor"] for each in found] == ["val/loss", "train_eval/accuracy"]


SAID = "runner: monitor: 'train/accuracy' is now called 'train_eval/accuracy'\n"


@pytest.mark.parametrize(("words", "lines"), [([OLD], 1), ([NEW], 0), ([], 0)])
def test_one_line_says_the_present_name(words, lines, capfd):
    assert main([*words, "--cfg=job"]) == 0
    assert capfd.readouterr().err == SAID * lines


def test_one_line_says_the_present_name_for_all_trials_of_a_sweep(capfd):
    assert main(["-m", f"{OLD},val/loss", "seed=0,-1"]) == 2
    first, second = capfd.readouterr().err.splitlines(keepends=True)
    assert first == SAID and second.startswith("runner: error: seed: got -1")


def test_values_may_be_given_as_a_mapping():
    conf = find_conf()
    base = composed(conf, "model=mlp")
    given = {"optim": "adam", "optim.lr": 1e-05, "note": "what, if?", "augment": ["hflip"], "clip": None}
    words = ["optim=adam", "optim.lr=1e-05", "note='what, if?'", "augment=[hflip]", "clip=null"]
    assert vary(conf, base, given) == composed(conf, "model=mlp", *words)


def test_an_option_of_the_users_own_is_known_by_the_name_in_its_file(bench, user):
    folder = user({"optim/spare": "name: sgd\nlr: 0.7\nfused: true\n"})
    conf = find_conf(str(folder))
    base = composed(conf, "optim=spare")
    assert _Vary(conf.folders)(base, {"seed": 1}) == base | {"seed": 1}
    assert vary(conf, composed(conf), {"optim": "spare"})["optim"] == {"name": "sgd", "lr": 0.7, "fused": True}


def test_references_in_an_option_are_resolved_in_the_variant(bench, user):
    folder = user({"optim/half": "name: sgd\nlr: ${seed}\nfused: false\n"})
    conf = find_conf(str(folder))
    assert vary(conf, composed(conf, "seed=3"), {"optim": "half"})["optim"]["lr"] == 3


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"optim.lrr": 1}, "optim.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        ({"optim.lr": -1}, "optim.lr: got -1, must be > 0"),
        ({"optim": "adamm"}, "optim: unknown option 'adamm'; did you mean 'adam'?"),
        ({"optim.lr.x": 1}, "optim.lr.x: cannot be set there"),
        ({"recipe": "digits"}, "recipe: cannot be set for a variant of a config"),
        ({"hydra.launcher.workers": 1}, "hydra.launcher.workers: cannot be set for a variant of a config"),
        (["optim.lr=0.1,0.2"], "optim.lr: got 0.1,0.2, must be one plain value"),
        (["optim.lr=${seed}"], "optim.lr: got ${seed}, must be one plain value"),
        (["optim.lr"], "optim.lr: must be key=value"),
    ],
)
def test_what_is_wrong_is_one_line(overrides, line):
    conf = find_conf()
    with pytest.raises(ConfigError) as error:
        vary(conf, composed(conf), overrides)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
