"""Every knob of every option changes something: weights, predictions, learning rates or what is logged."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
from cases import DOWNLOADS, PICTURES, STEPS, array_file, choices, color_images, table_file, teacher_folder
from small_runs import MANY, ONE, ROOT, as_bits, option_yaml, small, uninterrupted
from test_options import curve

from runner.registry import find, knobs, names
from runner.schema import Duration

OTHER: dict[str, Any] = {  # another valid value, where none follows from the default
    "augment.resized_crop.ratio": [1.0, 1.1],
    "augment.*.scale": [0.3, 0.5],
    "augment.blur.sigma": [2.0, 3.0],
    "augment.blur.kernel": 7,
    "augment.solarize.threshold": 20,
    "augment.posterize.bits": 2,
    "augment.color_jitter.hue": 0.3,
    "augment.random_erasing.ratio": [1.0, 1.1],
    "augment.random_erasing.fill": 100,
    "augment.short_side.low": 1.5,
    "augment.stretch.factor": 1.5,
    "augment.short_side.high": 1.2,
    "average.ema.decay": 0.1,
    "average.swag.rank": 2,
    "average.swag.start": "2steps",
    "average.swag.every": "2steps",
    "average.snapshots.at": ["1step", "3steps"],
    "data.arrays.root": array_file(1),
    "data.arrays.inputs": "dark",
    "data.arrays.labels": "halves",
    "data.arrays.kind": "features",
    "data.arrays.layout": "nchw",
    "data.*.sampling": "balanced",
    "data.*.val_fraction": 0.2,
    "data.*.test_fraction": 0.2,
    "data.imagefolder.crop": "resized",
    "data.imagefolder.crop_scale": [0.3, 0.5],
    "data.imagefolder.crop_ratio": [1.0, 1.1],
    "data.imagefolder.size": [8, 8],
    "data.imagefolder.root": color_images(1),
    "data.digits.classes": [1, 2, 3],
    "data.*.limit": 20,
    "data.synthetic.kind": "blobs",
    "data.table.root": table_file(1),
    "data.table.label": "group",
    "data.table.ignore": ["b", "part"],
    "data.table.one_hot": ["group"],
    "data.*.batch_size": 8,
    "data.*.train": 128,
    "data.*.val": 8,
    "data.*.test": 8,
    "distillation.logits.teacher": teacher_folder(1),
    "distillation.logits.stages": [["hidden.fc1", "hidden"]],
    "init.*.head": 0.5,
    "init.*.gain": "tanh",
    "loss.focal.alpha": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
    "loss.*.class_weights": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
    "mix.*.p": 0.0,
    "mix.*.until": "2steps",
    "mix.mixup_or_cutmix.cutmix_p": 1.0,
    "resize.progressive.start_scale": 0.25,
    "resize.progressive.begin": "2steps",
    "resize.progressive.end": "1step",
    "resize.progressive.multiple": 8,
    "model.cnn.channels": [8, 24],
    "model.*.hidden": [8],
    "model.cnn.kernel": 5,
    "model.patch_cnn.channels": [8, 16],
    "model.patch_cnn.patch": 3,
    "model.resnet.depth": 14,
    "model.resnet.width": 16,
    "model.resnet9.width": 16,
    "model.wide_resnet.depth": 16,
    "model.torchvision.arch": "mobilenet_v3_small",
    "model.torchvision.swap": [],
    "model.vgg.width": 16,
    "model.vit.patch": 2,
    "model.vit.dim": 32,
    "model.vit.heads": 4,
    "norm.group.groups": 4,
    "norm.*.eps": 0.1,
    "optim.*.betas": [0.5, 0.9],
    "optim.*.eps": 0.01,
    "optim.*.no_decay": [],
    "optim.*.rules": [{"match": "head", "lr": 0.0}],
    "optim.muon.ns_steps": 3,
    "optim.adafactor.threshold": 2.0,
    "predict.swag.samples": 3,
    "predict.tta.views": ["shift"],
    "predict.mc_dropout.passes": 3,
    "probe.*.every": 2,
    "probe.*.values": 10,
    "probe.*.count": 4,
    "regularizer.*.where": ["block"],
    "regularizer.dropconnect.layers": ["conv"],
    "regularizer.*.ramp": "2steps",
    "scheduler.multistep.milestones": ["20%"],
    "scheduler.exponential.final": 0.95,
    "scheduler.inverse_sqrt.final": 0.9,
    "scheduler.onecycle.momentum": [0.8, 0.9],
    "scheduler.*.warmup_start": 0.5,
    "transfer.partial.trained": 1,
    "transfer.*.layer_decay": 0.5,
    "transfer.staged.head_for": "60%",
    "transfer.staged.all_from": "40%",
    "transfer.lp_ft.probe": "33%",
}
BESIDE: dict[str, dict[str, Any]] = {  # what else the option must be set to for the knob to count; bare keys are knobs
    "average.polyak.blocks": {"last": "100%"},
    "data.imagefolder.crop_scale": {"crop": "resized"},
    "data.imagefolder.crop_ratio": {"crop": "resized"},
    "data.*.limit_seed": {"limit": 20},
    "data.synthetic.size": {"kind": "shapes"},
    "distillation.logits.stages": {"features": 3.0},
    "mix.mixup_or_cutmix.mixup_alpha": {"cutmix_p": 0.0},
    "mix.mixup_or_cutmix.cutmix_alpha": {"cutmix_p": 1.0},
    "model.resnet.stem": {**PICTURES, "depth": 18},
    "model.torchvision.swap": {"activation.name": "tanh"},
    "optim.*.no_decay": {"weight_decay": 0.1},
    "predict.tta.shift": {"views": ["shift"]},
    "scheduler.*.warmup_start": {"warmup": "10%"},
    "predict.tta.views": {"views": ["flip", "shift"]},
}
ELSEWHERE = {  # what no run on this machine can show, with the test that does
    **{f"data.{name}.{knob}": "tests/components/test_data.py" for name in DOWNLOADS for knob in ("root", "download")},
    **{f"data.{name}.placement": "tests/components/test_data.py" for name in DOWNLOADS},
    **{f"data.{name}.sampling": "tests/components/test_data.py" for name in DOWNLOADS},
    "data.table.missing": "tests/components/test_data_table.py",
    "data.table.split": "tests/components/test_data_table.py",
    "data.imagefolder.bad_images": "tests/components/test_data_damage.py",
    **{f"data.imagefolder.{knob}": "tests/components/test_data_folders.py" for knob in ("splits", "classes")},
    **{
        f"data.imagefolder.{knob}": "tests/components/test_data_decoding.py"
        for knob in ("depth", "alpha", "extra_bands")
    },
    **{
        f"data.imagefolder.{knob}": "tests/components/test_data_labels.py"
        for knob in ("labels", "columns", "label_regex")
    },
    "data.imagefolder.groups": "tests/components/test_data_groups.py",
    "init.mup.base_heads": "tests/test_mup.py",
    "data.imagefolder.duplicates": "tests/components/test_data_duplicates.py",
    **{f"data.{name}.duplicates": "tests/components/test_data_equal_rows.py" for name in ("arrays", "table")},
    "data.imagefolder.class_order": "tests/components/test_data_folders.py",
    **{f"data.{name}.val_size": "tests/components/test_data.py" for name in DOWNLOADS},
    **{f"data.{name}.batch_size": "tests/components/test_data.py" for name in DOWNLOADS},
    "optim.radam.eps": "tests/components/test_optim_formulas.py",  # from step 6 on
    **{f"transfer.{name}.cache": "tests/test_feature_cache.py" for name in ("feature_extraction", "staged", "lp_ft")},
    **{
        f"transfer.{name}.normalization": "tests/test_transfer.py"
        for name in ("feature_extraction", "fine_tune", "layerwise", "partial", "staged", "lp_ft")
    },
    "distillation.logits.teacher_sha256": "tests/test_distillation.py",
    **{f"strategy.ddp.{knob}": "tests/processes/test_strategy.py" for knob in ("batch_norm", "dropout")},
    **{f"strategy.ddp.{knob}": "tests/processes/test_commands.py" for knob in ("timeout", "start_timeout")},
    "model.timm.arch": "tests/components/test_model_library.py",
    "model.timm.swap": "tests/components/test_model_library.py",
}
SAME_PIXELS: dict[str, Any] = {
    "data.arrays.memory": 64,
    "data.table.memory": 64,
    "data.imagefolder.memory": 1,
    "data.imagefolder.workers": 1,
    "data.imagefolder.cache": None,
    **{f"data.{name}.placement": "host" for name in names("data") if name not in DOWNLOADS},
    "data.imagefolder.placement": "disk",
}  # about speed: they must change nothing


def values(kind: str, name: str) -> dict[str, Any]:
    """Return an option's knobs with their values."""
    content = option_yaml(kind, name)
    return content[name] if kind in MANY else {key: value for key, value in content.items() if key != "name"}


