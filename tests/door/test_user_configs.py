"""A user's config folder adds options and recipes; its errors are reported, and it cannot run code."""

import re
from pathlib import Path

import pytest

from runner.__main__ import main
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides

GLOBAL = "# @package _global_\n"


def composed(folder: Path, *overrides, name="config"):
    conf = find_conf(str(folder), name)
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return compose_run(conf, compose_parts(conf, given), given)


def test_an_option_of_ones_own(bench, user):
    folder = user({"optim/mine": "name: adam\nlr: 3e-4\nbetas: [0.8, 0.9]\nrules: {}\n"})
    assert composed(folder, "optim=mine", "optim.lr=1e-4")["optim"] == {
        "name": "adam",
        "lr": 1e-4,
        "betas": [0.8, 0.9],
        "rules": {},
    }


def test_an_option_that_builds_on_ours(bench, user):
    folder = user({"optim/slow": "defaults: [adam, _self_]\nlr: 1e-5\n"})
    assert composed(folder, "optim=slow")["optim"] == {"name": "adam", "lr": 1e-5, "betas": [0.9, 0.999], "rules": {}}


def test_an_option_of_a_component_of_ones_own(bench, user, refused):
    folder = user({"optim/newton": "name: newton\ndamping: 0.1\n"})
    assert composed(folder, "optim=newton", "optim.damping=1")["optim"] == {"name": "newton", "damping": 1}
    line = refused("--config-dir", str(folder), "optim=newton", "optim.dampin=1")
    expected = "optim.dampin: unknown key 'dampin'; did you mean 'damping'? (choose from: damping, name)"
    assert line == f"runner: error: {expected}"


def test_an_entry_of_ones_own_for_a_group_of_many(bench, user):
    folder = user({"augment/strong": "crop: {padding: 9, mode: zero}\n", "augment/blur": "blur: {radius: 1.0}\n"})
    config = composed(folder, "augment=[strong,blur,hflip]", "augment.blur.radius=2")
    assert list(config["augment"].items()) == [
        ("crop", {"padding": 9, "mode": "zero"}),
        ("blur", {"radius": 2}),
        ("hflip", {"p": 0.5}),
    ]


def test_a_recipe_of_ones_own(bench, user):
    folder = user({"recipe/mine": f"{GLOBAL}defaults: [override /model: mlp]\nseed: 4\nmodel: {{hidden: [3]}}\n"})
    config = composed(folder, "recipe=mine")
    assert config["seed"] == 4
    assert config["model"] == {"name": "mlp", "hidden": [3]}


def test_a_recipe_that_builds_on_another(bench, user):
    folder = user({"recipe/mine": f"{GLOBAL}defaults: [fast, _self_]\nepochs: 9\n"})
    config = composed(folder, "recipe=mine")
    assert (config["epochs"], config["model"]["name"], list(config["augment"])) == (9, "mlp", ["hflip", "crop"])


def test_a_primary_config_of_ones_own(bench, user):
    folder = user({"lab": "defaults: [config, override model: mlp, override augment: [crop], _self_]\nseed: 8\n"})
    config = composed(folder, "optim=adam", "augment.crop.padding=3", name="lab")
    assert (config["seed"], config["model"]["name"], config["optim"]["name"]) == (8, "mlp", "adam")
    assert config["augment"] == {"crop": {"padding": 3, "mode": "reflect"}}


