"""Names of networks in torchvision, timm and papers, and the overrides that choose them here."""

from __future__ import annotations

import re

# torchvision's and timm's names of networks, and the depths of the papers' networks for small images
_NETWORKS: tuple[tuple[str, str], ...] = (
    (r"resnet_?(18|34|50|101|152)", "model=torchvision model.arch=resnet{0}"),
    (r"resnet_?(20|32|44|56|110)", "model=resnet model.depth={0}"),
    (r"vgg_?(11|13|16|19)((?:_bn)?)", "model=torchvision model.arch=vgg{0}{1}"),
    (
        r"(alexnet|googlenet|inception_v3|maxvit_t|mobilenet_v2|mobilenet_v3_(?:small|large)|mnasnet(?:0_5|0_75|1_0|1_3)"
        r"|densenet(?:121|161|169|201)|efficientnet_(?:b[0-7]|v2_[sml])|convnext_(?:tiny|small|base|large)"
        r"|swin_(?:v2_)?[tsb]|vit_(?:[bl]_(?:16|32)|h_14)|squeezenet1_[01]|shufflenet_v2_x(?:0_5|1_0|1_5|2_0)"
        r"|regnet_(?:y_(?:400mf|800mf|1_6gf|3_2gf|8gf|16gf|32gf|128gf)|x_(?:400mf|800mf|1_6gf|3_2gf|8gf|16gf|32gf))"
        r"|resnext(?:50_32x4d|101_32x8d|101_64x4d)|wide_resnet(?:50|101)_2)",
        "model=torchvision model.arch={0}",
    ),
    (r"(?:wrn|wide_?resnet)[_-]?(\d+)[_x-](\d+)", "model=wide_resnet model.depth={0} model.widen={1}"),
    (r"((?:vit|deit3?|beit|swin|mixer|eva02)_\w+_patch\d+_\w+)", "model=timm model.arch={0}"),
)


def network_words(given: str) -> str | None:
    """Return the overrides, in quotes, that choose a network by its name elsewhere; None if no table has it."""
    for pattern, words in _NETWORKS:
        if match := re.fullmatch(pattern, given.lower()):
            return f"'{words.format(*match.groups())}'"
    return None