KNOBS = [(kind, name, knob) for kind in (*ONE, *MANY) for name in names(kind) for knob in values(kind, name)]
TRIED = [each for each in KNOBS if ".".join(each) not in (*ELSEWHERE, *SAME_PIXELS)]


def looked_up(table: dict[str, Any], kind: str, name: str, knob: str) -> Any:
    """Return the entry of a knob, or of the knob in any option of its kind."""
    return table.get(f"{kind}.{name}.{knob}", table.get(f"{kind}.*.{knob}"))


def is_duration(annotation: Any) -> bool:
    """Return True for a duration, with or without a mark about its place in the run."""
    parts = get_args(Duration)
    return get_args(annotation)[: len(parts)] == parts


def another(kind: str, name: str, knob: str, value: Any) -> Any:
    """Return a valid value other than the default."""
    if (given := looked_up(OTHER, kind, name, knob)) is not None:
        return given
    annotation = knobs(find(kind, name))[knob]
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if is_duration(annotation):
        return "1steps" if value == "1epoch" else "37%"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    assert isinstance(value, float), f"{kind}.{name}.{knob}: say in OTHER what else it can be"
    return value / 2 or 0.1


def shown(kind: str, given: dict[str, Any]) -> Any:
    """Return all that a run shows."""
    if kind == "scheduler":
        return curve(given)
    experiment, left = uninterrupted(given, STEPS)
    test = None
    if kind == "data" and experiment.test:
        images, labels = next(iter(experiment.test()))
        test = as_bits(images), as_bits(labels)
    return left.state, left.printed, left.rows, left.tags, test


