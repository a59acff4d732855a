"""task=list and docs/reference.md list every option, with correct descriptions."""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from typing import Annotated, Literal

import pytest
import yaml
from running import ROOT, command, job

from runner import tasks
from runner.door.options import find_conf
from runner.engine import contracts
from runner.errors import ConfigError
from runner.registry import find, names
from runner.relations import Divides, Fields, With
from runner.schema import BOUNDS, NonNegative, NotEmpty, Positive, Range, Unit
from runner.settings import SETTINGS
from runner.tasks.catalog import Knob, read_catalog, type_in_words
from runner.tasks.reference import COMMAND

for module in pkgutil.iter_modules(tasks.__path__, "runner.tasks."):
    importlib.import_module(module.name)
CONF = ROOT / "conf"
FILES = sorted(CONF.glob("*/*.yaml"))
GROUPS = {group.name: group for group in read_catalog([CONF])}
OPTIONS = [(group.name, option) for group in GROUPS.values() for option in group.options]


def listed(capsys, *overrides):
    """Return the output of a command line, from the job that the command line gives."""
    assert tasks.start(dataclasses.replace(job("task=list", *overrides), folders=find_conf().folders)) == 0
    return capsys.readouterr().out


def test_every_yaml_is_in_the_catalog_and_nothing_else():
    assert sorted((group, option.name) for group, option in OPTIONS) == [(p.parent.name, p.stem) for p in FILES]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_every_option_says_what_it_is_and_every_knob_what_it_does(group, option):
    assert option.about
    if group != "recipe":
        assert option.doc == inspect.getdoc(find(group, option.name))
        assert [knob.name for knob in option.knobs if not knob.comment] == []


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda x: getattr(x, "name", x))
def test_defaults_are_those_of_the_yaml(group, option):
    """PyYAML reads back each default as it is shown, and no knob is left out."""
    if group == "recipe":
        return
    content = yaml.safe_load((CONF / group / f"{option.name}.yaml").read_text())
    content = content[option.name] if GROUPS[group].several else {k: v for k, v in content.items() if k != "name"}
    assert {knob.name: yaml.safe_load(knob.default) for knob in option.knobs} == content


def test_the_global_fields_are_listed_with_type_default_and_meaning(capsys):
    for words in (["task.kind=settings"], []):
        page = " ".join(listed(capsys, *words).split())
        assert "epochs = 30 passes over the training set; may be a fraction (number > 0)" in page
        assert "clip = null gradient clipping: the limit; null: no clipping (number > 0 or null)" in page
        for name in SETTINGS:
            assert f" {name} = " in page
    assert "- `clip: null` (number > 0 or null) gradient clipping" in listed(capsys, "task.format=markdown")
    assert "activation" not in listed(capsys, "task.kind=settings").splitlines()[0]


def test_the_page_in_docs_is_the_one_that_would_be_made_now(capsys):
    page = listed(capsys, "task.format=markdown")
    assert (ROOT / "docs" / "reference.md").read_text() == page, f"docs/reference.md is stale; make it again: {COMMAND}"


def test_the_reference_has_types_ranges_errors_and_shapes():
    page = (ROOT / "docs" / "reference.md").read_text()
    entry = page.partition("### mix=cutmix\n")[2].partition("###")[0]
    assert "**Returns** Images (B, C, H, W) and soft labels (B, K)." in entry
    assert "**Raises** ConfigError: Images have one pixel." in entry
    assert "\n- `p: 0.5` (number >= 0 and \\<= 1) probability to mix a batch" in entry
    assert "Args" not in page


def test_the_reference_has_every_contract_with_its_public_members():
    page = (ROOT / "docs" / "reference.md").read_text().partition("\n## Engine contracts\n")[2]
    own = {
        name: value for name, value in vars(contracts).items() if getattr(value, "__module__", "") == contracts.__name__
    }
    assert len(own) > 10
    for name, value in own.items():
        entry = page.partition(f"\n### {name}\n")[2].partition("\n###")[0]
        assert " ".join(value.__doc__.split("\n\n")[0].split())[:60] in entry.replace("\\", "")
        for field in getattr(value, "__dataclass_fields__", {}):
            assert f"\n- `{field}: " in entry


@pytest.mark.parametrize("name", ["Groups", "Batch", "Update", "Gradients", "apply_gradients", "Recipe"])
def test_the_reference_has_the_contracts_of_methods_that_make_steps(name):
    page = (ROOT / "docs" / "reference.md").read_text().partition("\n## Engine contracts\n")[2]
    assert f"\n### {name}\n" in page


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Positive, "number > 0"),
        (Unit | None, "number >= 0 and <= 1 or null"),
        (list[NonNegative], "list of: number >= 0"),
        (Annotated[list[Literal["a", "b"]], NotEmpty()], "list of: 'a', 'b'"),
        (Annotated[list[Positive], BOUNDS], "[low, high]"),
        (Annotated[int, Range(1), Divides("dim")], "whole number >= 1"),
        (Annotated[Literal["x"], With("knob", "y", ())], "'x'"),
        (Annotated[dict[str, float], Fields((("lr", float), ("match", str)), ())], "mapping of lr, match"),
        (dict[str, int], "mapping {a: b}"),
        (bytes, "bytes"),
    ],
)
def test_types_in_words(annotation, words):
    assert type_in_words(annotation) == words


