"""Models against the papers: parameter counts, and torch's own modules with the same weights."""

import pytest
import torch
from test_model import CIFAR, IMAGENET, batch, make
from torch import nn

from runner.engine.parts import Residual


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


# Parameters. CIFAR kind (arXiv 1512.03385, table 6): 0.27M 0.46M 0.66M 0.85M 1.7M.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_small_image_resnets_have_the_papers_parameters(depth, millions):
    for order in ("post", "pre"):
        parameters = count(make("resnet", shape=CIFAR, depth=depth, order=order)) / 1e6
        assert float(f"{parameters:.2g}") == millions


# arXiv 1605.07146, table 4 (and table 1's form of the network).
@pytest.mark.parametrize(
    ("depth", "widen", "millions"),
    [
        (40, 1, 0.6),
        (40, 2, 2.2),
        (40, 4, 8.9),
        (40, 8, 35.7),
        (28, 10, 36.5),
        (28, 12, 52.5),
        (22, 8, 17.2),
        (16, 8, 11.0),
    ],
)
def test_wide_resnets_have_the_papers_parameters(depth, widen, millions):
    with torch.device("meta"):
        parameters = count(make("wide_resnet", shape=CIFAR, depth=depth, widen=widen)) / 1e6
    assert parameters == pytest.approx(millions, abs=0.06)
    # also the count of the authors' own code
    if (depth, widen) == (28, 10):
        assert parameters == 36.479194


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vggs_have_torchvisions_parameters(depth):
    from torchvision.models import get_model

    with torch.device("meta"):
        ours = make("vgg", shape=IMAGENET, num_classes=1000, norm="none", depth=depth, hidden=[4096, 4096])
        assert count(ours) == count(get_model(f"vgg{depth}"))


def test_vision_transformers_have_the_papers_parameters():
    knobs = {"shape": IMAGENET, "num_classes": 1000, "activation": "gelu", "norm": "layer", "patch": 16, "depth": 12}
    with torch.device("meta"):
        assert count(make("vit", **knobs, dim=768, heads=12)) == 86_567_656  # ViT-B/16 in torchvision
        assert count(make("vit", **knobs, dim=384, heads=6)) == 22_050_664  # ViT-S/16 in timm


def test_resnet9_has_the_parameters_of_the_speed_run():
    assert count(make("resnet9", shape=CIFAR)) == 6_573_130


def test_a_vision_transformer_is_torchs_encoder_layer_of_the_same_weights():
    torch.manual_seed(0)
    ours = make("vit", dim=32, heads=4, depth=1, activation="gelu", norm="layer").block1.eval()
    theirs = nn.TransformerEncoderLayer(32, 4, 128, activation="gelu", batch_first=True, norm_first=True).eval()
    attention, mlp = ours.attention.branch, ours.mlp.branch
    pairs = [
        (theirs.self_attn.in_proj_weight, attention.attend.qkv.weight),
        (theirs.self_attn.in_proj_bias, attention.attend.qkv.bias),
        (theirs.self_attn.out_proj.weight, attention.attend.out.weight),
        (theirs.self_attn.out_proj.bias, attention.attend.out.bias),
        (theirs.linear1.weight, mlp.fc1.weight),
        (theirs.linear1.bias, mlp.fc1.bias),
        (theirs.linear2.weight, mlp.fc2.weight),
        (theirs.linear2.bias, mlp.fc2.bias),
    ]
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)
    tokens = torch.randn(2, 5, 32)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_resnet9_scales_its_logits():
    torch.manual_seed(0)
    one = make("resnet9", scale=1.0, width=8).eval()
    eighth = make("resnet9", scale=0.125, width=8).eval()
    eighth.load_state_dict(one.state_dict())
    images, _ = batch()
    torch.testing.assert_close(eighth(images), one(images) / 8)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_large_image_resnets_have_torchvisions_parameters(depth):
    from torchvision.models import get_model

    with torch.device("meta"):
        ours = make("resnet", shape=IMAGENET, num_classes=1000, depth=depth, width=64, stem="imagenet")
        assert count(ours) == count(get_model(f"resnet{depth}"))


def test_resnet50_is_torchvisions_function_of_the_same_weights():
    from torchvision.models import resnet50

    torch.manual_seed(0)
    ours = make("resnet", shape=IMAGENET, num_classes=1000, depth=50, width=64, stem="imagenet").eval()
    theirs = resnet50().eval()
    # Same tensors in another order: torchvision defines each block's shortcut after its branch, as we do.
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images, _ = batch((3, 64, 64), 2)
    torch.testing.assert_close(ours(images), theirs(images))


def test_small_image_shortcut_skips_pixels_and_appends_zero_channels():
    model = make("resnet", norm="batch")
    block = next(m for m in model.stage2.modules() if isinstance(m, Residual))
    nn.init.zeros_(block.branch.norm2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out.shape == (2, 32, 4, 4) and not out[:, 16:].any()


def test_pre_activation_leaves_the_identity_path_untouched():
    model = make("resnet", order="pre")
    block = next(m for m in model.stage1.modules() if isinstance(m, Residual))
    nn.init.zeros_(block.branch.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)


def test_the_patch_cnn_has_the_parameters_and_the_maps_of_the_published_speed_run():
    model = make("patch_cnn", shape=CIFAR, activation="gelu")
    assert count(model) == 1_972_792  # 12 * 24 + 24, six 3x3 convolutions, six norms, 256 * 10
    sizes = []
    for name in ("stem", "stage1.unit1.conv", "stage1", "stage2", "stage3", "pool"):
        model.get_submodule(name).register_forward_hook(lambda m, i, output: sizes.append(tuple(output.shape[1:])))
    logits = model(batch(CIFAR)[0])
    assert sizes == [(24, 31, 31), (64, 31, 31), (64, 15, 15), (256, 7, 7), (256, 3, 3), (256, 1, 1)]
    features = model[:-2](batch(CIFAR)[0])  # all but the classifier and its scale
    torch.testing.assert_close(logits, features @ model.head.weight.T / 256)


def test_the_patch_cnn_halves_before_it_normalizes():
    kinds = [type(m).__name__ for m in make("patch_cnn", shape=CIFAR, activation="gelu").stage1.modules()]
    kinds = [kind for kind in kinds if kind not in ("Sequential", "Slot")]
    assert kinds == ["Conv2d", "MaxPool2d", "BatchNorm2d", "GELU", "Conv2d", "BatchNorm2d", "GELU"]