@pytest.mark.parametrize(("kind", "name", "knob"), TRIED)
def test_another_value_changes_something(kind: str, name: str, knob: str) -> None:
    beside = looked_up(BESIDE, kind, name, knob) or {}
    default = choices(kind, name, **beside)
    prefix = f"{kind}.{name}" if kind in MANY else kind
    value = default.get(f"{prefix}.{knob}", values(kind, name)[knob])
    other = {**beside, knob: another(kind, name, knob, value)}
    assert other[knob] != value
    assert shown(kind, choices(kind, name, **other)) != shown(kind, default)


@pytest.mark.parametrize(("key", "value"), SAME_PIXELS.items())
def test_what_is_about_speed_changes_no_number(key: str, value: Any) -> None:
    kind, name, knob = key.split(".")
    assert shown(kind, choices(kind, name, **{knob: value})) == shown(kind, choices(kind, name))


@pytest.mark.parametrize(("key", "file"), ELSEWHERE.items())
def test_what_is_tried_elsewhere_is(key: str, file: str) -> None:
    assert key.rpartition(".")[2] in (ROOT / file).read_text()


def test_no_knob_is_listed_that_does_not_exist() -> None:
    every = {".".join(each) for each in KNOBS} | {f"{kind}.*.{knob}" for kind, _, knob in KNOBS}
    assert {*OTHER, *BESIDE, *ELSEWHERE, *SAME_PIXELS} <= every


SETTINGS = {
    "accumulate": 2,
    "augment_repeats": 2,
    "clip": 0.01,
    "clip_by": "value",
    "monitor": "val/loss",
    "patience": 1,
    "precision": "bf16",
    "seed": 1,
    "steps": 2,
    "validate_every": "2steps",
    "checkpoint_every": "2steps",
    "log_every": 3,
}


@pytest.mark.parametrize(("field", "value"), SETTINGS.items())
def test_another_value_of_a_global_field_changes_something(field: str, value: Any) -> None:
    beside = {"augment": ["crop"]} if field == "augment_repeats" else {"clip": 0.1} if field == "clip_by" else {}
    given = small({"steps": STEPS, "clip": None, **beside})
    assert all_of({**given, field: value}) != all_of(given)


def all_of(given: dict[str, Any]) -> Any:
    """Return all that a run shows and the dates of its recipe."""
    experiment, left = uninterrupted(given, 10)
    recipe = experiment.recipe
    saved = [step for step in range(1, recipe.total_steps + 1) if recipe.cadence.due(step)]
    return left.state, left.rows, recipe.validate_every, saved, recipe.log_every, recipe.total_steps
