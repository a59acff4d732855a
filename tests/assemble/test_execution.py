"""Execution settings: each has an effect or is rejected; parameter names stay, and results differ by rounding only."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from running import MLP, job
from small_runs import RecordedRows, build, config, interrupted, results_after, small, train_to, uninterrupted
from torch import nn

from runner.assemble import assemble, execution
from runner.assemble.execution import compiling_pays, count_flops, resolve
from runner.assemble.learner import describe_host_syncs
from runner.components.optim.muon import orthogonalized
from runner.engine import forward
from runner.engine.learner import match_memory_format, strides
from runner.engine.logs.log import Log
from runner.errors import ConfigError
from runner.tasks import start

CONVOLUTIONS = {"model": "resnet", "data.batch_size": 16, "steps": 4}


@pytest.fixture
def quick(monkeypatch):
    """Compile as far as autograd's graphs and run these as they are: a second instead of half a minute."""
    monkeypatch.setattr(forward, "BACKEND", "aot_eager")
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch._dynamo.utils.counters["stats"]


@pytest.fixture
def cuda(monkeypatch):
    """A device that is asked only what it can do."""
    told = SimpleNamespace(bf16=True, capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: told.bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: told.capability)
    return told


def settled(device="cpu", **changes):
    settings = assemble(config(small({}))).settings
    given = {"precision": "auto", "memory_format": "auto", "compile": "auto", "cuda_graphs": False}
    return resolve(settings._replace(**(given | changes)), torch.device(device))


# What auto means


def test_auto_on_a_cpu_is_fp32_channels_last_and_never_compiled():
    found = settled()
    assert (found.precision, found.memory_format, found.compile) == ("fp32", "channels_last", False)


def test_auto_on_a_gpu_is_bf16_where_it_has_it_and_channels_last_with_half_precision(cuda):
    found = settled("cuda")
    assert (found.precision, found.memory_format, found.compile) == ("bf16", "channels_last", "auto")
    assert settled("cuda", precision="fp32").memory_format == "contiguous"
    cuda.bf16 = False
    assert (settled("cuda").precision, settled("cuda").memory_format) == ("fp32", "contiguous")


def test_compile_is_refused_or_by_auto_left_out_where_torch_cannot(cuda, monkeypatch):
    cuda.capability = (6, 1)
    assert settled("cuda").compile is False
    with pytest.raises(ConfigError, match="of compute capability"):
        settled("cuda", compile=True)
    cuda.capability = (7, 0)
    monkeypatch.setattr(execution, "find_spec", lambda name: None)
    assert settled("cuda").compile is False
    with pytest.raises(ConfigError, match="needs triton"):
        settled("cuda", compile=True)


def test_compile_without_a_compiler_is_refused_in_one_line_and_auto_does_without(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError) as refusal:
        start(job(*MLP, "compile=true", f"hydra.run.dir={tmp_path / 'run'}"))
    assert str(refusal.value) == (
        "compile: got true, but torch.compile needs a C++ compiler (no-such-compiler), which this machine lacks; "
        "set compile=false"
    )
    assert not (tmp_path / "run").exists()
    assert not assemble(config(small({}))).recipe.compiled


def test_operations_are_counted_as_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 10))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert count_flops(model, (3, 6, 6)) == 2 * (3 * 9 * 8 * 36) + 2 * (8 * 36 * 10)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_auto_compiles_long_runs_of_large_models_only():
    from torchvision.models import resnet18

    model = resnet18()
    assert compiling_pays(model, (3, 224, 224), 256, 90 * 5000)  # ImageNet
    assert not compiling_pays(model, (3, 224, 224), 256, 100)
    assert not compiling_pays(nn.Linear(10, 10), (10,), 64, 10_000)


# Memory format


def test_channels_last_reaches_kernels_maps_gradients_averages_and_optimizer():
    experiment = build({**CONVOLUTIONS, "memory_format": "channels_last", "average": "ema"})
    learner = experiment.learner
    seen = []
    for module in learner.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.append(out))
    results_after(experiment, 2)
    kernels = [p for model in (learner.model, learner.average.module) for p in model.parameters() if p.ndim == 4]
    kernels += [t for held in learner.optimizer.state.values() for t in held.values() if t is not None and t.ndim == 4]
    kernels += [p.grad for p in learner.model.parameters() if p.ndim == 4]
    assert len(kernels) > 20 and len(seen) > 10
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in [*kernels, *seen])
    assert any("channels_last" in line for line in experiment.summary)


