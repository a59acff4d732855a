"""The bank of runs with faults: its split, its overrides, its data, its records."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import runner
from benchmarks.doctor.__main__ import RESULTS, fixture
from benchmarks.doctor.bank import make_run, read_records, write_records
from benchmarks.doctor.data_sets import data_file, equal_examples
from benchmarks.doctor.faults import FAULTS, HEALTHY, Alteration, overrides_of
from benchmarks.doctor.made_data import IMAGES
from benchmarks.doctor.mutants import Mutant, mutated
from benchmarks.doctor.nets import NETS
from benchmarks.doctor.plan import SPLITS, Case, cases, parts
from benchmarks.doctor.report import TITLES, markdown
from benchmarks.doctor.scores import Share, harmed, history_of, scores
from runner.components.loss import softmax
from runner.doctor import diagnose
from runner.engine import sampling
from runner.registry import find, names

ROOT = Path(__file__).parents[2]


BANKS = pytest.mark.parametrize("bank", SPLITS)
# By the bank the faulty and the healthy runs of each part at least, and a file that was first written after the split:
# rules, or the scores of a bank that has no runs to tune on
SIZES = {
    "first": ((36, 40), (40, 150)),
    "second": ((100, 60), (100, 150)),
    "third": ((70, 150),),
    "fourth": ((70, 150),),
}
KINDS = {"first": 13, "second": 30, "third": 30, "fourth": 30}
WRITTEN_AFTER = {
    "first": "runner/doctor/symptoms/rates.py",
    "second": "runner/doctor/symptoms/horizons.py",
    "third": "benchmarks/doctor/results_third.json",
    "fourth": "benchmarks/doctor/results_fourth.json",
}


def _named(bank, part):
    """Return the nets, the data sets and the seeds of the faulty and healthy runs of a part."""
    found = cases(part, bank)
    return {case.net for case in found}, {case.data for case in found}, {case.seed for case in found}


@pytest.mark.parametrize("place", range(1, len(SPLITS) + 1))
def test_no_net_data_set_or_seed_is_tuned_on_and_held_out(place):
    *earlier, bank = [*SPLITS][:place]
    # All runs of earlier banks had been looked at, and those of its own tuning part
    known = [_named(each, part) for each in earlier for part in parts(each)]
    known += [_named(bank, part) for part in parts(bank) if part == "tuning"]
    for each in known:
        assert all(not held_out & tuned for held_out, tuned in zip(_named(bank, "held_out"), each, strict=True))


@BANKS
def test_the_split_is_as_large_as_asked_for(bank):
    for part, (sick, healthy) in zip(parts(bank), SIZES[bank], strict=True):
        found = [case.fault for case in cases(part, bank)]
        assert found.count(HEALTHY) >= healthy
        assert len(found) - found.count(HEALTHY) >= sick
        assert len({*cases(part, bank)}) == len({case.name for case in cases(part, bank)}) == len(found)
        assert len({*found}) - 1 >= KINDS[bank]
    nets, data, _ = _named(bank, "held_out")
    assert bank == "first" or (len(nets) >= 6 and len(data) >= 3)


@BANKS
def test_the_split_was_committed_before_the_rules(bank):
    def added(path):
        log = subprocess.run(["git", "log", "--format=%ct", "--", path], cwd=ROOT, capture_output=True, text=True)
        return [int(line) for line in log.stdout.split()]

    split, rules = added(str(SPLITS[bank].relative_to(ROOT))), added(WRITTEN_AFTER[bank])
    if not split or not rules:
        pytest.skip("no git history here")
    # Its last change, and the first version of the rules
    assert max(split) <= min(rules)


def test_every_cause_is_a_rule():
    causes = {cause for fault in FAULTS.values() for cause in fault.causes}
    # Named before the rules were written; `val_better` and others may never be the ones that fire
    known = {name for name in names("symptom") if find("symptom", name).__module__.startswith("runner.")}
    assert causes <= known


@pytest.mark.parametrize("fault", ["frozen", *(pytest.param(each, marks=pytest.mark.slow) for each in FAULTS)])
def test_the_overrides_of_a_fault_compose(fault):
    for net in ("mlp",) if fault == "frozen" else NETS:
        config = runner.compose(["data=arrays", "data.root=x.npz", *overrides_of(net, FAULTS[fault])])
        assert config["optim"]["lr"] > 0


def test_a_fault_multiplies_the_rate_of_its_net():
    rate = NETS["mlp"].rate
    assert f"optim.lr={100 * rate:.3g}" in overrides_of("mlp", FAULTS["lr_x100"])
    assert [word for word in overrides_of("mlp", FAULTS["lr_x100"]) if word.startswith("optim.lr=")] == [
        f"optim.lr={100 * rate:g}"
    ]


def test_the_data_have_their_faults(tmp_path):
    whole, few, permuted, leak = (np.load(data_file("digits", each, tmp_path, None)) for each in (
        Alteration.WHOLE, Alteration.FEW, Alteration.PERMUTED, Alteration.LEAK))  # fmt: skip
    assert len(few["y_train"]) == 10 and len({*few["y_train"].tolist()}) == 10
    assert sorted(permuted["y_train"]) == sorted(whole["y_train"])
    assert (permuted["y_train"] == whole["y_train"]).mean() < 0.2
    train = {image.tobytes() for image in whole["x_train"]}
    assert all(image.tobytes() in train for image in leak["x_val"])
    assert not any(image.tobytes() in train for image in whole["x_val"])


@pytest.mark.slow
def test_a_run_of_the_bank_becomes_a_history(tmp_path):
    case = Case("tuning", "frozen", "mlp", "digits", 0)
    record = make_run(case, tmp_path, None, steps=200)
    write_records({"one": record}, tmp_path / "records.json.gz")
    read = read_records(tmp_path / "records.json.gz")["one"]
    assert read == json.loads(json.dumps(record))
    found = history_of(read)
    folder = tmp_path / "runs" / case.name
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert found.series("train/loss").values == pytest.approx([row["train/loss"] for row in rows], rel=1e-3)
    assert found.facts.steps_per_epoch == 19
    assert diagnose(found)[0].id == "layer_frozen"


@pytest.mark.parametrize(("hits", "count"), [(0, 8), (34, 40), (40, 40), (1, 152)])
def test_the_interval_of_a_share_is_wilsons(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert Share(hits, count).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("bank", ["second", "third", "fourth"])
def test_the_results_are_those_of_the_page(bank):
    page = (ROOT / "docs" / "doctor.md").read_text()
    found = json.loads(RESULTS[bank].read_text())["held_out"]
    for share in (found[key] for key in TITLES):
        low, high = round(100 * share["low"]), round(100 * share["high"])
        cell = f"{share['hits']} of {share['n']}, {100 * share['hits'] / share['n']:.0f} % ({low} to {high})"
        assert cell in page


def test_the_page_has_the_row_of_every_fault():
    page = (ROOT / "docs" / "doctor.md").read_text()
    found = json.loads(RESULTS["fourth"].read_text())
    rows = [line for line in markdown(found).splitlines() if line.startswith("| `")]
    assert len(rows) == len(FAULTS) - 1
    assert [row for row in rows if row not in page] == []


@pytest.mark.slow
def test_the_results_are_those_of_the_kept_runs():
    found = json.loads(RESULTS["fourth"].read_text())
    records = read_records(fixture("fourth", "held_out"))
    assert json.loads(json.dumps(scores(records.values()))) == found["held_out"]


@pytest.mark.parametrize("bank", ["second", "third", "fourth"])
def test_the_kept_runs_are_those_of_the_split(bank):
    for part in parts(bank):
        kept = read_records(fixture(bank, part)).values()
        split = {(case.fault, case.net, case.data, case.seed) for case in cases(part, bank)}
        found = {tuple(each["case"][key] for key in ("fault", "net", "data", "seed")) for each in kept}
        # Runs are made in random order, so that most of them are a fair sample
        assert found <= split and len(found) >= 0.95 * len(split)


def _record(fault, value, data="digits"):
    """Return a record that ends with an accuracy."""
    return {
        "case": {"fault": fault, "net": "mlp", "data": data},
        "status": "done",
        "curves": {"val/accuracy": {"values": [0.1, value]}},
    }


def test_a_fault_harms_a_run_whose_accuracy_is_lower_than_that_of_healthy_ones():
    healthy = [_record(HEALTHY, value) for value in (0.90, 0.92, 0.94)] + [_record(HEALTHY, 0.1, "shapes")]
    # Two standard deviations of 0.02 below the mean of 0.92
    assert harmed(_record("lr_x10", 0.87), healthy)
    assert not harmed(_record("lr_x10", 0.885), healthy)
    assert harmed(_record("leak", 0.99), healthy)
    assert harmed(_record("lr_x10", 0.99) | {"status": "diverged"}, healthy)
    equal = [_record(HEALTHY, 0.9)] * 3
    assert harmed(_record("lr_x10", 0.879), equal) and not harmed(_record("lr_x10", 0.881), equal)


def test_mutants_change_the_order_and_the_loss_and_are_undone():
    logits, labels = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    with mutated(Mutant.ORDERED):
        assert sampling.Shuffle(torch.zeros(5)).draw(0, 0)[0].tolist() == [0, 1, 2, 3, 4]
    with mutated(Mutant.SUMMED):
        summed = softmax.cross_entropy(2, None, label_smoothing=0.0, class_weights=None).train(logits, labels)
    mean = softmax.cross_entropy(2, None, label_smoothing=0.0, class_weights=None).train(logits, labels)
    assert summed == pytest.approx(2 * float(mean))
    assert [sampling.Shuffle(torch.zeros(50)).draw(0, 0)[0].tolist()] != [list(range(50))]


@pytest.mark.parametrize("name", ["letters", "small_letters", "clusters", "quantiles", "cancer", "numerals", "blocks"])
def test_made_data_have_all_classes_in_both_splits_and_few_common_examples(name, tmp_path):
    path = data_file(name, Alteration.WHOLE, tmp_path, None)
    arrays = np.load(path)
    classes = {*arrays["y_train"].tolist()}
    assert classes == {*arrays["y_val"].tolist()} == {*range(len(classes))}
    counts = equal_examples(path)
    assert counts["val_in_train"] == 0
    assert (counts["val"], counts["train"]) == (len(arrays["y_val"]), len(arrays["y_train"]))
    assert (arrays["x_train"].dtype == np.uint8) is (name in IMAGES)


def test_other_faults_of_the_data(tmp_path):
    made = {
        each: np.load(data_file("digits", each, tmp_path, None)) for each in Alteration if each is not Alteration.LEAK
    }
    whole = made[Alteration.WHOLE]
    assert equal_examples(data_file("digits", Alteration.LEAK, tmp_path, None))["val_in_train"] == len(whole["y_val"])
    kept = (made[Alteration.NOISY]["y_train"] == whole["y_train"]).mean()
    # 60 % stay, and a tenth of the others are drawn right
    assert kept == pytest.approx(0.64, abs=0.05)
    assert ((made[Alteration.SHIFTED]["y_val"] - whole["y_val"]) % 10 == 1).all()
    assert (np.diff(made[Alteration.SORTED]["y_train"]) >= 0).all()
    for split in ("train", "val"):
        counts = np.bincount(made[Alteration.RARE][f"y_{split}"])
        assert counts[0] == (whole[f"y_{split}"] == 0).sum() and counts[1:].max() <= counts[0] // 20
    assert made[Alteration.INVERTED]["x_val"].max(0).max() == whole["x_val"].max()
    assert len(made[Alteration.INVERTED]["y_train"]) == pytest.approx(0.1 * len(whole["y_train"]), rel=0.1)
    assert len(made[Alteration.PART]["y_train"]) == pytest.approx(0.05 * len(whole["y_train"]), rel=0.1)
