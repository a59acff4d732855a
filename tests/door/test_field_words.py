"""What users of other libraries type is suggested by our names, and every suggestion is a valid command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache

import pytest
from running import ROOT
from torchvision.models import list_models

from runner import field_words
from runner.__main__ import main
from runner.door import field_keys
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.errors import ConfigError, unknown
from runner.out_of_scope import scope_hint
from runner.schema import check
from runner.settings import SETTINGS
from runner.spelling import close

CONF = find_conf()
HINT = re.compile(r"; did you mean (.*?)\?(?= \(choose| \(set|$)")
# Values for the keys that tables name; where one is wrong for the default options, the options that it takes
VALUES = dict(
    entry.strip().rsplit(": ", 1)
    for entry in re.split(
        r"\|",
        """
    optim: adam | scheduler: step | data: mnist | model: mlp | loss: mse | activation: gelu | norm: layer |
    init: xavier | augment: hflip | regularizer: l2 | recipe: digits | preprocess: zca | optim.lr: 0.3 |
    optim.weight_decay: 0.01 | optim.momentum: 0.5 | clip: 1.5 | optim.betas: [0.8,0.9] | optim.eps: 1e-6 |
    scheduler.warmup: 2 | accumulate: 2 | augment_repeats: 2 | epochs: 7 | steps: 100 | data.batch_size: 32 |
    data.workers: 2 |
    data.root: photos | data.size: 24 | data.limit: 500 | data.val_fraction: 0.2 | loss.class_weights: balanced |
    device: cpu | regularizer.dropout.p: 0.3 | regularizer.stochastic_depth.p: 0.1 | loss.label_smoothing: 0.1 |
    mix.alpha: 0.4 | average.decay: 0.9 | average.start: 50% | patience: 3 | precision: bf16 | compile: false |
    threads: 2 | seed: 3 | outputs: elsewhere | name: mine | resume: old | note: why | log_every: 10 |
    validate_every: 2epochs | checkpoint_every: 30steps | validate_every={}epochs: 2 | validate_every={}steps: 50 |
    checkpoint_every={}epochs: 2 | checkpoint_every={}steps: 50 | device=cuda:{}: 1 | monitor: val/loss |
    init_from: best.pt | data.label: price | clip_by: value | update.rho: 0.1 | mix.until: 2 | scheduler.final: 0.01 |
    clip={} clip_by=value: 0.5 | clip={} clip_by=agc: 0.02
    """,
    )
)
CHOICES = {"data.workers": "imagefolder", "data.root": "imagefolder", "data.size": "imagefolder"}
CHOICES |= {"data.label": "table", "data.limit": "imagefolder", "data.val_fraction": "imagefolder"}
# What must be given beside a key
BESIDE = {"average.start": ["average=swa"], "data.size": ["data=imagefolder"]}


def refusal(*words) -> str:
    with pytest.raises(ConfigError) as caught, hydra_opened(CONF):
        given = read_overrides(CONF, words)
        compose_run(CONF, compose_parts(CONF, given), given)
    return str(caught.value)


def suggested(line: str) -> list[list[str]]:
    """Return the commands that a line suggests, each as words."""
    found = HINT.search(line)
    return [shlex.split(each) for each in found[1].split(" or ")] if found else []


@cache
def composes(*words: str) -> dict:
    with hydra_opened(CONF):
        given = read_overrides(CONF, words)
        return compose_run(CONF, compose_parts(CONF, given), given)


def entries(table) -> list[tuple[str, str]]:
    return [(ours, word) for ours, words in table.items() for word in words.split()]


VALUE_CASES = [
    (key, ours, word)
    for key, table in field_words._VALUES.items()
    for ours, word in entries(table)
    if not key.startswith("hydra.")
]


@pytest.mark.parametrize("key", sorted({key for key, _, _ in VALUE_CASES}))
def test_the_words_of_others_for_values_are_suggested_by_ours(key) -> None:
    for each, ours, word in VALUE_CASES:
        # Words that are no option and no value of ours, or that YAML reads as another value
        if each != key or (key in CONF.files and word in ("null", "true", "false")):
            continue
        if key in ("test", "figures") or (ours not in CONF.files.get(key, [ours]) and "=" not in ours and ours != "[]"):
            # A word for a feature that this version does not have is no suggestion, nor is one spelled like it
            if key not in ("test", "figures"):
                assert not suggested(str(unknown(key, "option", word, CONF.files[key]))), word
            continue
        line = refusal_of_value(key, word) if key in SETTINGS and key != "monitor" else refusal(f"{key}={word}")
        [words] = suggested(line) if ours != "-" else [[]]
        assert not suggested(line) if ours == "-" else words, line
        if words == [ours] and key in CONF.files and "=" not in ours:
            assert ours in CONF.files[key]
        elif words:
            assert composes(*(each if "=" in each else f"{key}={each}" for each in words))


def refusal_of_value(key, word) -> str:
    with pytest.raises(ConfigError) as caught:
        check(key, word, SETTINGS[key])
    return str(caught.value)


@pytest.mark.parametrize("key", ["test", "figures"])
def test_true_and_false_are_suggested_as_words(key) -> None:
    for word in ("true", "false"):
        [[ours]] = suggested(refusal(f"{key}={word}"))
        assert (
            composes(f"{key}={ours}")[key]
            == {"true": {"test": "end", "figures": "always"}[key], "false": "never"}[word]
        )


def cases_of(template: str) -> tuple[str, str]:
    """Return (value to type, overrides to expect) for one template."""
    value, mark, words = template.rpartition(": ")
    if mark:
        return value, words
    target = words.split()[-1].partition("=")[0]
    value = VALUES.get(words, VALUES[target])
    return value, words.replace("{}", value)


KEY_CASES = [
    (word, template)
    for words, templates in field_keys._KEYS.items()
    for word in words.split()
    for template in templates
    if word not in SETTINGS and word not in CONF.defaults
]


@pytest.mark.parametrize("first", sorted({word[0] for word, _ in KEY_CASES}))
def test_the_keys_of_others_are_suggested_by_ours_and_the_suggestion_is_valid(first) -> None:
    for word, template in KEY_CASES:
        if word[0] != first:
            continue
        value, expected = cases_of(template)
        target = expected.split()[-1].partition("=")[0]
        beside = [f"data={CHOICES[target]}"] if target in CHOICES else []
        found = suggested(refusal(f"{word}={value}", *beside))
        assert found, (word, value)
        [words] = found
        assert composes(*words, *beside)
        # An earlier template may be right for the same value
        assert words[-1].partition("=")[0] in {t.split()[-1].partition("=")[0] for t in field_keys.templates_for(word)}


def test_each_template_is_the_answer_to_some_value() -> None:
    answered = {}
    for word, template in KEY_CASES:
        value, expected = cases_of(template)
        target = expected.split()[-1].partition("=")[0]
        beside = [f"data={CHOICES[target]}"] if target in CHOICES else []
        answered.setdefault(template, set()).update(
            " ".join(each) for each in suggested(refusal(f"{word}={value}", *beside))
        )
    others = {
        "optim.betas={}",
        "optim.eps={}",
        "optim=momentum optim.momentum={}",
        "loss=cross_entropy loss.label_smoothing={}",
        "augment=[{}]",
    }
    others |= {"regularizer=[{}]", "loss.class_weights={}", "data.size={}", "data.size=[{},{}]"}
    for template, found in answered.items():
        assert template in others or cases_of(template)[1] in found, (template, found)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["lr=0.1"], "optim.lr=0.1"),
        (["lr=0.1,0.2"], "optim.lr=0.1,0.2"),
        (["batch_size=32"], "data.batch_size=32"),
        (["BatchSize=32"], "data.batch_size=32"),
        (["batch-siz=32"], "data.batch_size=32"),
        (["dropout=0.5"], "'regularizer=[dropout]' regularizer.dropout.p=0.5"),
        (["dropout=0"], "'regularizer=[]'"),
        (["init=he"], "kaiming"),
        (["init=glorot"], "xavier"),
        (["activation=swish"], "silu"),
        (["activation=LeakyReLU"], "leaky_relu"),
        (["precision=16"], "fp16"),
        (["precision=16-mixed"], "fp16"),
        (["precision=bf16-mixed"], "bf16"),
        (["augment=none"], "augment=[]"),
        (["task=test"], "evaluate"),
        (["optim=SGD"], "sgd"),
        (["optim=torch.optim.AdamW"], "adamw"),
        (["optimizer=torch.optim.AdamW"], "optim=adamw"),
        (["activation=torch.nn.GELU"], "gelu"),
        (["optimizer=AdamW"], "optim=adamw"),
        (["optimizer=adamw", "learning_rate=0.1"], "optim=adamw"),
        (["optim.learning_rate=0.1"], "lr"),
        (["optimizer.lr=0.1"], "optim.lr=0.1"),
        (["model.optimizer.lr=0.1"], "optim.lr=0.1"),
        (["optim=adam", "momentum=0.9"], "optim=momentum optim.momentum=0.9"),
        (["beta1=0.9"], None),
        (["trainer.max_epochs=3"], "epochs=3"),
        (["trainer.accelerator=gpu"], "device=cuda"),
        (["callbacks.early_stopping.patience=5"], "patience=5"),
        (["device=gpu"], "cuda"),
        (["gpus=1"], "device=cuda"),
        (["gpus=4"], None),
        (["dataset=CIFAR10"], "data=cifar10"),
        (["data=MNIST"], "mnist"),
        (["data=fashion-mnist"], "fashion_mnist"),
        (["arch=resnet18"], "model=torchvision model.arch=resnet18"),
        (["model=resnet20"], "model=resnet model.depth=20"),
        (["model=wrn-28-10"], "model=wide_resnet model.depth=28 model.widen=10"),
        (["model.norm=layer"], "norm=layer"),
        (["model.activation=swish"], "activation=silu"),
        (["loss=CrossEntropyLoss"], "cross_entropy"),
        (["scheduler=CosineAnnealingLR"], "cosine"),
        (["warmup_epochs=5"], "scheduler.warmup=5epochs"),
        (["loss=hinge", "smoothing=0.1"], "loss=cross_entropy loss.label_smoothing=0.1"),
        (["lr=abc"], "optim.lr"),
        (["patience=none"], "null"),
        (["clip=false"], "null"),
        (["regularizer=[dropout,droppath]"], "stochastic_depth"),
        (["augment=[crop,normalize]"], "preprocess=standardize"),
        (["experiment=digits"], "recipe=digits"),
        (["optim=amsgrad"], "optim=adam optim.amsgrad=true"),
        (["optim=lars"], None),
        (["data=coco"], None),
        (["logger=wandb2"], None),
        (["pretrained=true"], "init_from=IMAGENET1K_V1"),
        (["model.pretrained=false"], "init_from=null"),
        (["weights=imagenet"], "init_from=IMAGENET1K_V1"),
        (["weights=DEFAULT"], "init_from=DEFAULT"),
        (["checkpoint=best.pt"], "init_from=best.pt"),
        (["data=table", "target=price"], "data.label=price"),
        (["foo=1"], None),
    ],
    ids=str,
)
def test_the_suggestion_is_the_command_to_type(words, command) -> None:
    line = refusal(*words)
    assert suggested(line) == ([] if command is None else [shlex.split(command)]), line


@pytest.mark.parametrize("arch", list_models(module=__import__("torchvision").models))
def test_every_classification_network_of_torchvision_is_found_by_its_name(arch) -> None:
    assert suggested(refusal(f"model={arch}")) == [["model=torchvision", f"model.arch={arch}"]]


def test_flags_of_scripts_are_suggested_as_settings(capsys) -> None:
    for words, command in (
        (["--epochs=3"], "epochs=3"),
        (["--lr", "0.1"], "optim.lr=0.1"),
        (["--batch-size", "32"], "data.batch_size=32"),
        (["--amp"], "precision=fp16"),
    ):
        assert main(words) == 2
        assert suggested(capsys.readouterr().err.strip()) == [[command]]
        assert composes(command)


def test_what_nothing_can_be_set_for_is_said() -> None:
    assert "the data set says how many classes" in refusal("model.num_classes=10")
    assert "'gamma' is a key of scheduler=cyclic, exponential" in refusal("gamma=0.5")
    assert "'workers' is a key of data=imagefolder" in refusal("num_workers=4")
    for word in ("classify", "classification", "image-classification"):
        assert "task=predict classifies images" in refusal(f"task={word}")


def test_a_wrong_suggestion_is_worse_than_none() -> None:
    assert not close("test", "list") and not close("16", "bf16") and close("epoch", "epochs")
    assert not close("flop", "crop") and close("resnt", "resnet") and close("kaimnig", "kaiming")


def test_a_right_command_line_reads_no_table_of_words(tmp_path) -> None:
    program = "import sys; from runner.__main__ import main; main(['optim=adam', 'optim.lr=0.01', '--cfg', 'job'])\n"
    program += "late = 'field_words out_of_scope spelling value_hints door.suggestions door.field_keys'.split()\n"
    program += "assert not {f'runner.{name}' for name in late} & sys.modules.keys()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_no_word_of_ours_is_in_the_tables() -> None:
    for key, table in field_words._VALUES.items():
        for ours, word in entries(table):
            assert word not in CONF.files.get(key, ()) or ours == word, f"{key}={word}"
        # A word that only differs in case, `_` or `-` is found without an entry
        words = [field_words.normalized(word) for _, word in entries(table)]
        assert len(words) == len(set(words)), key
        assert {field_words.normalized(option) for option in CONF.files.get(key, ())}.isdisjoint(words), key
    taken = [field_words.normalized(word) for words in field_keys._KEYS for word in words.split()]
    noted = [field_words.normalized(word) for words in field_keys._NOTES for word in words.split()]
    assert len([*taken, *noted]) == len({*taken, *noted})
    # A group or setting of that name never reaches the tables alone, but may be the last word of a key
    assert {"optim", "data", "model", "loss"}.isdisjoint(taken)


SCOPES = {
    "multi-label": "loss=multilabel loss=MultiLabelSoftMarginLoss task=multi_label multilabel=true loss=asl",
    "regression": "task=regression loss=l1 loss=SmoothL1Loss loss=huber loss=mae metric=[rmse] metric=[r2] "
    "monitor=val/mae regression=true data=california_housing problem_type=regression",
    "detection": "task=detect task=segmentation data=coco data=voc model=yolov8n model=unet loss=dice metric=[map] "
    "model=fasterrcnn_resnet50_fpn model=deeplabv3_resnet50 monitor=val/mAP50",
}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_words_of_other_kinds_of_learning_are_said_to_be_out_of_scope(scope) -> None:
    for word in SCOPES[scope].split():
        line = refusal(word)
        assert scope in line and "out of scope" in line and not suggested(line), line


def test_every_network_of_torchvision_that_is_no_classifier_is_said_to_be_out_of_scope() -> None:
    models = __import__("torchvision").models
    others = set(list_models()) - set(list_models(module=models))
    assert len(others) > 20
    for arch in others:
        line = str(unknown("model.arch", "torchvision model", arch, list_models(module=models)))
        assert "out of scope" in line, arch


def test_no_option_of_ours_counts_as_out_of_scope() -> None:
    for key, options in CONF.files.items():
        assert not [option for option in options if scope_hint(key, option)]
    for arch in list_models(module=__import__("torchvision").models):
        assert not scope_hint("model.arch", arch)
    # A typo of ours is still corrected
    assert "did you mean 'mlp'?" in refusal("model=mlpp") and "did you mean 'mse'?" in refusal("loss=msee")


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("freeze=conv", "optim.rules=[{match:'hidden.*',active:[100%,null]}]"),
        ("model.freeze=true", "optim.rules=[{match:'hidden.*',active:[100%,null]}]"),
        ("freeze_backbone=true", "optim.rules=[{match:'hidden.*',active:[100%,null]}]"),
        ("logger=csv", "tracker=[csv]"),
        ("seeds=3", "seed=range(0,5)"),
    ],
)
def test_a_note_on_a_key_of_others_shows_a_valid_command(word, command) -> None:
    line = refusal(word)
    assert command in line and not suggested(line)
    if word.startswith("seeds"):
        with hydra_opened(CONF):
            assert read_overrides(CONF, [command])[0].swept
    else:
        assert composes(command)
