"""task=init_report: the lectures' experiment, gradients by hand, verdicts, and the files of a report."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ROOT, command, events, job, result
from torch import nn

from runner import rich_console
from runner.door.task_context import start
from runner.engine.activations import Layer, measure
from runner.errors import ConfigError
from runner.tasks.init_figures import evenly_spaced, histogram_figure
from runner.tasks.init_verdicts import Case, find_problems

pytestmark = pytest.mark.rendered

REFERENCE = json.loads((ROOT / "tests" / "fixtures" / "activation_reference.json").read_text())["cases"]
INITS = {"0.01": "small_normal", "0.05": "large_normal", "xavier": "xavier", "he": "kaiming"}
SIX = ("model=mlp", "model.hidden=[32,32,32,32,32,32]", "norm=none", "augment=[]")


def report(folder: Path, *overrides: str) -> dict:
    assert start(job("task=init_report", *overrides, f"hydra.run.dir={folder}")) == 0
    return json.loads((folder / "report.json").read_text())


def by_name(found: dict) -> dict[str, dict]:
    return {f"{case['activation']} {case['init']}": case for case in found["cases"]}


def hold(case: dict, reference: dict, *, units: int) -> None:
    """Compare a case with the reference: 3 % for tanh, 15 % for ReLU, whose few rows become alike with depth."""
    near = 0.03 if reference["activation"] == "tanh" else 0.15
    layers = case["layers"]
    assert [layer["std"] for layer in layers] == pytest.approx(reference["std"], rel=near)
    assert [layer["grad_std"] for layer in layers] == pytest.approx(reference["gradient"], rel=near)
    if reference["activation"] == "tanh":
        assert [layer["saturated"] for layer in layers] == pytest.approx(reference["saturated"], abs=0.01)
        assert [layer["near_zero"] for layer in layers] == pytest.approx(reference["near_zero"], abs=0.01)
        assert all(abs(layer["mean"]) < 0.03 for layer in layers)
    else:
        assert [layer["zero"] for layer in layers] == pytest.approx(
            [0.5] * 6, abs=2.5 * 0.5 / math.sqrt(units)
        )  # rows become alike
        assert [layer["mean"] for layer in layers] == pytest.approx(reference["mean"], rel=near)
        assert all(layer["saturated"] is None for layer in layers)


@pytest.fixture(scope="module")
def lecture(tmp_path_factory) -> dict[str, dict]:
    """The lectures' experiment in 576 units instead of 4,096: the same numbers if std^2 * units is the same."""
    units = 24**2
    chosen = {
        name: f"{{name: normal, std: {s * 64 / 24}}}" for name, s in (("0.01", 0.01), ("0.05", 0.05), ("bug", 1 / 32))
    }
    widths = ",".join([str(units)] * 6)
    found = report(
        tmp_path_factory.mktemp("lecture") / "run",
        "recipe=lecture_init",
        *("data.size=24", "data.train=256", "task.examples=256", f"model.hidden=[{widths}]"),
        f"task.init=[{chosen['0.01']},{chosen['0.05']},xavier,kaiming,{chosen['bug']}]",
    )
    order = ["0.01", "0.05", "xavier", "he", "two_over_root"]
    names = [f"{activation} {init}" for activation in ("tanh", "relu") for init in order]
    return dict(zip(names, found["cases"], strict=True))


@pytest.mark.parametrize("name", REFERENCE)
def test_the_lectures_experiment_in_small_gives_the_lectures_numbers(lecture, name):
    hold(lecture[name], REFERENCE[name], units=576)


