"""Transfer: frozen stages stay bit for bit, rates are those of the formulas and of timm, and inputs look the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from running import MLP, job
from small_runs import as_bits, build, small
from torch import nn

from runner.__main__ import main
from runner.assemble import Experiment, assemble
from runner.assemble.normalization import load_statistics
from runner.assemble.published_weights import _statistics
from runner.assemble.read_weights import InitialWeights, _standardized
from runner.assemble.transfer import StagePlans, plan_stages
from runner.components.model.stages import Stage, stages
from runner.components.optim.groups import Groups
from runner.engine.clock import Clock
from runner.engine.schedules import Freezing
from runner.engine.stage_plan import StagePlan, Transfer
from runner.engine.state_dict import StateDict
from runner.engine.train import update
from runner.errors import ConfigError
from runner.registry import build as build_component
from runner.registry import names

STEPS = 4
PICTURES = {"data": "synthetic", "data.kind": "shapes", "data.size": 32, "data.train": 64, "data.classes": 5}
LARGE = ("vgg", "torchvision", "timm")
OPTIONS: dict[str, dict[str, Any]] = {
    "feature_extraction": {},
    "fine_tune": {},
    "layerwise": {},
    "partial": {"transfer.trained": 2},
    "staged": {"transfer.head_for": "1steps", "transfer.all_from": "3steps"},
    "lp_ft": {"transfer.probe": "2steps"},
}
# (number of stages below this one, stages below the head, steps done before) -> whether it is trained then
TRAINED: dict[str, Callable[[int, int, int], bool]] = {
    "feature_extraction": lambda number, body, step: number == body,
    "fine_tune": lambda number, body, step: True,
    "layerwise": lambda number, body, step: True,
    "partial": lambda number, body, step: number >= body - 1,
    "staged": lambda number, body, step: (
        number == body or step >= 1 + round(2 * (body - 1 - number) / max(1, body - 1))
    ),
    "lp_ft": lambda number, body, step: number == body or step >= 2,
}


def model_choices(model: str) -> dict[str, Any]:
    more: dict[str, Any] = {"model.arch": "resnet18", "model.swap": []} if model == "timm" else {}
    return {"model": model, **(PICTURES if model in LARGE else {}), **more}


@cache
def weights_of(model: str) -> str:
    """Return a file of weights for a model, with statistics of its own and a classifier of three classes."""
    found = build(small({**model_choices(model), "seed": 5})).learner.model
    head = stages(found)[-1].parameters
    generator = torch.Generator().manual_seed(0)
    tensors = {name: tensor.clone() for name, tensor in found.state_dict().items()}
    for name in tensors:
        if "running" in name:
            tensors[name] += torch.rand(tensors[name].shape, generator=generator)
        if name in head:
            tensors[name] = tensors[name][:3]
    path = Path(mkdtemp()) / f"{model}.pt"
    torch.save(tensors, path)
    return str(path)


def built(model: str, transfer: str, **more: Any) -> Experiment:
    if model == "timm":
        pytest.importorskip("timm")
    options = OPTIONS.get(transfer, {})
    base = {"init_from": weights_of(model), "transfer": transfer, "steps": STEPS, "optim.weight_decay": 0.1}
    return build(small({**model_choices(model), **base, **options, **more}))


def stage_states(model: nn.Module, found: list[Stage]) -> list[dict[str, Any]]:
    """Return parameters, and buffers of norms, of each stage bit for bit."""
    state = model.state_dict()
    return [
        {
            name: as_bits(tensor)
            for name, tensor in state.items()
            if name in stage.parameters or name.rpartition(".")[0] in stage.norms
        }
        for stage in found
    ]


MODELS = [name for name in names("model") if name != "linear"]


@pytest.mark.parametrize("transfer", OPTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_frozen_stages_stay_bit_for_bit_and_the_others_move(model: str, transfer: str) -> None:
    experiment = built(model, transfer)
    learner, found = experiment.learner, stages(experiment.learner.model)
    before, norms = stage_states(learner.model, found), sum(len(stage.norms) for stage in found)
    file = torch.load(weights_of(model), weights_only=True)
    loaded = {name: as_bits(tensor) for name, tensor in file.items()}
    for number, state in enumerate(before):
        same = [loaded.get(name) == bits for name, bits in state.items()]
        assert same and (all(same) if number < len(found) - 1 else not any(same)), "only the head is initialized anew"
    for step, (images, labels) in enumerate(experiment.batches.stream(0, STEPS)):
        learner.set_lr()
        update(experiment.recipe, learner, images, labels)
        after = stage_states(learner.model, found)
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if TRAINED[transfer](number, len(found) - 1, step):
                assert old != new, f"{found[number].name} in step {step}"
            else:
                assert old == new, f"{found[number].name} in step {step}"
        before = after
    assert norms or model == "vit", "with statistics to protect"


@pytest.mark.parametrize("model", MODELS)
def test_the_new_head_begins_at_the_loss_of_equal_probabilities(model: str) -> None:
    experiment = built(model, "feature_extraction")
    images, labels = next(experiment.batches.stream(0, 1))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(experiment.learner.model(images), labels)
    assert abs(loss.item() - math.log(len(experiment.classes))) < 0.15


@pytest.mark.parametrize("average", ["ema", "swa", "polyak", "lookahead"])
def test_no_average_moves_a_frozen_stage(average: str) -> None:
    more = {"average.every": 2} if average == "lookahead" else {}
    experiment = built("resnet", "feature_extraction", average=average, **more)
    found = stages(experiment.learner.model)[:-1]
    before = stage_states(experiment.learner.average.module, found)
    for images, labels in experiment.batches.stream(0, STEPS):
        experiment.learner.set_lr()
        update(experiment.recipe, experiment.learner, images, labels)
    assert stage_states(experiment.learner.average.module, found) == before


def test_a_batch_norm_without_parameters_is_frozen_with_its_stage() -> None:
    norm = nn.BatchNorm2d(4, affine=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    plans = StagePlans(tuple(stages(model)), Transfer((StagePlan(first=2), StagePlan())))
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "active": [2, 4]}, {"params": model[-1].parameters()}], lr=0.1
    )
    freezing = Freezing(model, optimizer, followed=plans.norms_without_parameters(model))
    flags = []
    for step in range(4):
        freezing.apply(step)
        flags.append(norm.training)
    assert flags == [False, False, True, True]


def groups_of(model: nn.Module, transfer: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, float]:
    """Return the learning rate of each parameter, at optim.lr=1."""
    config = {"transfer": transfer, "optim": {"name": "sgd"}, "model": {"name": "timm"}, "init": {"name": "kaiming"}}
    rules = plan_stages(config, model, SimpleNamespace(shape=shape), Clock(100, 10, 8)).rules
    groups = Groups(model, rules, None, lr=1.0, weight_decay=0.0, no_decay=[], rules=[]).param_groups()
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in model.named_parameters()}


def test_rates_by_depth_are_those_of_timm() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
    ids = {id(p): name for name, p in model.named_parameters()}
    expected = {
        ids[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.6)
        for p in group["params"]
    }
    transfer = {"name": "layerwise", "lr_factor": 1.0, "layer_decay": 0.6, "normalization": "data"}
    found = groups_of(model, transfer, (3, 32, 32))
    assert found == pytest.approx(expected)
    assert len(set(expected.values())) == 14


def test_a_resnet_decays_once_per_stage() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=10)
    transfer = {"name": "layerwise", "lr_factor": 0.5, "layer_decay": 0.5, "normalization": "data"}
    found = groups_of(model, transfer, (3, 32, 32))
    by_hand = {"conv1": 5, "bn1": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1, "fc": 0}
    assert found == {name: 0.5 * 0.5 ** by_hand[name.split(".")[0]] for name in found}


def rates(experiment: Experiment) -> dict[str, list[float]]:
    """Return the learning rate of the groups of each label, in each step."""
    found: dict[str, list[float]] = {}
    for step in range(experiment.recipe.total_steps):
        experiment.learner.step = step
        experiment.learner.set_lr()
        for group in experiment.learner.optimizer.param_groups:
            if not group["name"].startswith("no_decay"):
                found.setdefault(group["label"], []).append(group["lr"])
    return found


def test_both_phases_of_a_probe_and_its_fine_tuning_go_through_the_schedule() -> None:
    more = {"transfer.probe": "3steps", "transfer.layer_decay": 0.5, "scheduler": "linear", "optim.lr": 0.8}
    found = rates(built("mlp", "lp_ft", steps=9, **more))
    linear = [1 - s / 9 for s in range(9)]
    body = [linear[int(s * 9 / 6)] for s in range(6)]
    assert found["head"] == pytest.approx([0.8 * linear[3 * s] for s in range(3)] + [0.08 * f for f in body])
    assert found["hidden.fc2"] == pytest.approx([0.0] * 3 + [0.04 * f for f in body])
    assert found["hidden.fc1"] == pytest.approx([0.0] * 3 + [0.02 * f for f in body])


def test_a_rule_of_the_user_multiplies_the_rate_of_the_stage() -> None:
    rule = {"match": "fc2.*bias", "lr": 3.0, "weight_decay": 0.0}
    experiment = built("mlp", "layerwise", **{"optim.rules": [rule], "optim.lr": 1.0, "optim.no_decay": []})
    names_by_id = {id(p): name for name, p in experiment.learner.model.named_parameters()}
    found = {
        names_by_id[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in experiment.learner.optimizer.param_groups
        for p in group["params"]
    }
    biases = [value for name, value in found.items() if "fc2" in name and name.endswith("bias")]
    assert biases == [(pytest.approx(2.25), 0.0)] * len(biases) and biases
    assert found["hidden.fc2.linear.weight"] == (0.75, 0.1) and found["head.weight"] == (1.0, 0.1)


def test_stages_that_are_named_are_trained() -> None:
    experiment = built("resnet", "partial", **{"transfer.trained": ["stem", "stage2"]})
    assert [row["stage"] for row in experiment.stages if row["active from"] == "never"] == ["stage1", "stage3"]


def test_the_table_says_what_is_trained_when_and_at_what_rate() -> None:
    experiment = built("mlp", "lp_ft", **{"optim.lr": 0.5, "transfer.layer_decay": 0.5})
    sizes = [sum(p.numel() for p in part.parameters()) for part in experiment.learner.model.hidden]
    assert experiment.stages == [
        {"stage": "hidden.fc1", "parameters": f"{sizes[0]:,}", "lr": "0.0125", "active from": "step 3"},
        {"stage": "hidden.fc2", "parameters": f"{sizes[1]:,}", "lr": "0.025", "active from": "step 3"},
        {"stage": "head", "parameters": "170", "lr": "0.5, then 0.05", "active from": "step 1, anew from 3"},
    ]


@pytest.mark.parametrize(
    ("transfer", "more", "says"),
    [
        ("layerwise", {"transfer.layer_decay": 1.0}, "transfer.layer_decay: got 1, must be less"),
        (
            "partial",
            {"transfer.trained": 3},
            "transfer.trained: got 3, must be < 3, the stages of this model; transfer=fine",
        ),
        (
            "partial",
            {"transfer.trained": ["hidden.fc9"]},
            "transfer.trained: unknown stage 'hidden.fc9'; did you mean 'hid",
        ),
        ("partial", {"transfer.trained": ["hidden.fc1", "hidden.fc2"]}, "transfer.trained: names all stages"),
        ("staged", {"transfer.all_from": "0steps"}, "transfer.all_from: got 0steps, which is step 0; must be inside"),
        (
            "staged",
            {"transfer.head_for": "3steps", "transfer.all_from": "2steps"},
            "must not be before head_for=3steps",
        ),
        (
            "lp_ft",
            {"transfer.probe": "4steps"},
            "transfer.probe: got 4steps, which is step 4; must be inside the run of 4",
        ),
        (
            "lp_ft",
            {"optim.rules": [{"match": "fc1", "until": "2steps"}]},
            "optim.rules.0..active: got .None, '2steps'., but transfer= says when",
        ),
    ],
)
def test_what_cannot_act_is_refused(transfer: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        built("mlp", transfer, **more)


def test_a_model_of_one_stage_is_refused() -> None:
    path = Path(mkdtemp()) / "linear.pt"
    torch.save({"head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}, path)
    with pytest.raises(
        ConfigError, match="transfer: got fine_tune, but model=linear has one stage, the head; transfer=none"
    ):
        build(small({"model": "linear", "init_from": str(path), "transfer": "fine_tune"}))


def test_transfer_without_weights_is_refused_before_anything_is_loaded(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*MLP, "transfer=lp_ft"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "transfer: got lp_ft; requires init_from=<run folder, file of weights, or name of published ones>; "
            "transfer=none trains from random weights"
        )
    )
    assert not any(tmp_path.iterdir())


TINY = (*MLP, "augment=[]", "probe=[]", "steps=4", "validate_every=2steps", "figures=never", "test=never", "device=cpu")


OTHER = ("data=synthetic", "data.kind=shapes", "data.size=8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on other examples."""
    folder = tmp_path_factory.mktemp("source") / "base"
    assert main([*TINY, *OTHER, f"hydra.run.dir={folder}"]) == 0
    return folder


