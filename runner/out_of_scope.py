"""Error lines about detection, regression and other learning: runner trains classifiers with one class per example.

A line about a word or a data set that belongs to another kind of learning says so, and what is possible instead.
"""

from __future__ import annotations

import re

MULTI_LABEL = (
    "several labels per example (multi-label) are out of scope; give each example one class, for example cat+dog where "
    "both are present"
)
REGRESSION = "regression is out of scope; make classes of the numbers, for example with pandas.cut"
DETECTION = "detection and segmentation (boxes, masks) are out of scope; give each image one class"
SOFT_LABELS = "probabilities as labels are out of scope; take the most probable class"
ONE_KIND = "runner trains classifiers, one class per example; regression, multi-label and detection are out of scope"
_OTHER_INPUTS = "runner trains classifiers of images and tables; videos, text and pairs of images are out of scope"
_QUANTIZED = "quantized models are out of scope, they cannot be trained"

# Words for a task, a loss, a metric, a model or a data set, by what they are for
_WORDS: tuple[tuple[str, str], ...] = (
    (r"multi_?label\w*|\w*_?multi_?label|asl|asymmetric(_loss)?|tagging", MULTI_LABEL),
    (
        r"regress(ion|or)?|\w+_regress(ion|or)|l1(_?loss)?|(smooth_?l1|huber|poisson(_nll)?|gaussian_nll|quantile|log_cosh)"
        r"(_?loss)?|mae|rmse|mape|r2|r2_score|mean_absolute_error|(root_)?mean_squared_error|california_housing"
        r"|boston_housing|boston|diabetes|forecast(ing)?",
        REGRESSION,
    ),
    (
        r"(object_?)?detect(ion|or)?|(instance_|semantic_|panoptic_)?segment(ation)?|semseg|pose|key_?points?|bbox(es)?"
        r"|yolo\w*|(faster|mask|keypoint|cascade)_?rcnn\w*|retinanet\w*|ssd(lite)?\d*\w*|fcos\w*|detr\w*|deeplab\w*"
        r"|fcn_\w*|lraspp\w*|u_?net\w*|segformer\w*|sam\d?|coco\w*|(pascal_?)?voc\w*|cityscapes|ade20k|dice(_loss)?|iou"
        r"|giou|ciou|jaccard|m?ap(_?50|_?75|50_95)?|mean_average_precision|miou",
        DETECTION,
    ),
    (r"(r3d|mc3|r2plus1d|s3d|mvit|swin3d|raft)(_\w+)?|rnn|lstm|gru|bert\w*|gpt\w*|llama\w*|t5\w*", _OTHER_INPUTS),
    (r"quantized_\w+", _QUANTIZED),
)
# Keys for whose values the words are looked up; `val/mae` is a metric
_KEYS = ("task", "loss", "metric", "model", "model.arch", "data", "monitor")


def scope_hint(key: str, given: str) -> str:
    """Return why a word is no value of a key, after a semicolon; empty if it belongs to no other kind of learning."""
    if key not in _KEYS:
        return ""
    last = given.rpartition("/")[2].rpartition(".")[2]
    # MultiLabelSoftMarginLoss, mAP50, MAELoss
    words = [re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]", "_", last).lower(), last.lower()]
    words += [re.sub(r"_?loss$", "", word) for word in words]
    found = next((line for pattern, line in _WORDS if any(re.fullmatch(pattern, word) for word in words)), "")
    return f"; {found}" if found else ""