@pytest.mark.parametrize("squared", [0.4096, 10.24, 1.0, 2.0, 4.0])
def test_relu_follows_the_closed_form(lecture, squared):
    name = dict(zip([0.4096, 10.24, 1.0, 2.0, 4.0], ["0.01", "0.05", "xavier", "he", "two_over_root"], strict=True))[
        squared
    ]
    layers = lecture[f"relu {name}"]["layers"]
    for depth, layer in enumerate(layers):  # a half-normal of scale z has std z * sqrt(1/2 - 1/(2 pi))
        scale = math.sqrt(squared) * (squared / 2) ** (depth / 2)
        assert layer["std"] == pytest.approx(scale * math.sqrt(0.5 - 0.5 / math.pi), rel=0.15)
        assert layer["grad_std"] == pytest.approx((squared / 2) ** ((5 - depth) / 2), rel=0.15)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tanh 0.01", {"collapsed", "shrinking activations", "vanishing gradient"}),
        ("tanh 0.05", {"saturated", "exploding gradient"}),
        ("tanh xavier", {"ok"}),
        ("tanh he", {"ok"}),
        ("relu 0.01", {"collapsed", "shrinking activations", "vanishing gradient"}),
        ("relu 0.05", {"exploding activations", "exploding gradient"}),
        ("relu xavier", {"shrinking activations", "vanishing gradient"}),
        ("relu he", {"ok"}),
        ("relu two_over_root", {"exploding activations", "exploding gradient"}),
    ],
)
def test_the_lectures_cases_get_the_lectures_verdicts(lecture, name, words):
    assert set(lecture[name]["verdict"].split(", ")) == words


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_lectures_experiment_in_full(tmp_path):
    found = by_name(report(tmp_path / "run", "recipe=lecture_init"))
    for name, reference in REFERENCE.items():
        activation, init = name.split()
        hold(found[f"{activation} {INITS.get(init, 'normal std=0.03125')}"], reference, units=4096)