def statistics(*words: str) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in assemble(job(*TINY, *words).config).learner.preprocess.buffers()]


def test_inputs_are_normalized_as_in_the_run_that_trained_the_weights(source: Path) -> None:
    start = f"init_from={source}"
    own, of_source = statistics(), statistics(*OTHER)
    assert not all(map(torch.equal, own, of_source))
    assert all(map(torch.equal, statistics(start, "transfer=fine_tune"), of_source))
    assert all(map(torch.equal, statistics(start, "transfer=fine_tune", "transfer.normalization=data"), own))
    assert all(map(torch.equal, statistics(start), own)), "without transfer as before"
    lines = assemble(job(*TINY, start, "transfer=fine_tune").config).summary
    assert any(f"preprocess=standardize: statistics of {source}; transfer.normalization=data" in line for line in lines)


def test_another_preprocessing_than_the_weights_had_is_refused_with_the_way_out(source: Path) -> None:
    words = (f"init_from={source}", "transfer=fine_tune", "preprocess=scale01")
    with pytest.raises(ConfigError, match=r"got scale01, but .* was trained with standardize; use preprocess="):
        statistics(*words)
    assert statistics(*words, "transfer.normalization=data") == []


def test_published_weights_get_the_normalization_of_torchvision() -> None:
    from torchvision.models import ResNet18_Weights
    from torchvision.transforms.v2 import functional as F

    entry = ResNet18_Weights.IMAGENET1K_V1
    weights = InitialWeights(StateDict(), None, "IMAGENET1K_V1", lambda: _standardized(*_statistics(entry)))
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = {"preprocess": {"name": "standardize"}, "transfer": {"normalization": "checkpoint"}}
    preprocess = build_component("preprocess", config["preprocess"], shape=(3, 8, 8))
    assert load_statistics(preprocess, config, weights)
    transforms = entry.transforms()
    expected = F.normalize(images.float() / 255, transforms.mean, transforms.std)
    torch.testing.assert_close(preprocess(images), expected)
    gray = build_component("preprocess", config["preprocess"], shape=(1, 8, 8))
    assert "the mean of the three colors" in load_statistics(gray, config, weights)[0]
    assert gray.mean.item() == pytest.approx(255 * sum(transforms.mean) / 3)


def test_a_file_that_does_not_say_its_normalization_leaves_that_of_the_data() -> None:
    experiment = built("mlp", "fine_tune")
    own = build(small({"model": "mlp"})).learner.preprocess
    pairs = zip(own.buffers(), experiment.learner.preprocess.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any("statistics of these data" in line and "does not say its own" in line for line in experiment.summary)