REFUSED = {
    # mistakes, wherever they stand
    "a typo in a recipe": (
        {"recipe/mine": f"{GLOBAL}optim: {{lrr: 1}}\n"},
        "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name) (set by recipe=mine)",
    ),
    "a typo at the top": ({"recipe/mine": f"{GLOBAL}epoch: 1\n"}, "epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    "a wrong value": (
        {"recipe/mine": f"{GLOBAL}epochs: soon\n"},
        "epochs: got 'soon', must be a number (set by recipe=mine)",
    ),
    "a yes for a number": ({"recipe/mine": f"{GLOBAL}epochs: yes\n"}, "epochs: got true, must be a number"),
    "an entry not chosen": (
        {"recipe/mine": f"{GLOBAL}augment: {{crop: {{padding: 2, mode: zero}}}}\n"},
        "augment.crop: 'crop' is not chosen; add it: augment=[crop] (set by recipe=mine)",
    ),
    "an unknown entry": (
        {"recipe/mine": f"{GLOBAL}augment: {{flop: {{p: 1}}}}\n"},
        "augment: unknown option 'flop' (choose from: crop, hflip) (set by recipe=mine)",
    ),
    "an unknown choice": (
        {"recipe/mine": f"{GLOBAL}defaults: [override /optim: adm]\n"},
        "{folder}/recipe/mine.yaml: optim: unknown option 'adm'; did you mean 'adam'? (choose from: adam, sgd)",
    ),
    "an unknown group": (
        {"recipe/mine": f"{GLOBAL}defaults: [override /optimm: adam]\n"},
        "{folder}/recipe/mine.yaml: defaults: unknown group '/optimm'; did you mean '/optim'?",
    ),
    "a recipe without its header": (
        {"recipe/mine": "# my recipe\n# @package _global_\nseed: 1\n"},
        "{folder}/recipe/mine.yaml: a recipe starts with the line '# @package _global_'",
    ),
    "a knob short": ({"optim/mine": "name: sgd\nlr: 1.0\n"}, "optim.fused: missing in its YAML"),
    "a knob too many": (
        {"optim/mine": "name: sgd\nlr: 1.0\nfused: true\nlrr: 2\n"},
        "optim.lrr: unknown key 'lrr'; did you mean 'lr'? (choose from: fused, lr, name) (set by optim=mine)",
    ),
    "our option's name": (
        {"optim/mine": "name: sgd\n", "optim/adam": "name: adam\n"},
        "{folder}/optim/adam.yaml: optim=adam comes with runner; give the file another name",
    ),
    "our config's name": (
        {"optim/mine": "name: sgd\n", "config": "seed: 1\n"},
        "{folder}/config.yaml: is hidden by the config of runner; rename it and use --config-name",
    ),
    "a circle": ({"recipe/mine": f"{GLOBAL}defaults: [mine]\n"}, "{folder}/recipe/mine.yaml: extends itself"),
    # what is no plain YAML
    "a broken file": (
        {"recipe/mine": f"{GLOBAL}optim: {{lr: 1\nseed: 2\n"},
        "{folder}/recipe/mine.yaml:3: ",
    ),
    "a tab after a colon": ({"recipe/mine": f"{GLOBAL}seed:\t1\n"}, "{folder}/recipe/mine.yaml:2: found character"),
    "a tab": ({"recipe/mine": f"{GLOBAL}optim:\n\tlr: 1\n"}, "{folder}/recipe/mine.yaml:3: found character"),
    "a key twice": (
        {"recipe/mine": f"{GLOBAL}seed: 1\nseed: 2\n"},
        "{folder}/recipe/mine.yaml:3: found duplicate key seed",
    ),
    "a list": ({"recipe/mine": f"{GLOBAL}- 1\n"}, "{folder}/recipe/mine.yaml:2: must be a mapping"),
    "a word": ({"optim/mine": "sgd\n"}, "{folder}/optim/mine.yaml:1: must be a mapping"),
    "an alias": (
        {"recipe/mine": f"{GLOBAL}note: &a x\nname: *a\n"},
        "{folder}/recipe/mine.yaml:2: anchors and aliases",
    ),
    "a tag": (
        {"recipe/mine": f"{GLOBAL}note: !!python/object/apply:os.mkdir [x]\n"},
        "{folder}/recipe/mine.yaml:2: tags",
    ),
    "depth": (
        {"recipe/mine": f"{GLOBAL}note: {'[' * 30}{']' * 30}\n"},
        "{folder}/recipe/mine.yaml:2: is nested deeper",
    ),
    # PyYAML itself may refuse this one before our check sees it, in words of its own.
    "depth beyond the parser's": (
        {"recipe/mine": f"{GLOBAL}note: {'[' * 3000}{']' * 3000}\n"},
        "{folder}/recipe/mine.yaml:2: ",
    ),
    "size": (
        {"recipe/mine": f"{GLOBAL}note: {'x' * 1_000_000}\n"},
        "{folder}/recipe/mine.yaml: is larger than 1000000 bytes",
    ),
    # what would run code
    "plugins": (
        {"recipe/mine": f"{GLOBAL}plugins: [os]\n"},
        "{folder}/recipe/mine.yaml: plugins: allowed on the command line only, because a file must not import code",
    ),
    "plugins by interpolation": (
        {"recipe/mine": f"{GLOBAL}plugins: ${{oc.decode:'[os]'}}\n"},
        "{folder}/recipe/mine.yaml: plugins:",
    ),
    "a target": (
        {"recipe/mine": f"{GLOBAL}optim: {{_target_: os.system}}\n"},
        "{folder}/recipe/mine.yaml: optim._target_: a key",
    ),
    "a target in a list": (
        {"recipe/mine": f"{GLOBAL}note: [{{_target_: x}}]\n"},
        "{folder}/recipe/mine.yaml: note._target_: a key",
    ),
    "a target by interpolation": (
        {"recipe/mine": f'{GLOBAL}optim: {{lr: "${{oc.create:{{_target_: x}}}}"}}\n'},
        "{folder}/recipe/mine.yaml: optim.lr: got '${oc.create:{_target_: x}}', must be a value, or a reference to one",
    ),
    "callbacks": (
        {"recipe/mine": f"{GLOBAL}hydra: {{callbacks: {{x: {{made: 1}}}}}}\n"},
        "{folder}/recipe/mine.yaml: hydra.callbacks: is not allowed in a file (allowed: mode, sweeper, launcher)",
    ),
    "logging": (
        {"recipe/mine": f"{GLOBAL}hydra: {{job_logging: {{formatters: {{x: {{(): os.mkdir}}}}}}}}\n"},
        "{folder}/recipe/mine.yaml: hydra.job_logging: is not allowed in a file",
    ),
    "a search path": (
        {"recipe/mine": f"{GLOBAL}hydra: {{searchpath: [x]}}\n"},
        "{folder}/recipe/mine.yaml: hydra.searchpath:",
    ),
    "a launcher's target": (
        {"recipe/mine": f"{GLOBAL}hydra: {{launcher: {{_target_: x}}}}\n"},
        "{folder}/recipe/mine.yaml: hydra.launcher._target_: a key must not start with '_'",
    ),
    "a launcher by interpolation": (
        {"recipe/mine": f'{GLOBAL}hydra: {{sweeper: {{sampler: "${{note}}"}}}}\n'},
        "{folder}/recipe/mine.yaml: hydra: must be plain values, without ${...}",
    ),
    "Hydra's choice of callbacks": (
        {"recipe/mine": f"{GLOBAL}defaults: [override /hydra/callbacks: x]\n"},
        "{folder}/recipe/mine.yaml: defaults: unknown group '/hydra/callbacks'",
    ),
    "a launcher by path": (
        {"recipe/mine": f"{GLOBAL}defaults: [override /hydra/launcher: ../../optim/x]\n", "optim/x": "_target_: y\n"},
        "{folder}/recipe/mine.yaml: defaults: override /hydra/launcher: got ../../optim/x, must be one word",
    ),
    "a folder for Hydra": (
        {"recipe/mine": GLOBAL, "hydra/launcher/basic": "_target_: x\n"},
        "{folder}/hydra: a config folder must not set Hydra up (it runs code from there)",
    ),
    "a package": (
        {"optim/mine": "# @package hydra.callbacks\nx: {y: 1}\n"},
        "{folder}/optim/mine.yaml: '# @package hydra.callbacks' is not supported; "
        "values belong to the group of the file's folder",
    ),
    "a package in a defaults list": (
        {"recipe/mine": f"{GLOBAL}defaults: [/optim@hydra.callbacks: sgd]\n"},
        "{folder}/recipe/mine.yaml: defaults: unknown group '/optim@hydra.callbacks'",
    ),
    "a file elsewhere": (
        {"recipe/mine": f"{GLOBAL}defaults: [../else/where]\n", "else/where": "hydra: {}\n"},
        "{folder}/recipe/mine.yaml: defaults: unknown option '../else/where'",
    ),
    "a bad file below a good one": (
        {"recipe/mine": f"{GLOBAL}defaults: [other]\n", "recipe/other": f"{GLOBAL}hydra: {{env: 1}}\n"},
        "{folder}/recipe/other.yaml: hydra.env: is not allowed in a file",
    ),
}