def test_a_line_of_each_kind_as_a_user_reads_it(capsys):
    lines = listed(capsys, "task.kind=activation").splitlines()
    assert lines[0] == "activation  choose one: activation=elu activation.alpha=1.0; default relu"
    start = lines.index("  leaky_relu  Leaky ReLU: x for x > 0, slope * x otherwise (Maas et al. 2013).")
    assert lines[start + 1] == "      slope = 0.01  slope below zero, in [0, 1]; not a bias (init.bias sets biases)"


def test_a_docstring_is_shown_without_its_first_line_and_its_sections(capsys):
    """The YAML's comment says the same as the first line, and the knobs say the same as Args."""
    page = listed(capsys, "task.kind=mix")
    entry = page.partition("\n  cutmix ")[2].partition("\n  mixup ")[0]
    doc = find("mix", "cutmix").__doc__
    assert " ".join(doc.split("\n\n")[1].split()) in " ".join(entry.split())
    assert doc.split("\n")[0] not in " ".join(entry.split())
    assert not any(section in entry for section in ("Args:", "Returns:", "Raises:"))


def test_the_list_is_as_wide_as_the_terminal(monkeypatch, capsys):
    """FORCE_COLOR makes rich treat standard output as a terminal, COLUMNS gives its width."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns, most in (("40", 60), ("80", 80), ("120", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", listed(capsys, "task.kind=optim")).splitlines()
        assert most - 10 < max(len(line.rstrip()) for line in lines) <= most


def test_the_list_is_plain_and_narrow_where_it_is_piped(capsys):
    page = listed(capsys)
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 100
    for group in GROUPS.values():
        assert f"\n{group.name}  " in "\n" + page
        for option in group.options:
            assert f"\n  {option.name}" in page


@pytest.mark.parametrize("kind", ["optim", "regularizer"])
def test_one_kind_alone(capsys, kind):
    lines = listed(capsys, f"task.kind={kind}").splitlines()
    assert [line.split()[0] for line in lines if line[:1].strip()] == [kind]
    assert [line.split()[0] for line in lines if line[:3].strip() and line[:2] == "  "] == names(kind)


def test_an_unknown_kind_is_answered_with_the_nearest(capsys):
    with pytest.raises(ConfigError, match=r"^task\.kind: unknown kind 'optm'; did you mean 'optim'\? \(choose from: "):
        listed(capsys, "task.kind=optm")


def test_values_comments_and_chapters_of_any_form_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "defaults:\n  - _self_\n  - part: odd\n  - many: []\n  - override hydra/x: y\n"
    )
    for folder in ("part", "many", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "part" / "odd.yaml").write_text(
        "# What it is,\n# in two lines.\nname: odd\nhash: 'a # b'  # not \"# b\"\nlist:  # in a block\n  - 1\n  - 2\n"
        "wide: [1,\n       2]  # on two lines\n         # and on\nnested:\n  a: 1  # first\n  b: {c: 2, d: 3}  # both\n"
        "bare: null\n"
    )
    (tmp_path / "part" / "odder.yaml").write_text("defaults:\n  - odd\n  - _self_\na: 2  # mine\n")
    (tmp_path / "many" / "some.yaml").write_text("some:\n  p: 0.5  # share\n")
    part, many = read_catalog([tmp_path])
    assert part.options[0].about == "What it is, in two lines."
    assert part.options[0].knobs == (
        Knob("hash", "'a # b'", 'not "# b"'),
        Knob("list", "[1, 2]", "in a block"),
        Knob("wide", "[1, 2]", "on two lines and on"),
        Knob("nested.a", "1", "first"),
        Knob("nested.b.c", "2", "both"),
        Knob("nested.b.d", "3", "both"),
        Knob("bare", "null", ""),
    )
    assert part.options[1].about == "Extends odd."
    assert part.options[1].knobs == (Knob("a", "2", "mine"),)
    assert many.several
    assert many.options[0].knobs == (Knob("p", "0.5", "share"),)


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x\n", "a: [1\n"])
def test_a_users_file_that_cannot_be_read_is_named_in_one_line(tmp_path, text):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"optim/mine\.yaml: ") as caught:
        read_catalog([CONF, tmp_path])
    assert "\n" not in str(caught.value)


def test_the_users_own_options_are_listed_and_nothing_is_written(tmp_path):
    (tmp_path / "my_lab.py").write_text(
        "from runner.registry import register\nfrom torch import nn\n\n"
        '@register("activation")\ndef mish() -> nn.Module:\n    """Return Mish."""\n    return nn.Mish()\n\n'
        '@register("activation")\ndef bump(*, at: float):\n    """Return a bump."""\n    return nn.ReLU()\n'
    )
    (tmp_path / "mine" / "activation").mkdir(parents=True)
    (tmp_path / "mine" / "activation" / "mish.yaml").write_text("# Mine (2024).\nname: mish\n")
    run = command(
        "--config-dir=mine",
        "plugins=[my_lab]",
        "task=list",
        "task.kind=activation",
        cwd=tmp_path,
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "  mish        Mine (2024).\n" in run.stdout
    assert "  bump        Requires activation/bump.yaml in --config-dir.\n              Gives a bump.\n" in run.stdout
    assert "at = ?  number" in run.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "my_lab.py"]


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "runner", "task=list"]
    run = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.close()
    assert run.stderr.read() == b""
    run.stderr.close()
    assert run.wait() == 0
