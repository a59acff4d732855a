"""Stages of models: every parameter in exactly one, in the order of the calls; timm's own grouping as oracle."""

from __future__ import annotations

import re

import pytest
from test_model import CIFAR, make, name, seeded, shape_of  # noqa: F401  (fixtures)
from torch import nn

from runner.components.model.stages import Stage, stages
from runner.engine.parts import close_slots, has_running_statistics
from runner.engine.weights import classifiers
from runner.errors import ConfigError

STEM_TO_LAYER4 = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
OWN = {
    "linear": ["head"],
    "mlp": ["hidden.fc1", "hidden.fc2", "head"],
    "cnn": ["block1", "block2", "hidden", "head"],
    "vgg": ["stage1", "stage2", "stage3", "stage4", "stage5", "hidden.fc1", "hidden.fc2", "head"],
    "resnet": ["stem", "stage1", "stage2", "stage3", "head"],
    "wide_resnet": ["stem", "stage1", "stage2", "stage3", "head"],
    "resnet9": ["stem", "stage1", "stage2", "stage3", "head"],
    "patch_cnn": ["stem", "stage1", "stage2", "stage3", "head"],
    "vit": ["embed", *(f"block{i}" for i in range(1, 7)), "head"],
    "torchvision": STEM_TO_LAYER4,
    "timm": STEM_TO_LAYER4,
}
TORCHVISION = {
    "vgg11_bn": ["stem", "features.4", "features.8", "features.15", "features.22", "classifier.0", "classifier.3"],
    "alexnet": ["features.0", "features.3", "features.6", "classifier.1", "classifier.4"],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in range(1, 5))],
    "vit_b_32": ["stem", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))],
    "swin_t": [f"features.{i}" for i in range(8)],
    "convnext_tiny": [f"features.{i}" for i in range(8)],
    "mobilenet_v3_small": [*(f"features.{i}" for i in range(13)), "classifier.0"],
    "densenet121": [
        "stem", "features.denseblock1", "features.transition1", "features.denseblock2", "features.transition2",
        "features.denseblock3", "features.transition3", "features.denseblock4",
    ],
    "squeezenet1_1": [f"features.{i}" for i in (0, 3, 4, 6, 7, 9, 10, 11, 12)],
}  # fmt: skip


def names_of(model, shape=None):
    return [stage.name for stage in stages(model, shape)]


def check_partition(model, shape) -> list[Stage]:
    """Check that parameters and BatchNorms are in one stage each, and that a stage's expression finds its own only."""
    found = stages(model, shape)
    parameters = [each for each, _ in model.named_parameters()]
    norms = [each for each, module in model.named_modules() if has_running_statistics(module)]
    assert sorted(p for stage in found for p in stage.parameters) == sorted(parameters)
    assert sorted(n for stage in found for n in stage.norms) == sorted(norms)
    for stage in found:
        assert [each for each in parameters if re.search(stage.expression, each)] == list(stage.parameters)
        assert stage.parameters and stage.name
    assert len({stage.name for stage in found}) == len(found)
    heads = {f"{head.path}." for head in classifiers(model)}
    assert set(found[-1].parameters) == {each for each in parameters if each.startswith(tuple(heads))}
    return found


def test_each_model_of_the_catalogue_has_its_stages(name):  # noqa: F811
    model, shape = make(name, shape=shape_of(name)), shape_of(name)
    close_slots(model)
    assert [stage.name for stage in check_partition(model, shape)] == OWN[name]
    assert names_of(model) == OWN[name], "in order of definition, too"


@pytest.mark.parametrize(("arch", "expected"), TORCHVISION.items())
def test_torchvision_models_have_the_stages_that_their_code_numbers(arch, expected):
    shape = (3, 64, 64)
    model = make("torchvision", shape=shape, arch=arch, swap=[])
    close_slots(model)
    assert [stage.name for stage in check_partition(model, shape)] == [*expected, "head"]


@pytest.mark.parametrize(("arch", "coarse"), [("resnet18", True), ("vit_tiny_patch16_224", False)])
def test_stages_are_the_groups_of_timm(arch, coarse):
    pytest.importorskip("timm")
    from timm.models import group_parameters

    model = make("timm", shape=(3, 64, 64), arch=arch, swap=[])
    close_slots(model)
    grouped = group_parameters(model, model.group_matcher(coarse=coarse))
    expected = [set(grouped[i]) for i in sorted(grouped)]
    assert [set(stage.parameters) for stage in stages(model, (3, 64, 64))] == expected


def test_stages_follow_the_calls_where_the_code_lists_them_by_kind():
    """pvt and twins define all patch embeddings first; they call one before each group of blocks."""
    pytest.importorskip("timm")
    model = make("timm", shape=(3, 64, 64), arch="twins_pcpvt_small", swap=[])
    close_slots(model)
    assert names_of(model, (3, 64, 64))[:4] == ["patch_embeds.0", "blocks.0", "pos_block.0", "patch_embeds.1"]
    assert names_of(model)[:2] == ["patch_embeds.0", "patch_embeds.1"]


def test_both_classifiers_of_a_distilled_model_are_the_head():
    pytest.importorskip("timm")
    model = make("timm", shape=(3, 64, 64), arch="deit_tiny_distilled_patch16_224", swap=[])
    assert stages(model)[-1].parts == ("head", "head_dist")


def test_a_batch_norm_without_parameters_belongs_to_the_stage_that_it_normalizes():
    norm = nn.BatchNorm2d(4, affine=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert [stage.norms for stage in stages(model, (3, 8, 8))] == [("1",), ()]


def test_a_tied_weight_is_in_the_first_stage_that_holds_it():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))
    model[2].weight = model[0].weight
    found = stages(model)
    # What is left of the second layer has no weight
    assert [stage.parameters for stage in found] == [("0.weight", "0.bias", "2.bias"), ("4.weight", "4.bias")]


def test_a_norm_of_the_inputs_belongs_to_the_first_stage():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert [stage.parts for stage in stages(model, (3, 8, 8))] == [("0", "1"), ("3",)]


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(ConfigError, match="model: got one without a linear layer or a convolution"):
        stages(nn.Sequential(nn.Flatten(), nn.LayerNorm(8)))


def test_grey_images_do_not_change_the_names_of_stages():
    assert names_of(make("torchvision", shape=(1, 8, 8))) == names_of(make("torchvision", shape=CIFAR))