def without_lines(text):
    """Return an error without the numbers of lines, which the tests of lines look at."""
    return re.sub(r", \S+\.yaml:\d+\)", ")", re.sub(r"(\.yaml):\d+: ", r"\1: ", text))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("recipe/mine", "epochs: 3\nnote: why\noptim:\n  lrr: 1\n", 5),
        ("recipe/mine", "epochs: 3\n\n# why\nlr: 0.1\n", 5),
        ("recipe/mine", "epochs: soon\n", 2),
        ("recipe/mine", "epochs: 3\noptim: {lr: 0.1\nnote: x\n", 4),
        ("recipe/mine", "defaults:\n  - override /model: mlp\n  - override /optim: adm\n", 4),
        ("recipe/mine", "defaults:\n  - override /modle: mlp\n", 3),
        ("recipe/mine", "epochs: 3\nplugins: [x]\n", 3),
        ("recipe/mine", "epochs: 3\nhydra:\n  callbacks: {}\n", 4),
        ("recipe/mine", "epochs: 3\nepochs: 4\n", 3),
        ("optim/mine", "name: adam\nlr: 1e-3\nbetas: [0.9, 0.999]\nrules: {}\nlrr: 2\n", 5),
    ],
)
def test_a_users_file_is_refused_with_its_line(bench, user, refused, name, content, line):
    folder = user({name: GLOBAL + content if name.startswith("recipe") else content})
    given = refused(f"{name.partition('/')[0]}=mine", "--config-dir", str(folder))
    assert f"{folder}/{name}.yaml:{line}" in given