def test_statistics_and_gradients_equal_those_of_a_chain_by_hand():
    torch.manual_seed(0)
    first, second, head = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 3)
    model = nn.Sequential(first, nn.Tanh(), second, nn.ReLU(), head)
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    found = measure(model, x, lambda logits, last: nn.functional.cross_entropy(logits, y) * 40)
    a = torch.tanh(x @ first.weight.T + first.bias)
    z = a @ second.weight.T + second.bias
    b = z.clamp(min=0)
    at_logits = torch.softmax(b @ head.weight.T + head.bias, 1) - torch.eye(3)[y]
    at_b = at_logits @ head.weight
    at_a = (at_b * (z > 0)) @ second.weight
    for layer, output, gradient in zip(found, (a, b), (at_a, at_b), strict=True):
        output, gradient = output.detach().numpy(), gradient.detach().numpy()
        assert layer.mean == pytest.approx(output.mean(), rel=1e-4, abs=1e-6)
        assert layer.std == pytest.approx(output.std(), rel=1e-4)
        assert layer.grad_std == pytest.approx(gradient.std(), rel=1e-4)
        assert layer.grad_norm == pytest.approx(math.sqrt((gradient**2).sum(1).mean()), rel=1e-4)
        assert layer.zero == pytest.approx((output == 0).mean())
        assert layer.near_zero == pytest.approx((abs(output) < 0.01).mean())
        counts, _ = np.histogram(output[output != 0], bins=51, range=layer.edges)
        assert np.abs(np.array(layer.counts) - counts).sum() <= 2  # float32 and float64 may part at an edge
        assert sum(layer.counts) == (output != 0).sum()
    assert [(layer.name, layer.kind, layer.shape) for layer in found] == [("1", "Tanh", (9,)), ("3", "ReLU", (9,))]
    assert found[0].edges == (-1, 1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_and_unused_layers_are_measured_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    layers = measure(model, torch.randn(8, 4), lambda logits, last: logits.sum())
    assert all(layer.grad_std > 0 for layer in layers)
    first_only = measure(model, torch.randn(8, 4), lambda logits, last: last.sum() * 0 + logits.sum() * 0)
    assert all(layer.grad_norm == 0 for layer in first_only)
    assert [finding.word for finding in find_problems(first_only, residual=False, examples=8)] == ["no gradient"]


HEALTHY = Layer("a", "ReLU", (8,), 0.0, 1.0, None, 0.5, 0.5, 0.0, 1.0, 1.0, (1.0,), (0.0, 1.0))


def chain(stds, norms=None, **changes):
    norms = norms or [1.0] * len(stds)
    return [
        replace(HEALTHY, name=str(i), std=s, grad_norm=n, **changes)
        for i, (s, n) in enumerate(zip(stds, norms, strict=True))
    ]


def found(layers, *, residual=False, examples=256):
    return [(finding.word, finding.severity) for finding in find_problems(layers, residual=residual, examples=examples)]


def geometric(factor, count):
    return [factor**i for i in range(count)]


def test_gains_are_judged_per_layer_more_strictly_from_four_layers_on_and_in_all():
    assert found(chain(geometric(0.76, 5))) == []
    assert found(chain(geometric(0.74, 5))) == [("shrinking activations", "warning")]
    assert found(chain(geometric(1.32, 5))) == []
    assert found(chain(geometric(1.34, 5))) == [("exploding activations", "warning")]
    assert found(chain(geometric(0.5, 3))) == []
    assert found(chain([1.0, 0.34])) == []
    assert found(chain([1.0, 0.32])) == [("shrinking activations", "warning")]
    assert found(chain([1.0, 2.9])) == []
    assert found(chain([1.0, 3.1])) == [("exploding activations", "warning")]
    assert found(chain([1.0] * 3, geometric(2.0, 3))) == []
    assert found(chain([1.0] * 3, geometric(3.1, 3))) == [("vanishing gradient", "warning")]
    assert found(chain([1.0, 10.5])) == [("exploding activations", "warning")]
    assert found(chain([1.0, 1001.0])) == [("exploding activations", "error")]
    assert found(chain([1.0] * 4, geometric(1.5, 4))) == [("vanishing gradient", "warning")]
    assert found(chain([1.0] * 4, geometric(0.6, 4))) == [("exploding gradient", "warning")]


def test_gains_of_residual_models_are_hints():
    assert found(chain(geometric(1.5, 5)), residual=True) == [("exploding activations", "hint")]


def test_gains_compare_only_layers_of_one_kind():
    assert found([*chain([1.0, 1.0]), *chain([20.0, 20.0], shape=(3, 4, 4))]) == []
    assert found([*chain([1.0, 1.0]), *chain([20.0, 20.0], kind="Tanh")]) == []


@pytest.mark.parametrize(
    ("changes", "examples", "expected"),
    [
        ({"saturated": 0.09}, 256, []),
        ({"saturated": 0.11}, 256, [("saturated", "hint")]),
        ({"saturated": 0.26}, 256, [("saturated", "warning")]),
        ({"dead": 0.9}, 2047, []),
        ({"dead": 0.06}, 2048, [("dead units", "hint")]),
        ({"dead": 0.11}, 2048, [("dead units", "warning")]),
        ({"std": math.nan}, 256, [("not finite", "error")]),
        ({"grad_norm": math.inf}, 256, [("not finite", "error")]),
    ],
)
def test_one_layer_is_enough_for_a_verdict(changes, examples, expected):
    layers = chain([1.0, 1.0, 1.0])
    layers[1] = replace(layers[1], **changes)
    assert found(layers, examples=examples) == expected


def test_a_collapsed_layer_is_found_across_kinds():
    assert ("collapsed", "warning") in found([*chain([1.0]), *chain([0.099], kind="Tanh")])
    assert found([*chain([1.0]), *chain([0.101], kind="Tanh")]) == []
    assert ("collapsed", "error") in found(chain([0.0, 0.0]))


def test_a_report_leaves_a_run_folder(tmp_path, capfd):
    folder = tmp_path / "run"
    content = report(folder, *SIX, "task.activation=[tanh,relu]", "task.init=[xavier,small_normal]", "task.examples=64")
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "overrides.yaml", "environment.json", "report.png", "depth.png"} <= names
    assert not any("tfevents" in name for name in names)  # else TensorBoard would list it among the trainings
    assert (result(folder)["status"], result(folder)["exit"], result(folder)["test_reads"]) == ("done", 0, 0)
    assert content["schema"] == 1 and len(content["cases"]) == 4
    assert [layer["name"] for layer in content["cases"][0]["layers"]] == [f"hidden.fc{i}.act" for i in range(1, 7)]
    out = capfd.readouterr().out
    assert "relu, small_normal: collapsed" in out and "all cases" in out and "hidden.fc6.act" in out


def test_each_block_of_a_narrow_table_names_its_cases_and_no_column_is_empty(tmp_path, capfd, monkeypatch):
    def narrow(stream=None, make=rich_console.make_console):
        console = make(stream)
        console.width = 60
        return console

    monkeypatch.setattr(rich_console, "make_console", narrow)
    report(tmp_path / "run", *SIX, "task.init=[xavier,small_normal]", "task.examples=64")
    out = capfd.readouterr().out
    assert "saturated" not in out and "dead" in out
    blocks = [block for block in re.split(r"\n *\n", out.partition("all cases")[2]) if "──" in block]
    assert len(blocks) == 2 and all("relu" in block and "small_normal" in block for block in blocks)


