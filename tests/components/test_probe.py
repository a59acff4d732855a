"""Probes against the difference of the weights, the gradient, and statistics computed by hand."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import probe_values
from torch import nn

import runner.components  # noqa: F401  (registers)
from runner.engine.clipping import clip_value
from runner.engine.contracts import Outcome, Watched
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "probe"


def watched(model: nn.Module, x: torch.Tensor, y: torch.Tensor, step: int) -> Watched:
    return Watched(model, dict(model.named_parameters()), x, y, step)


def probe(name, **changed):
    """Build a probe from its YAML."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())[name]
    return build("probe", {"name": name, **values, **changed})


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 3)
    )


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(3, (16,), generator=generator)


def drive(measure, model, optimizer, *, clip=None, micro=1, step=0):
    """Make one update with a probe round it, as the engine does; return what the probe logs."""
    x, y = batch()
    watch = measure.watch(watched(model, x, y, step))
    next(watch)
    optimizer.zero_grad()
    total = torch.zeros(())
    for part, label in zip(x.chunk(micro), y.chunk(micro), strict=True):
        loss = nn.functional.cross_entropy(model(part), label) / micro
        loss.backward()
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip) if clip else None
    optimizer.step()
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(total, norm))
    return probe_values(end.value.value)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ratio_is_the_real_change_over_the_old_weights(optimizer, clip):
    model = network()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    measure = probe("update_ratio", norm="both")
    for step in range(3):
        old = {n: p.detach().double().clone() for n, p in model.named_parameters()}
        logged = drive(measure, model, optimizer, clip=clip, step=step)
        new = {n: p.detach().double() for n, p in model.named_parameters()}
        weights = [n for n in old if old[n].ndim > 1]
        for order in (1, 2):
            sizes = {n: (new[n] - old[n]).abs().pow(order).sum().item() for n in weights}
            wholes = {n: old[n].abs().pow(order).sum().item() for n in weights}
            for n in weights:
                expected = (sizes[n] / wholes[n]) ** (1 / order)
                assert logged[f"ratio/l{order}/{n}"].item() == pytest.approx(expected, rel=1e-4)
            whole = (sum(sizes.values()) / sum(wholes.values())) ** (1 / order)
            assert logged[f"ratio/l{order}/_global"].item() == pytest.approx(whole, rel=1e-4)
        assert {tag for tag in logged if tag.startswith("ratio/l2/")} == {
            f"ratio/l2/{n}" for n in [*weights, "_global"]
        }
        l2 = logged["ratio/l2/_global"].item()
        assert logged["ratio/log10/_global"].item() == pytest.approx(math.log10(l2), rel=1e-5)


def test_ratio_of_plain_gradient_descent_is_the_learning_rate_times_the_gradient():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    watch = probe("update_ratio").watch(watched(model, torch.zeros(1), torch.zeros(1), 0))
    next(watch)
    model.weight.grad = torch.tensor([[0.6, 0.8]])
    torch.optim.SGD(model.parameters(), lr=0.05).step()
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), None))
    assert probe_values(end.value.value)["ratio/l2/weight"].item() == pytest.approx(0.05 * 1.0 / 5.0, rel=1e-5)


def test_a_tensor_that_was_zero_has_no_ratio_and_the_whole_still_has_one():
    model = network()
    nn.init.zeros_(model[6].weight)
    logged = drive(probe("update_ratio"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "ratio/l2/6.weight" not in logged and "ratio/log10/6.weight" not in logged
    assert logged["ratio/l2/_global"].isfinite() and logged["ratio/l2/4.weight"].isfinite()


def test_frozen_weights_have_no_ratio_and_unmoved_ones_have_zero():
    model = network()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    logged = drive(probe("update_ratio"), model, optimizer)
    assert "ratio/l2/0.weight" not in logged
    assert logged["ratio/l2/6.weight"] == 0 and "ratio/log10/6.weight" not in logged


@pytest.mark.parametrize("clip", [None, 0.01, 1e6])
def test_gradient_norms_are_those_before_clipping(clip):
    model, twin = network(), network()
    logged = drive(probe("grad_norm"), model, torch.optim.SGD(model.parameters(), lr=0.1), clip=clip)
    x, y = batch()
    nn.functional.cross_entropy(twin(x), y).backward()
    squares = {n: p.grad.double().pow(2).sum().item() for n, p in twin.named_parameters()}
    assert logged["grad_norm/_global"].item() == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)
    for name, square in squares.items():
        assert logged[f"grad_norm/{name}"].item() == pytest.approx(square**0.5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("clip", [clip_value(0.01), clip_value(1e6)])
def test_gradient_norms_are_those_before_clipping_of_single_numbers(clip):
    model, twin = network(), network()
    x, y = batch()
    watch = probe("grad_norm").watch(watched(model, x, y, 0))
    next(watch)
    for each in (model, twin):
        nn.functional.cross_entropy(each(x), y).backward()
    norm = clip(model)
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), norm))
    logged = probe_values(end.value.value)
    squares = {n: p.grad.double().pow(2).sum().item() for n, p in twin.named_parameters()}
    assert logged["grad_norm/_global"].item() == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)
    for name, square in squares.items():
        assert logged[f"grad_norm/{name}"].item() == pytest.approx(square**0.5, rel=1e-4, abs=1e-6)