@pytest.mark.parametrize("case", REFUSED)
def test_a_users_file_is_refused(bench, user, refused, case):
    files, line = REFUSED[case]
    folder = user(files)
    choice = "optim=mine" if "optim/mine" in files else "recipe=mine"
    given = refused(choice, "--config-dir", str(folder))
    given = given if re.search(r"\.yaml:\d", line) else without_lines(given)
    expected = f"runner: error: {line.replace('{folder}', str(folder))}"
    assert given == expected or (given.startswith(expected) and not line.endswith(")"))


@pytest.mark.parametrize("content", ["blur: 5\n", "crop: [1]\n", "5: x\n", "blur: null\n"])
def test_an_entry_without_knobs_is_refused(bench, user, refused, content):
    folder = user({"augment/mine": content})
    entry, value = content.strip().split(": ")
    shown = {"x": "'x'", "null": "null"}.get(value, value)
    line = f"runner: error: {folder}/augment/mine.yaml: {entry}: got {shown}, must be a mapping of its knobs {{a: b}}"
    assert refused("augment=[mine]", "--config-dir", str(folder)) == line


def test_a_file_that_is_not_chosen_does_no_harm(bench, user):
    folder = user({"recipe/broken": "{", "optim/mine": "name: adam\nlr: 0.5\nbetas: []\nrules: {}\n"})
    assert composed(folder, "optim=mine")["optim"]["lr"] == 0.5


def test_a_primary_config_is_screened_too(bench, user, refused):
    folder = user({"lab": "defaults: [config]\nhydra: {job_logging: {x: 1}}\n"})
    line = refused("--config-dir", str(folder), "--config-name", "lab")
    assert line.startswith(
        f"runner: error: {folder}/lab.yaml:2: hydra.job_logging: is not allowed in a file (allowed: mode,"
    )


def test_text_that_is_not_utf8_is_refused(bench, user, refused):
    folder = user({"recipe/mine": GLOBAL})
    (folder / "recipe/mine.yaml").write_bytes(GLOBAL.encode() + "note: é\n".encode("latin-1"))
    assert re.search(r"mine\.yaml: is not UTF-8 text \(byte 26\)", refused("--config-dir", str(folder), "recipe=mine"))


def test_windows_line_ends_and_a_relative_folder(bench, user, capsys, monkeypatch):
    folder = user({"recipe/mine": GLOBAL})
    (folder / "recipe/mine.yaml").write_bytes(b"# @package _global_\r\nseed: 6\r\n")
    monkeypatch.chdir(folder.parent)
    assert main(["--config-dir", folder.name, "recipe=mine", "--cfg", "job"]) == 0
    assert "seed: 6\n" in capsys.readouterr().out


def test_a_folder_with_unusual_characters(bench, tmp_path, capsys):
    folder = tmp_path / "my 'lab', [1] ü"
    (folder / "optim").mkdir(parents=True)
    (folder / "optim/mine.yaml").write_text("name: sgd\nlr: 0.7\nfused: true\n")
    assert main(["--config-dir", str(folder), "optim=mine", "--cfg", "job"]) == 0
    assert "lr: 0.7\n" in capsys.readouterr().out


def test_values_to_try_of_a_recipe_are_not_ignored_by_a_single_run(bench, user, refused):
    folder = user({"recipe/lrs": f"{GLOBAL}hydra: {{sweeper: {{params: {{optim.lr: '0.1,0.2'}}}}}}\n"})
    line = refused("--config-dir", str(folder), "recipe=lrs")
    expected = "hydra.sweeper.params: got values to try for optim.lr; add -m to run each of them"
    assert line == f"runner: error: {expected}"
    assert main(["--config-dir", str(folder), "recipe=lrs", "--cfg=job"]) == 0


@pytest.mark.parametrize("words", [["-m"], [], ["-m", "hydra/sweeper=optuna"]])
def test_values_to_try_are_written_as_such_on_the_command_line(bench, refused, words):
    line = refused(*words, "hydra.sweeper.params={optim.lr: '0.1,0.2'}")
    expected = "hydra.sweeper.params: belongs in a recipe; here write the values to try: optim.lr=0.1,0.2"
    assert line == f"runner: error: {expected}"