def test_a_report_is_in_tensorboard_on_request(tmp_path):
    words = ("task.activation=[tanh,relu]", "task.init=[xavier,small_normal]", "task.examples=64")
    report(tmp_path / "run", *SIX, *words, "task.tensorboard=true")
    logged = events(tmp_path / "run")
    assert {tag for step, tag, _ in logged if step == 0} == {
        *("init_report/report", "init_report/depth", "init_report/verdicts", "config")
    }
    for what in ("mean", "std", "saturated", "zero", "dead", "grad_std", "activations"):
        assert [step for step, tag, _ in logged if tag == f"init_report/tanh_xavier/{what}"] == [1, 2, 3, 4, 5, 6]
    assert not any(tag == "init_report/relu_xavier/saturated" for _, tag, _ in logged)


def test_tensorboard_counts_every_output_the_zeros_too(tmp_path):
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_ndarray

    report(tmp_path / "run", *SIX, "task.examples=64", "task.tensorboard=true")
    values = [Summary.Value.FromString(raw) for _, tag, raw in events(tmp_path / "run") if tag.endswith("/activations")]
    assert len(values) == 6
    for value in values:
        left, right, count = make_ndarray(value.tensor).T
        assert count.sum() == pytest.approx(64 * 32)
        assert np.all(np.diff(left) >= 0) and np.all(right >= left)


def test_the_configs_own_option_keeps_the_knobs_that_were_set(tmp_path):
    given = [*SIX, "init=normal", "init.std=0.3", "task.examples=32"]
    own = report(tmp_path / "own", *given)
    assert own["cases"][0]["init"] == "normal std=0.3"
    named = by_name(report(tmp_path / "named", *given, "task.init=[xavier,normal]"))
    assert named["relu normal std=0.3"] == own["cases"][0]
    assert named["relu xavier"]["init"] == "xavier"


def test_real_examples_give_the_same_report_twice_and_their_number_does_not_scale_gradients(tmp_path):
    first = report(tmp_path / "a", *SIX, "task.examples=200", "regularizer=[dropout]")
    assert report(tmp_path / "b", *SIX, "task.examples=200", "regularizer=[dropout]") == first
    few, many = (report(tmp_path / str(n), *SIX, f"task.examples={n}") for n in (300, 1200))
    for one, other in zip(few["cases"][0]["layers"], many["cases"][0]["layers"], strict=True):
        assert one["grad_std"] == pytest.approx(other["grad_std"], rel=0.2)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["task.activation=[thanh]"], "task.activation[0]: unknown option 'thanh'; did you mean 'tanh'?"),
        (["task.init=[xavier,kaming]"], "task.init[1]: unknown option 'kaming'; did you mean 'kaiming'?"),
        (["task.init=[{name: normal, st: 1}]"], "task.init[0].st: unknown key 'st'; did you mean 'std'?"),
        (["task.init=[{name: normal, std: -1}]"], "task.init[0].std: got -1, must be >= 0"),
        (["task.init=[{std: 1}]"], "task.init[0]: has no name"),
        (["task.init=[xavier,xavier]"], "task.init[1]: 'xavier' is given twice"),
        (["task.examples=1"], "task.examples: got 1, must be >= 2"),
        (["task.activation=[]"], "task.activation: got [], must be a list of options"),
        (["model=linear"], "model=linear: has no activation that task=init_report could show"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(tmp_path, monkeypatch, overrides, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        start(job("task=init_report", *overrides))
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_sweep_gives_a_report_each(tmp_path):
    done = command("-m", "task=init_report", "model=mlp", "norm=none", "init=xavier,kaiming", "sweep=s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "outputs" / "sweeps" / "s").glob("*/report.json"))
    assert [json.loads(path.read_text())["cases"][0]["init"] for path in folders] == ["kaiming", "xavier"]


def test_a_deep_model_shows_first_and_last_layer_of_eight():
    assert evenly_spaced(5, 8) == [0, 1, 2, 3, 4]
    places = evenly_spaced(40, 8)
    assert places[0] == 0 and places[-1] == 39 and len(set(places)) == 8
    layers = chain([1.0] * 40)
    assert histogram_figure([Case("relu", "kaiming", layers, [])]).draw().startswith(b"\x89PNG")
    broken = chain([math.nan, math.inf])
    assert histogram_figure([Case("relu", "kaiming", broken, find_problems(broken, residual=False, examples=1))]).draw()
