"""The bank of runs with faults: its split, its overrides, its data, its records."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

import runner
from benchmarks.doctor.__main__ import RESULTS
from benchmarks.doctor.bank import make_run, read_records, write_records
from benchmarks.doctor.data_sets import data_file
from benchmarks.doctor.faults import FAULTS, HEALTHY, Alteration, overrides_of
from benchmarks.doctor.nets import NETS
from benchmarks.doctor.plan import PARTS, SPLITS, Case, cases
from benchmarks.doctor.scores import Share, history_of
from runner.doctor import diagnose
from runner.registry import find, names

ROOT = Path(__file__).parents[2]


BANKS = pytest.mark.parametrize("bank", SPLITS)
# By the bank the faulty and the healthy runs of each part at least, and a file that was first written after the split
SIZES = {"first": ((36, 40), (40, 150)), "second": ((100, 60), (100, 150))}
WRITTEN_AFTER = {"first": "runner/doctor/symptoms/rates.py", "second": "runner/doctor/symptoms/horizons.py"}


@BANKS
def test_no_net_data_set_or_seed_is_tuned_on_and_held_out(bank):
    tuning, held_out = cases("tuning", bank), cases("held_out", bank)
    for part in ("net", "data", "seed"):
        assert not {getattr(case, part) for case in tuning} & {getattr(case, part) for case in held_out}


def test_nothing_of_the_first_bank_is_held_out_in_the_second():
    known = [case for part in PARTS for case in cases(part)]
    for part in ("net", "data", "seed"):
        assert not {getattr(case, part) for case in known} & {
            getattr(case, part) for case in cases("held_out", "second")
        }


@BANKS
def test_the_split_is_as_large_as_asked_for(bank):
    kinds = set()
    for part, (sick, healthy) in zip(PARTS, SIZES[bank], strict=True):
        found = [case.fault for case in cases(part, bank)]
        assert found.count(HEALTHY) >= healthy
        assert len(found) - found.count(HEALTHY) >= sick
        assert len({*cases(part, bank)}) == len({case.name for case in cases(part, bank)}) == len(found)
        kinds |= {*found}
    assert len(kinds) - 1 >= {"first": 13, "second": 30}[bank]
    if bank == "second":
        assert kinds == {*FAULTS}
        # Nets and data sets of the held-out part
        assert len({case.net for case in cases("held_out", bank)}) >= 6
        assert len({case.data for case in cases("held_out", bank)}) >= 3


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
    assert found.series("train/loss").values == pytest.approx([row["train/loss"] for row in rows], rel=1e-4)
    assert found.facts.steps_per_epoch == 19
    assert diagnose(found)[0].id == "layer_frozen"


@pytest.mark.parametrize(("hits", "count"), [(0, 8), (34, 40), (40, 40), (1, 152)])
def test_the_interval_of_a_share_is_wilsons(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert Share(hits, count).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_results_are_those_of_the_page():
    found = json.loads(RESULTS.read_text())
    page = (ROOT / "docs" / "doctor.md").read_text()
    for key in ("detected", "cause_in_first_two", "false_warnings"):
        share = found["held_out"][key]
        assert f"{share['hits']} of {share['n']}, {100 * share['hits'] / share['n']:.0f} %" in page