def test_the_memory_format_changes_the_order_of_sums_and_nothing_else():
    found = {}
    for layout in ("contiguous", "channels_last"):
        experiment, left = uninterrupted({**CONVOLUTIONS, "memory_format": layout, "optim": "sgd"}, 2)
        found[layout] = experiment.learner.state_dict()["model"], left
    (one, first), (other, second) = found.values()
    assert one.keys() == other.keys() and first.tags == second.tags
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert first.state != second.state


@pytest.mark.parametrize("optim", ["momentum", "adamw", "muon"])
def test_a_run_goes_on_in_another_memory_format_than_it_began_in(optim):
    """Torch's fused optimizers on the CPU mix up elements of weights and state whose layouts differ."""
    given = {**CONVOLUTIONS, "optim": optim, "memory_format": "contiguous"}
    whole, _ = uninterrupted(given, 2)
    began = copy.deepcopy(whole.learner.state_dict())  # parts of it are the learner's own tensors
    went_on = build({**given, "memory_format": "channels_last"})
    went_on.learner.load_state_dict(began, whole.learner.weights())
    for held in went_on.learner.optimizer.state.items():
        assert all(
            strides(t) == strides(held[0]) for t in held[1].values() if t is not None and t.shape == held[0].shape
        )
    before = copy.deepcopy(whole.learner.model.state_dict())
    for experiment in (whole, went_on):
        train_to(experiment, 3, Log(screens=[]))
    moved = {name: (t - before[name]).norm() for name, t in whole.learner.model.named_parameters()}
    for (name, one), other in zip(
        whole.learner.model.named_parameters(), went_on.learner.model.parameters(), strict=True
    ):
        assert (one - other).norm() <= 0.02 * moved[name], name


def test_layouts_of_scalars_and_of_equal_strides_are_left():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    held = dict(optimizer.state[weight])
    match_memory_format(optimizer)
    assert all(optimizer.state[weight][name] is held[name] for name in held)


def test_how_a_run_computes_may_change_where_it_goes_on(tmp_path):
    folder = tmp_path / "run"
    assert start(job("model=cnn", "epochs=1", "figures=never", f"hydra.run.dir={folder}")) == 0
    for words in (f"resume={folder}", f"task=evaluate run={folder}"):
        assert start(job(*words.split(), "memory_format=contiguous", "compile=false", "cuda_graphs=false")) == 0


# Optimizers


def test_orthogonal_steps_are_the_same_in_both_memory_formats_and_lie_as_the_kernels():
    kernels = [torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3), torch.randn(8, 5, 1, 1), torch.randn(7, 9)]
    laid = [k.to(memory_format=torch.channels_last) if k.ndim == 4 else k for k in kernels]
    one, other = orthogonalized(kernels, 5), orthogonalized(laid, 5)
    torch.testing.assert_close(one, other)
    assert [t.stride() for t in one] == [t.stride() for t in kernels]
    assert [t.stride() for t in other[:2]] == [t.stride() for t in laid[:2]]


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw", "momentum", "nesterov", "sgd"])
def test_where_torch_has_a_fused_step_it_is_taken(name):
    assert all(group["fused"] for group in build(small({"optim": name})).learner.optimizer.param_groups)


@pytest.mark.parametrize("name", ["adamax", "nadam", "rmsprop"])
def test_without_a_fused_step_small_models_are_stepped_together(name):
    groups = {hidden: build(small({"optim": name, "model.hidden": hidden})) for hidden in ((16,), (2048, 2048))}
    first, second = ([g["foreach"] for g in made.learner.optimizer.param_groups] for made in groups.values())
    assert set(first) == {True} and set(second) == {None}


# Compiling


LEARNS = small(
    {"model": "cnn", "data": "synthetic", "data.kind": "shapes", "data.size": 16, "data.train": 40, "norm": "batch"}
)


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_compiled_run_has_the_same_names_and_nearly_the_same_numbers(quick, average):
    """Three steps make an epoch: two of 16 images and one of 8; probes listen at steps 1, 2, 4 and 6."""
    probes = {"probe": ["activations", "confusion"], "probe.activations.every": 2, "probe.confusion.every": 4}
    given = {**LEARNS, **probes, "average": average, "regularizer": ["l2"], "clip": 1.0}
    experiment, plain = uninterrupted(given, 6)
    other, fast = uninterrupted({**given, "compile": True}, 6)
    assert quick["unique_graphs"] == 1  # neither the short batch nor what is listened to nor evaluation is compiled
    assert fast.tags == plain.tags and fast.state.keys() == plain.state.keys()
    assert not any("_orig_mod" in name or "module." in name for name in fast.state)
    assert other.recipe.compiled and not experiment.recipe.compiled
    torch.testing.assert_close(
        other.learner.model.state_dict(), experiment.learner.model.state_dict(), rtol=1e-3, atol=1e-5
    )
    assert "computes with channels_last, compiled" in other.summary


