"""Advice composes with every option of the catalogue: nothing that a rule advises is dropped."""

import pytest
from hand_made import facts, history
from running import ROOT, job

from runner.doctor import diagnose
from runner.doctor.executable import with_executable_advice
from runner.door.options import find_conf
from runner.door.variants import vary
from runner.status import Status

# Words that an option needs
NEEDS = {
    "model=vgg": ["data=synthetic", "data.kind=shapes", "data.size=32"],
    "data=imagefolder": ["data.root=images"],
    "data=arrays": ["data.root=arrays"],
    "data=table": ["data.root=table.csv"],
}
GROUPS = ("optim", "model", "scheduler", "loss", "data", "norm", "activation", "init", "average", "mix", "update")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]


def composed(word):
    return job(word, *NEEDS.get(word, ())).config


@pytest.mark.parametrize("word", OPTIONS)
def test_no_advice_is_dropped(word):
    config = composed(word)
    sick = facts(Status.DIVERGED, diverged_at=3, config=config)
    found = diagnose(history(sick, train__loss=[2.3, 4.0, float("nan")]))
    assert "nonfinite" in [each.id for each in found]
    kept = with_executable_advice(found, config, lambda *given: vary(find_conf(), *given))
    assert [each.advice for each in kept] == [each.advice for each in found]
    assert all(each.advice for each in kept if each.id == "nonfinite")
