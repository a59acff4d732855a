"""Features before the head, computed once: the same run as without, fewer forward passes, and a reason where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import RecordedRows, as_bits, build, checkpoint_content, small
from test_transfer import PICTURES, model_choices, weights_of
from torch import nn

from runner.assemble import Experiment, caching
from runner.engine.feature_cache import FeatureCache, NoCache
from runner.engine.head_features import sample_inputs, why_not_cached
from runner.engine.logs.log import Log
from runner.engine.saving import checkpoint
from runner.engine.train import train
from runner.tasks.restore import restore_snapshot

STEPS = 12
OPTIONS: dict[str, dict[str, Any]] = {
    "feature_extraction": {},
    "lp_ft": {"transfer.probe": "7steps"},
    "staged": {"transfer.head_for": "5steps", "transfer.all_from": "9steps"},
}


def choices(model: str, transfer: str, **more: Any) -> dict[str, Any]:
    base = {"init_from": weights_of(model), "transfer": transfer, "steps": STEPS, "optim.lr": 0.05, "log_every": 1}
    return small({"validate_every": "3steps", **model_choices(model), **base, **OPTIONS[transfer], **more})


def trained(
    given: dict[str, Any], until: int = STEPS, experiment: Experiment | None = None
) -> tuple[Any, RecordedRows]:
    """Train as a run does, and return the experiment with the rows of its log."""
    experiment, rows = experiment or build(given), RecordedRows()
    log = Log(screens=[rows])
    run_to(experiment, until, log)
    return experiment, rows


def run_to(experiment: Experiment, until: int, log: Log) -> None:
    parts = (experiment.recipe, experiment.learner, experiment.batches, experiment.validation)
    recipe, *others = experiment.features.parts(*parts)
    train(replace(recipe, total_steps=until), *others, log, lambda: None)
    log.positions()


def scores(rows: RecordedRows) -> dict[tuple[int, str], float]:
    return {(step, tag): float(value) for step, tag, value in rows if tag.startswith(("train/loss", "val/"))}


@pytest.mark.parametrize("transfer", OPTIONS)
@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "resnet9", "patch_cnn", "vit"])
def test_a_cached_run_is_the_uncached_one(model: str, transfer: str) -> None:
    cached, rows = trained(choices(model, transfer))
    plain, expected = trained(choices(model, transfer, **{"transfer.cache": "never"}))
    assert isinstance(cached.features, FeatureCache) and type(plain.features) is NoCache
    assert scores(rows) == pytest.approx(scores(expected), abs=1e-6, rel=1e-5)
    before = build(choices(model, transfer)).learner.model.state_dict()
    for name, tensor in plain.learner.model.state_dict().items():
        torch.testing.assert_close(cached.learner.model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(before[name], t) for name, t in plain.learner.model.state_dict().items())


@pytest.mark.parametrize(
    "more",
    [{"accumulate": 2}, {"average": "ema"}, {"precision": "bf16"}, {"regularizer": ["l2"]}, {"predict": "tta"}],
    ids=str,
)
def test_the_cache_goes_with_other_parts(more: dict[str, Any]) -> None:
    cached, rows = trained(choices("resnet", "lp_ft", **more))
    _, expected = trained(choices("resnet", "lp_ft", **{"transfer.cache": "never"}, **more))
    assert isinstance(cached.features, FeatureCache)
    close = 2e-2 if "precision" in more else 1e-5
    assert scores(rows) == pytest.approx(scores(expected), abs=close, rel=close)


def count_calls(experiment: Experiment) -> list[int]:
    """Return a list that gets the number of examples of each call of the first layer."""
    calls: list[int] = []
    first = next(m for m in experiment.learner.model.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, out: calls.append(len(inputs[0])))
    return calls


def test_the_body_runs_once_per_example_while_the_head_is_trained_alone() -> None:
    given = choices("resnet", "feature_extraction", average="none")
    experiment = build(given)
    calls, examples = count_calls(experiment), len(experiment.batches.split.labels)
    validated = len(experiment.validation["val"].split.labels)
    trained(given, experiment=experiment)
    assert sum(calls) == examples + validated


def test_a_step_that_a_probe_looks_at_runs_the_whole_model() -> None:
    more = {"probe": ["activations", "images"], "probe.activations.every": 4, "probe.images.every": 4}
    _, rows = trained(choices("resnet", "feature_extraction", **more))
    _, expected = trained(choices("resnet", "feature_extraction", **more, **{"transfer.cache": "never"}))
    assert [row[:2] for row in rows if "time/" not in row[1]] == [row[:2] for row in expected if "time/" not in row[1]]
    assert [row for row in rows if row[1] == "images"] == [row for row in expected if row[1] == "images"]


@pytest.mark.parametrize("at", [2, 7, 9])
@pytest.mark.parametrize("optim", ["momentum", "adamw"])
def test_a_cached_run_resumes_bit_for_bit_in_each_phase(at: int, optim: str, tmp_path: Path) -> None:
    given = choices("resnet", "lp_ft", optim=optim, average="ema", validate_every="1steps")
    whole, _ = trained(given)
    experiment, _ = trained(given, at)
    saved = {"learner": experiment.learner.state_dict(), "log": {}}
    checkpoint.save(tmp_path, at, experiment.learner.weights(), saved, logs={}, meta={}, keep=[])
    resumed = build(given, fit=False)
    restore_snapshot(resumed.learner, checkpoint.load(tmp_path))
    run_to(resumed, STEPS, Log(screens=[]))
    assert checkpoint_content(resumed) == checkpoint_content(whole)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"augment": ["crop"]}, "augment=[crop] is random; augment=[] computes them once"),
        ({"mix": "mixup"}, "mix=mixup mixes the images; mix=none computes them once"),
        ({"regularizer": ["dropout"]}, "the model draws random numbers before its head (dropout or the like)"),
    ],
)
def test_what_is_random_before_the_head_is_not_cached_and_a_line_says_why(more: dict[str, Any], says: str) -> None:
    experiment = build(choices("resnet", "feature_extraction", **more))
    assert type(experiment.features) is NoCache
    assert experiment.features.line == f"features before the head are not cached: {says}"


def test_features_beyond_the_free_memory_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "place_for", lambda size, device: None)
    experiment = build(choices("resnet", "feature_extraction"))
    assert type(experiment.features) is NoCache
    assert experiment.features.line.endswith("are more than a quarter of the free memory")


class Twice(nn.Module):
    """A model that computes more than its head at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.head(self.body(x.flatten(1)))