def test_gradient_norms_leave_out_what_has_no_gradient():
    model = network()
    model[0].weight.requires_grad_(False)
    logged = drive(probe("grad_norm"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "grad_norm/0.weight" not in logged and "grad_norm/4.weight" in logged


def test_activations_are_those_of_the_step():
    model = network()
    twin = network()
    x, _ = batch()
    relu = twin[:3](x)
    tanh = twin[:6](x)
    logged = drive(probe("activations"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    expected = {
        "activations/2/mean": relu.mean(),
        "activations/2/std": relu.std(correction=0),
        "activations/2/dead": (relu.amax((0, 2, 3)) == 0).double().mean(),
        "activations/5/mean": tanh.mean(),
        "activations/5/std": tanh.std(correction=0),
        "activations/5/saturated": (tanh.abs() > 0.99).double().mean(),
        "activations/5/dead": torch.zeros(()),
    }
    assert list(logged) == list(expected)
    for tag, value in expected.items():
        assert logged[tag].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), tag


@pytest.mark.parametrize("shape", [(64, 128), (7, 5), (8, 16, 6, 6), (3, 300, 2, 2), (4, 9, 24)], ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_extremes_are_those_of_each_unit_in_every_layout(shape, form):
    from runner.engine.activations import unit_extremes

    output = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output = output.to(memory_format=form) if len(shape) == 4 else output
    unit = 2 if len(shape) == 3 else 1
    by_unit = output.numpy().swapaxes(0, unit).reshape(shape[unit], -1)
    least, most = unit_extremes(output, unit)
    assert least.tolist() == by_unit.min(1).tolist() and most.tolist() == by_unit.max(1).tolist()


def test_dead_units_are_counted():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]]))
        model[0].bias.copy_(torch.tensor([-1.0, -2, 0, 0]))
    watch = probe("activations").watch(watched(model, torch.zeros(1), torch.zeros(1), 0))
    next(watch)
    model(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), None))
    assert probe_values(end.value.value)["activations/1/dead"] == 0.5