def test_what_thaws_is_trained_by_the_compiled_forward_too(quick):
    rules = [{"match": "block", "active": ["2steps", "4steps"]}]
    given = {**LEARNS, "optim.rules": rules, "average": "none"}
    plain, _ = uninterrupted(given, 6)
    other, _ = uninterrupted({**given, "compile": True}, 6)
    torch.testing.assert_close(other.learner.model.state_dict(), plain.learner.model.state_dict(), rtol=1e-3, atol=1e-5)


def test_dropout_and_accumulation_are_compiled_too_and_resume_bit_for_bit(quick, tmp_path):
    given = {**LEARNS, "regularizer": ["dropout"], "predict": "mc_dropout", "average": "ema", "compile": True}
    given |= {"accumulate": 2, "data.batch_size": 8, "precision": "bf16"}
    _, whole = uninterrupted(given, 5)
    assert quick["unique_graphs"] >= 1
    assert interrupted(given, 2, 5, tmp_path).state == whole.state


def failing(monkeypatch):
    def backend(graph, inputs):
        raise NotImplementedError("no such operation\nand more")

    monkeypatch.setattr(forward, "BACKEND", backend)


def test_what_torch_cannot_compile_is_refused_in_one_line(quick, monkeypatch):
    failing(monkeypatch)
    with pytest.raises(ConfigError) as refusal:
        uninterrupted({**LEARNS, "compile": True}, 2)
    words = str(refusal.value)
    assert words.startswith("compile: torch cannot compile this model (") and "\n" not in words
    assert "no such operation" in words and words.endswith("compile=false trains without it")


def test_auto_goes_on_without_compiling_what_torch_cannot(quick, monkeypatch):
    failing(monkeypatch)
    _, plain = uninterrupted(LEARNS, 3)
    experiment = build(LEARNS)
    model = experiment.learner.model
    on_failure = forward.warn_and_use_plain_forward("compile=auto: it cannot")
    given = forward.FastForward(model, forward.compiled, examples=16, on_failure=on_failure)
    experiment = replace(experiment, recipe=replace(experiment.recipe, forward=given))
    with pytest.warns(UserWarning, match="compile=auto: it cannot .*no such operation.*: the run trains without it"):
        left = results_after(experiment, 3)
    assert left.state == plain.state


@pytest.mark.slow
def test_a_run_through_the_real_compiler_is_nearly_the_same_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    """About a minute on two cores."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    given = {**LEARNS, "steps": 6}
    experiment, _ = uninterrupted(given, 6)
    other, whole = uninterrupted({**given, "compile": True}, 6)
    torch.testing.assert_close(
        other.learner.model.state_dict(), experiment.learner.model.state_dict(), rtol=1e-3, atol=1e-5
    )
    assert interrupted({**given, "compile": True}, 4, 6, tmp_path).state == whole.state


# On a GPU


THAWS = {"optim.rules": [{"match": "block", "active": ["3steps", "6steps"]}]}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("changed", [{}, {"precision": "fp32"}, {"precision": "fp16"}, {"compile": True}, THAWS])
def test_cuda_graphs_give_the_losses_of_the_plain_forward(changed):
    given = {**LEARNS, "device": "cuda", "average": "ema", "optim": "sgd", **changed}
    rows = []
    for graphs in (False, True):
        experiment, kept = build({**given, "cuda_graphs": graphs}), RecordedRows()
        train_to(experiment, 9, Log(screens=[kept]))
        rows.append([float(value) for _, tag, value in kept if tag == "train/loss"])
        assert all(torch.isfinite(t).all() for t in experiment.learner.weights().values())
    assert rows[1] == pytest.approx(rows[0], rel=0.05)


@pytest.mark.parametrize(
    ("optim", "said"),
    [
        ("adam", []),
        ("lion", ["Lion has no fused step: the host waits for cuda in each step, to check that all is finite"]),
        ("muon", ["Muon has no fused step: the host waits for cuda in each step, to check that all is finite"]),
    ],
)
def test_the_summary_names_an_optimizer_without_a_fused_step_on_a_gpu_only(optim, said):
    made = build(small({"optim": optim}))
    assert describe_host_syncs(made.learner, torch.device("cuda:0")) == said
    assert describe_host_syncs(made.learner, torch.device("cpu")) == []
    assert not any("waits" in line for line in made.summary)