def check(model: nn.Module, head: str) -> Any:
    from contextlib import nullcontext

    before = {name: as_bits(t) for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    found = why_not_cached(model, head, sample_inputs((2, 2, 2), torch.device("cpu")), nullcontext)
    assert {name: as_bits(t) for name, t in model.state_dict().items()} == before
    assert torch.equal(torch.get_rng_state(), state)
    return found


def test_a_check_of_the_head_sees_what_else_the_model_does_and_leaves_no_trace() -> None:
    assert check(Twice(), "head") == "the model computes more than its head after it"
    norm = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert check(norm, "3") == "the model has buffers that change in training"
    zeros = Twice()
    nn.init.zeros_(zeros.head.weight), nn.init.zeros_(zeros.head.bias)
    assert check(zeros, "head") == "the model computes more than its head after it", "zeros hide nothing"
    plain = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh())
    assert check(plain, "3") == (torch.Size([4]), 16)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["squeezenet1_1", "vgg11", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"])
def test_models_of_torchvision_are_cached_where_nothing_is_random(arch: str) -> None:
    random = {"vgg11", "mobilenet_v3_small", "squeezenet1_1", "swin_t"}
    given = {"model": "torchvision", "model.arch": arch, "model.swap": [], **PICTURES}
    first = build(small(given)).learner.model
    path = Path(weights_of("mlp")).with_name(f"{arch}.pt")
    torch.save({name: t for name, t in first.state_dict().items() if not name.startswith(("fc", "classifier"))}, path)
    experiment = build(small({**given, "init_from": str(path), "transfer": "feature_extraction", "steps": 4}))
    assert isinstance(experiment.features, FeatureCache) == (arch not in random), experiment.features.line