def test_activation_hooks_are_gone_after_the_step_and_after_a_failure():
    model = network()
    drive(probe("activations"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    watch = probe("activations").watch(watched(model, *batch(), 0))
    next(watch)
    assert any(m._forward_hooks for m in model.modules())
    watch.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_module_used_twice_is_told_apart_and_micro_batches_are_not_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(self.act(self.act(x.flatten(1)) - 0.5))

    model = Twice()
    logged = drive(probe("activations"), model, torch.optim.SGD(model.parameters(), lr=0.1), micro=4)
    first = batch()[0].chunk(4)[0].flatten(1)
    assert {tag.rsplit("/", 1)[0] for tag in logged} == {"activations/act", "activations/act.call2"}
    assert logged["activations/act/mean"].item() == pytest.approx(first.relu().mean().item(), rel=1e-5)
    again = (first.relu() - 0.5).relu()
    assert logged["activations/act.call2/mean"].item() == pytest.approx(again.mean().item(), rel=1e-5)


def test_images_are_the_batch_as_it_was():
    model = network()
    logged = drive(probe("images", count=5), model, torch.optim.SGD(model.parameters(), lr=0.1))
    torch.testing.assert_close(logged["images/batch"], batch()[0][:5], rtol=0, atol=0)


def test_weight_norms_are_those_after_the_step():
    model = network()
    logged = drive(probe("weight_norm"), model, torch.optim.SGD(model.parameters(), lr=0.1))
    squares = {n: p.detach().double().pow(2).sum().item() for n, p in model.named_parameters()}
    assert logged["weight_norm/_global"].item() == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)
    for name, square in squares.items():
        assert logged[f"weight_norm/{name}"].item() == pytest.approx(square**0.5, rel=1e-5)


def test_histograms_hold_the_values_of_weights_and_gradients():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = drive(probe("histograms", values=10_000), model, optimizer)
    gradients = drive(probe("gradients", values=10_000), model, torch.optim.SGD(model.parameters(), lr=0.0))
    assert set(weights) == {f"weights/{n}" for n, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        assert torch.equal(weights[f"weights/{name}"], p.detach().flatten())
        assert torch.equal(gradients[f"gradients/{name}"], p.grad.flatten())


@pytest.mark.parametrize("shape", [(100, 100), (64, 3, 3, 3), (1000,), (7,), (4096, 2)])
def test_a_sample_is_small_and_leaves_no_column_out(shape):
    from runner.components.probe.parameters import _sample as sample

    numbers = torch.arange(math.prod(shape)).view(shape)
    taken = sample(numbers, 100)
    assert min(numbers.numel(), 40) <= len(taken) <= 100 and len(set(taken.tolist())) == len(taken)
    assert set((taken % shape[-1]).tolist()) == set(range(shape[-1])) or shape[-1] >= 100


def test_filters_are_the_first_layer_after_the_step():
    model = network()
    logged = drive(probe("filters", count=3), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert torch.equal(logged["filters/first_layer"], model[0].weight[:3].detach())
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    logged = drive(probe("filters", count=2), linear, torch.optim.SGD(linear.parameters(), lr=0.1))
    assert torch.equal(logged["filters/first_layer"], linear[1].weight[:2].detach().view(2, 1, 8, 8))


def test_filters_of_a_model_that_reads_no_pixels_are_refused():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="probe=filters"):
        next(probe("filters").watch(watched(model, *batch(), 0)))


@pytest.mark.parametrize("soft", [False, True])
def test_confusion_counts_the_batch(soft):
    from sklearn.metrics import confusion_matrix

    model, (x, y) = network(), batch()
    y = y % 2  # nobody is of class 2
    labels = nn.functional.one_hot(y, 3) * 0.6 + 0.13 if soft else y
    watch = probe("confusion").watch(watched(model, x, labels, 0))
    next(watch)
    printed = torch.cat([model(x[:8]), model(x[8:])]).argmax(1)
    with pytest.raises(StopIteration) as end:
        watch.send(Outcome(torch.zeros(()), None))
    counts = confusion_matrix(y, printed, labels=range(3), normalize="true")
    assert torch.equal(end.value.value["confusion/batch"], torch.tensor(counts * 255).round().to(torch.uint8)[None])
    assert not model._forward_hooks


def test_throughput_is_examples_over_the_time_since_the_last_measurement(monkeypatch):
    from runner.engine import timing

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    measure = probe("throughput")
    found = []
    for step, now in ((0, 100.0), (10, 105.0), (20, 107.0)):
        monkeypatch.setattr(timing, "perf_counter", lambda now=now: now)
        found.append(drive(measure, model, optimizer, step=step))
    assert found[0] == {}
    assert [f["time/milliseconds_per_step"].item() for f in found[1:]] == [500.0, 200.0]
    assert [f["time/images_per_second"].item() for f in found[1:]] == [32.0, 80.0]


def test_memory_is_that_of_the_process():
    logged = drive(probe("memory"), network(), torch.optim.SGD(network().parameters(), lr=0.1))
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells it this way")
    peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert logged["time/memory_host"].item() == pytest.approx(int(peak) / 1024, rel=0.05)


@pytest.mark.parametrize("name", names("probe"))
def test_a_probe_changes_nothing(name):
    plain, probed = network(), network()
    for model, measures in ((plain, "images"), (probed, name)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(2):
            drive(probe(measures), model, optimizer, clip=1.0, step=step)
    for name_, tensor in plain.state_dict().items():
        assert torch.equal(tensor, probed.state_dict()[name_]), name_


@pytest.mark.parametrize("name", names("probe"))
def test_a_probe_yields_once_and_gives_tensors_without_a_graph(name):
    model = network()
    logged = drive(probe(name), model, torch.optim.SGD(model.parameters(), lr=0.1))
    # From the second measurement on, and from two micro-batches on
    assert (logged or name in ("throughput", "gradient_noise")) and all(
        isinstance(v, torch.Tensor) and not v.requires_grad for v in logged.values()
    )
    assert all(v.ndim in (0, 1, 3, 4) for v in logged.values())


@pytest.mark.parametrize("name", sorted(set(names("probe")) - {"filters"}))
def test_a_model_without_weights_or_activations_can_be_watched(name):
    model = nn.Flatten()  # a batch of 64 "logits"
    watch = probe(name).watch(watched(model, *batch(), 0))
    next(watch)
    model(batch()[0])
    with pytest.raises(StopIteration):
        watch.send(Outcome(torch.zeros(()), None))
