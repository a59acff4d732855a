"""The advice of each rule composes with a config of its kind, and changes it."""

import numpy as np
import pytest
from sample_curves import run
from test_symptoms import TABLE

import runner
from runner.doctor import Severity, diagnose
from runner.doctor.changes_advised import better_start, clipped, longer, more_lr, regularized, warmed_up
from runner.registry import find

# Options whose knobs an advice may name
NEEDS = {
    "scheduler.milestones": ("scheduler=multistep",),
    "scheduler.every": ("scheduler=step",),
    "data.workers": ("data=imagefolder", "data.root=x"),
    "regularizer.dropout.p": ("regularizer=[dropout]",),
    "optim.betas": ("optim=adamw",),
    "transfer": ("init_from=weights.safetensors",),
}


def _advised():
    """Return each advice of the table once, with the config that it changes as (key, words)."""
    found = {}
    for rule, changes, _, _ in TABLE:
        for words in find("symptom", rule)(run(**changes)).advice:
            found.setdefault(words, rule)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("words", list(_advised()), ids=" ".join)
def test_an_advice_composes(words):
    context = [each for word in words for each in NEEDS.get(word.partition("=")[0], ())]
    assert runner.compose([*context, *words])


def test_most_rules_advise_something():
    without = {rule for rule, changes, _, _ in TABLE if not find("symptom", rule)(run(**changes)).advice}
    assert without <= {
        *("periodic", "val_too_small", "val_better", "val_at_chance", "val_leak", "layer_frozen", "collapsed"),
        *("activations_grow_or_shrink", "vanishing", "bad_init_plateau", "initial_loss"),
    }


def _config(**changes):
    return dict(run(**changes).facts.config)


def test_numbers_of_an_advice_come_from_the_run():
    assert more_lr(_config(optim__lr=0.02), 3) == [("optim.lr=0.06",)]
    assert longer({**_config(), "epochs": 30, "steps": None}, 2) == [("epochs=60",)]
    assert longer({**_config(), "steps": 700}, 0.5) == [("steps=350",)]
    assert clipped(_config(), 0.123) == [("clip=0.12",)]
    assert clipped(_config(clip=1.0), 0.123) == []
    assert clipped(_config(), None) == []


def test_an_advice_leaves_out_what_the_run_has():
    assert warmed_up(_config()) == [("scheduler.warmup=5%",)]
    assert warmed_up(_config(scheduler__warmup="10%")) == []
    assert better_start(_config()) == []
    assert better_start(_config(init__head=None)) == [("init.head=small",)]
    assert better_start(_config(norm__name="none", init={"name": "normal", "head": None})) == [
        ("init=kaiming",),
        ("norm=batch",),
    ]
    assert regularized(_config(augment={"crop": {}}, optim__weight_decay=0.0))[0] == ("optim.weight_decay=0.0001",)
    assert ("augment=[crop]",) not in regularized(_config(augment={"crop": {}}))


def test_a_learning_rate_that_explains_the_rest_hides_it():
    from test_symptoms import CHANCE, STEPS

    lost = run(train__loss=np.append([CHANCE] * 10, np.linspace(4, CHANCE, STEPS - 10)))
    found = [each.id for each in diagnose(lost)]
    assert found[0] == "lr_very_high"
    assert "no_learning" not in found


def test_hints_never_come_before_warnings():
    found = diagnose(run(clip=0.5, val_examples=100))
    assert [each.severity for each in found] == sorted((each.severity for each in found), key=lambda s: s.rank)
    assert found[0].severity is Severity.WARN
