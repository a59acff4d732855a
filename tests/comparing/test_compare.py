"""task=compare on run folders with known scores: what it reports, what it leaves open, and what it rejects."""

import contextlib
import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from comparing_runs import write_run, write_sweep
from running import command, job
from scipy import stats

from runner.comparing.csv_tables import runs_csv
from runner.comparing.page import html_page, markdown_page
from runner.comparing.report import make_report
from runner.comparing.tables import calibration_table, cost_table
from runner.comparing.verdicts import Criterion
from runner.engine.fingerprint import Fingerprint, Part
from runner.engine.saving.folder import read_result, write_result
from runner.errors import ConfigError
from runner.tasks import start

pytestmark = pytest.mark.rendered

LOW = [0.80, 0.82, 0.81, 0.79, 0.83]
HIGH = [0.90, 0.91, 0.92, 0.89, 0.92]
NEAR = [0.81, 0.81, 0.82, 0.80, 0.82]
RULE = Criterion(metric="val/accuracy", at="last")


def compared(*folders, criterion=RULE, baseline=None):
    found = make_report([str(folder) for folder in folders], criterion, baseline)
    return {row.group.label: row for row in found.rows}, found


def asked(folder, *words):
    """Run the task in this process and return the folder that it left."""
    assert start(job("task=compare", f"runs={folder}", f"task.out={folder.parent / 'out'}", *words)) == 0
    return folder.parent / "out"


def test_seeds_are_averaged_and_differences_taken_seed_by_seed(tmp_path):
    rows, _ = compared(write_sweep(tmp_path / "s", {0.1: LOW, 0.5: HIGH}), baseline="optim.lr=0.1")
    assert rows["optim.lr=0.1"].verdict == "baseline"
    row = rows["optim.lr=0.5"]
    known = stats.ttest_rel(HIGH, LOW)
    interval = known.confidence_interval()
    assert (row.mean, row.sd) == pytest.approx((np.mean(HIGH), np.std(HIGH, ddof=1)))
    assert row.paired.mean == pytest.approx(np.mean(HIGH) - np.mean(LOW))
    assert (row.paired.low, row.paired.high) == pytest.approx((interval.low, interval.high))
    assert row.paired.p == row.p_holm == pytest.approx(known.pvalue)
    assert (row.verdict, row.better_in) == ("better", 5)


def test_what_is_not_distinguishable_is_never_called_no_effect(tmp_path):
    rows, found = compared(write_sweep(tmp_path / "s", {0.1: LOW, 0.5: NEAR}), baseline="lr=0.1")
    row = rows["optim.lr=0.5"]
    gaps = np.subtract(NEAR, LOW)
    assert row.p_holm > 0.05
    assert row.verdict == f"not distinguishable (n=5 would show {row.detectable:.4f})"
    assert row.detectable == pytest.approx(1.68 * np.std(gaps, ddof=1), rel=0.01)
    assert any("80 % power" in line for line in found.notes)


def test_only_a_stated_margin_makes_anything_equivalent(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW, 0.5: NEAR})
    for margin, verdict in ((0.05, "within +-0.05"), (0.001, "not distinguishable")):
        rows, _ = compared(
            folder, criterion=Criterion(metric="val/accuracy", at="last", margin=margin), baseline="lr=0.1"
        )
        assert rows["optim.lr=0.5"].verdict.startswith(verdict)


def test_a_smaller_loss_is_better(tmp_path):
    for rate, values in ((0.1, LOW), (0.5, HIGH)):
        for seed, value in enumerate(values):
            write_run(tmp_path / f"{rate}-{seed}", 0.5, loss=1 - value, optim__lr=rate, seed=seed)
    rows, _ = compared(tmp_path, criterion=Criterion(metric="val/loss", at="last"), baseline="lr=0.1")
    assert rows["optim.lr=0.5"].verdict == "better"
    rows, _ = compared(tmp_path, criterion=Criterion(metric="val/loss", at="last"), baseline="lr=0.5")
    assert rows["optim.lr=0.1"].verdict == "worse"


def by_schema(folder, *, old, new, **changes):
    """Write runs of two configurations by a version that wrote schema 1, and by this one."""
    for seed in range(3):
        write_run(folder / f"old-{seed}", 0.5, loss=old + seed / 100, schema=1, optim__lr=0.1, seed=seed, **changes)
        write_run(folder / f"new-{seed}", 0.6, loss=9.0, nll=new + seed / 50, optim__lr=0.5, seed=seed, **changes)


def test_losses_of_two_schemas_are_not_compared_but_likelihoods_are(tmp_path):
    by_schema(tmp_path, old=1.0, new=0.8, loss__name="focal")
    with pytest.raises(ConfigError) as caught:
        compared(tmp_path, criterion=Criterion(metric="val/loss", at="last"))
    assert "val/loss" in str(caught.value) and "3 of schema 1, 3 of schema 2" in str(caught.value)
    assert str(caught.value).endswith("use val/nll") and "\n" not in str(caught.value)
    rows, found = compared(tmp_path, criterion=Criterion(metric="val/nll", at="last"), baseline="lr=0.1")
    assert rows["optim.lr=0.1"].mean == pytest.approx(1.01) and rows["optim.lr=0.5"].mean == pytest.approx(0.82)
    assert rows["optim.lr=0.5"].verdict == "better"
    assert "val/loss is left out: results of schema 1 hold val/nll in its place" in found.warnings
    header = runs_csv(found).splitlines()[0]
    assert "val/nll last" in header and "val/loss" not in header


def test_an_older_result_of_scores_without_probabilities_has_no_likelihood(tmp_path):
    by_schema(tmp_path, old=1.0, new=0.8, loss__name="mse")
    rows, _ = compared(tmp_path, criterion=Criterion(metric="val/nll", at="last"), baseline="lr=0.5")
    assert rows["optim.lr=0.1"].scores == {}


def test_runs_of_schema_1_are_compared_by_their_loss_as_ever(tmp_path):
    for rate, values in ((0.1, LOW), (0.5, HIGH)):
        for seed, value in enumerate(values):
            write_run(tmp_path / f"{rate}-{seed}", 0.5, loss=1 - value, schema=1, optim__lr=rate, seed=seed)
    for metric in ("val/loss", "val/nll"):
        rows, found = compared(tmp_path, criterion=Criterion(metric=metric, at="last"), baseline="lr=0.1")
        assert rows["optim.lr=0.5"].verdict == "better"
        assert not [line for line in found.warnings if "schema" in line]


def test_different_losses_are_not_compared(tmp_path):
    write_run(tmp_path / "a", 0.5, loss__name="mse", seed=0)
    write_run(tmp_path / "b", 0.5, loss__name="focal", seed=0)
    with pytest.raises(ConfigError, match=r"another loss in some runs \(.*mse in 1.*\); use val/nll or val/accuracy"):
        compared(tmp_path, criterion=Criterion(metric="val/loss", at="last"))
    compared(tmp_path, criterion=Criterion(metric="val/accuracy", at="last"))


def test_label_smoothing_leaves_losses_comparable(tmp_path):
    for smoothing in (0.0, 0.1):
        write_run(tmp_path / f"{smoothing}", 0.5, loss__label_smoothing=smoothing, seed=0)
    compared(tmp_path, criterion=Criterion(metric="val/loss", at="last"))


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_seeds_give_no_verdict_and_no_p(tmp_path, count):
    rows, found = compared(write_sweep(tmp_path / "s", {0.1: LOW[:count], 0.5: HIGH[:count]}), baseline="lr=0.1")
    row = rows["optim.lr=0.5"]
    assert row.verdict == f"none: {'one seed' if count == 1 else '2 seeds'}, 3 needed"
    assert math.isnan(row.p_holm) and math.isnan(row.sd)
    assert any("single runs" in line for line in found.notes) == (count == 1)


def test_other_seeds_are_no_pairs(tmp_path):
    for seed, value in enumerate(LOW):
        write_run(tmp_path / f"a{seed}", value, optim__lr=0.1, seed=seed)
        write_run(tmp_path / f"b{seed}", HIGH[seed], optim__lr=0.5, seed=seed + 10)
    rows, _ = compared(tmp_path, baseline="lr=0.1")
    row = rows["optim.lr=0.5"]
    assert row.verdict == "none: 0 seeds in common, 3 needed"
    assert row.welch.p == pytest.approx(stats.ttest_ind(HIGH, LOW, equal_var=False).pvalue)


def test_a_diverged_seed_is_shown_and_takes_the_verdict(tmp_path):
    rows, found = compared(write_sweep(tmp_path / "s", {0.1: LOW, 0.5: [*HIGH[:4], None]}), baseline="lr=0.1")
    row = rows["optim.lr=0.5"]
    assert row.verdict == "none: 1 of 5 diverged" and row.failed and math.isnan(row.p_holm)
    assert "optim.lr=0.5: 1 of 5 diverged (seed 4), excluded from the mean: at step 3: loss is nan" in found.warnings
    rows, _ = compared(tmp_path / "s", baseline="lr=0.5")
    assert rows["optim.lr=0.1"].verdict == "none: 1 of 5 baseline runs diverged"


def test_an_interrupted_seed_is_shown_and_leaves_the_others_their_verdict(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW, 0.5: HIGH[:4]})
    write_run(folder / "x", None, status="interrupted", reason="SIGINT", optim__lr=0.5, seed=4)
    rows, found = compared(folder, baseline="lr=0.1")
    assert rows["optim.lr=0.5"].verdict == "better, from 4 of 5 seeds" and rows["optim.lr=0.5"].failed
    assert "optim.lr=0.5: 1 of 5 interrupted (seed 4), excluded from the mean: SIGINT" in found.warnings


def test_scores_equal_to_the_bit_are_suspected(tmp_path):
    rows, _ = compared(write_sweep(tmp_path / "s", {0.1: LOW, 0.5: LOW}), baseline="lr=0.1")
    assert rows["optim.lr=0.5"].verdict == "none: all scores are bit-identical; does the setting have any effect?"


def test_p_is_adjusted_over_the_rows_that_something_is_said_of(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW, 0.2: NEAR, 0.5: HIGH, 0.9: HIGH[:2]})
    rows, _ = compared(folder, baseline="lr=0.1")
    p = sorted(rows[f"optim.lr={rate}"].paired.p for rate in (0.2, 0.5))
    assert rows["optim.lr=0.5"].p_holm == pytest.approx(2 * p[0])
    assert rows["optim.lr=0.2"].p_holm == pytest.approx(p[1])
    assert math.isnan(rows["optim.lr=0.9"].p_holm)


def test_a_repeated_seed_is_no_replication(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW})
    write_run(folder / "again", LOW[0], optim__lr=0.1, seed=0, started=9)
    rows, found = compared(folder)
    assert len(next(iter(rows.values())).scores) == 5
    assert any(line.startswith("1 run repeats a seed") for line in found.warnings)


def test_a_failed_first_try_gives_way_to_the_one_that_ended_well(tmp_path):
    write_run(tmp_path / "a", None, status="failed", seed=0)
    write_run(tmp_path / "b", 0.7, seed=0, started=9)
    rows, _ = compared(tmp_path)
    assert next(iter(rows.values())).scores == {0: 0.7}


def test_other_data_are_refused_and_another_batch_size_is_not(tmp_path):
    write_run(tmp_path / "a", 0.8)
    write_run(tmp_path / "b", 0.8, data__batch_size=32)
    rows, _ = compared(tmp_path)
    assert set(rows) == {"data.batch_size=32", "data.batch_size=64"}
    write_run(tmp_path / "c", 0.8, data={"name": "gaussian", "batch_size": 64, "placement": "auto"})
    with pytest.raises(ConfigError, match=r"different data \(.*name=digits: 2 runs; name=gaussian: 1 run\)"):
        compared(tmp_path)


def reads(folder, *, train="0", val="0", **more):
    """Let a run say which training and validation examples it read."""
    parts = {"train": Part(listing=train * 32, content=train * 32), "val": Part(listing=val * 32, content=val * 32)}
    found = Fingerprint(parts=parts)
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": found.to_record(), **more}))
    write_result(folder, replace(read_result(folder), data=[found.id]))
    return found.id


def test_the_same_examples_in_another_place_are_compared_and_other_ones_are_not(tmp_path):
    folders = {"name": "imagefolder", "batch_size": 64, "size": [8, 8], "val_fraction": 0.1, "test_fraction": 0.1}
    for seed, root in enumerate(("a", "b")):
        reads(write_run(tmp_path / root, 0.8, seed=seed, data={**folders, "root": root}))
    rows, _ = compared(tmp_path)
    assert [len(row.group.runs) for row in rows.values()] == [2]
    reads(write_run(tmp_path / "c", 0.8, seed=2, data={**folders, "root": "a"}), val="1")
    with pytest.raises(ConfigError, match=r"different data \(validation examples=00000000: 2 runs; .*=11111111: 1 run"):
        compared(tmp_path)


def test_other_training_examples_are_another_configuration(tmp_path):
    ids = [reads(write_run(tmp_path / f"{part}{seed}", 0.8, seed=seed), train=part) for part in "01" for seed in (0, 1)]
    write_run(tmp_path / "old", 0.8, seed=2, optim__lr=0.5)
    rows, _ = compared(tmp_path, baseline="optim.lr=0.5")
    named = {label: len(row.group.runs) for label, row in rows.items() if "0.5" not in label}
    assert sorted(named.values()) == [2, 2]
    assert all(f"data.fingerprint={each[:8]}" in " ".join(named) for each in ids)


def test_a_run_that_does_not_say_what_it_read_counts_to_its_configuration(tmp_path):
    reads(write_run(tmp_path / "new", 0.8, seed=0))
    write_run(tmp_path / "old", 0.8, seed=1)
    rows, found = compared(tmp_path)
    assert [len(row.group.runs) for row in rows.values()] == [2]
    assert any(line.startswith("data differs:") and "without a fingerprint" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 5}, "budgets differ"),
        ({"validate_every": "5steps"}, "selection rules differ"),
        ({"precision": "bf16"}, "precision differs"),
    ],
)
def test_unequal_conditions_are_told_above_the_table(tmp_path, change, said):
    write_run(tmp_path / "a", 0.8)
    write_run(tmp_path / "b", 0.8, **change)
    _, found = compared(tmp_path)
    assert any(line.startswith(said) for line in found.warnings)


def test_unreadable_runs_are_told_of(tmp_path):
    write_run(tmp_path / "a", 0.8)
    (write_run(tmp_path / "b", 0.8, seed=1) / "result.json").write_text("{")
    (write_run(tmp_path / "c", 0.8, seed=2) / "config.yaml").write_text("model: [")
    (write_run(tmp_path / "d", 0.8, seed=3) / "config.yaml").write_text("model: mlp\n")
    _, found = compared(tmp_path)
    assert [line for line in found.warnings if line.startswith("unreadable: ")] == [
        "unreadable: 1 of unknown configuration left out (c): config.yaml: did not find expected node content",
        "unreadable: 1 of unknown configuration left out (d): config.yaml: is not the config of a run",
    ]
    assert any("1 of 2 failed (seed 1), excluded from the mean: result.json: malformed" in x for x in found.warnings)
    assert found.runs == 2


def test_the_best_of_many_is_told_as_such_and_test_reads_are_counted(tmp_path):
    write_sweep(tmp_path / "s", {rate: [x + rate / 100 for x in LOW] for rate in (0.1, 0.2, 0.3, 0.4, 0.5)})
    _, found = compared(tmp_path)
    error = np.std(LOW, ddof=1) / math.sqrt(5)
    lead = float(re.search(r"leads the mean by ([\d.]+)", "\n".join(found.notes))[1])
    assert lead == pytest.approx(1.16296 * error, abs=1e-4)  # E[max of 5 standard normals], Teichroew 1956
    assert not any("test split" in line for line in found.notes)
    write_run(tmp_path / "t", 0.9, test=0.88, seed=7)
    assert any("the test split was read 1 time by" in line for line in compared(tmp_path)[1].notes)


def test_the_baseline_is_the_one_with_most_seeds_and_can_be_named(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW[:2], 0.5: HIGH})
    assert compared(folder)[1].baseline.label == "optim.lr=0.5"
    for wanted in ("optim.lr=0.1", "lr=1e-1", next(folder.glob("optim.lr=0.1*")).name):
        assert compared(folder, baseline=wanted)[1].baseline.label == "optim.lr=0.1"
    with pytest.raises(ConfigError, match=r"task.baseline: 'lr=7' matches no configuration \(available: optim.lr=0.1"):
        compared(folder, baseline="lr=7")


def test_knobs_that_follow_their_part_are_left_out_of_the_names(tmp_path):
    write_run(tmp_path / "a", 0.8, optim={"name": "momentum", "lr": 0.1, "momentum": 0.9})
    write_run(tmp_path / "b", 0.8, optim={"name": "adam", "lr": 0.001, "beta1": 0.9})
    rows, _ = compared(tmp_path)
    assert set(rows) == {"optim=momentum", "optim=adam"}
    write_run(tmp_path / "c", 0.8, optim={"name": "adam", "lr": 0.01, "beta1": 0.9})
    rows, _ = compared(tmp_path)
    assert set(rows) == {"optim=momentum,optim.lr=0.1", "optim=adam,optim.lr=0.001", "optim=adam,optim.lr=0.01"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Compare ten runs, one of them diverged, twice; return the two folders and what the first run printed."""
    top = tmp_path_factory.mktemp("saved")
    folder = write_sweep(top / "s", {0.1: LOW, 0.5: HIGH, 0.7: [*HIGH[:4], None]}, augment={})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        asked(folder, "task.baseline=lr=0.1")
    asked(folder, "task.baseline=lr=0.1")
    return top / "out", top / "out-2", printed.getvalue()


class Asking(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.asked, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.asked += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_holds_everything_and_asks_for_nothing(saved):
    left, _, _ = saved
    names = {
        "comparison.html",
        "comparison.md",
        "comparison.csv",
        "runs.csv",
        "curves.svg",
        "seeds.svg",
        "response.svg",
    }
    assert {path.name for path in left.iterdir()} == names
    page = Asking()
    page.feed((left / "comparison.html").read_text())
    assert page.asked and all(word.startswith("data:image/svg+xml;base64,") for word in page.asked)
    assert "script" not in page.tags and page.tags.count("img") == 3


def test_csv_has_all_digits_of_all_runs(saved):
    left, _, _ = saved
    rows = list(csv.DictReader(io.StringIO((left / "runs.csv").read_text())))
    assert len(rows) == 15 and [row["status"] for row in rows].count("diverged") == 1
    assert {float(row["val/accuracy last"]) for row in rows if row["val/accuracy last"]} == {*LOW, *HIGH}
    groups = list(csv.DictReader(io.StringIO((left / "comparison.csv").read_text())))
    assert float(groups[2]["difference"]) == pytest.approx(np.mean(np.subtract(HIGH[:4], LOW[:4])))
    assert groups[2]["verdict"] == "none: 1 of 5 diverged" and groups[2]["p_holm"] == ""


def test_the_terminal_gets_eighty_columns(saved):
    _, _, printed = saved
    assert max(map(len, printed[: printed.index("saved in")].splitlines())) <= 80
    assert re.search(r"lr=0.5\s+5\s+0\.9080 ± 0\.0130\s+\+0\.0980 ± 0\.\d{4}\s+<?\.\d+\s+better", printed)
    assert re.search(r"lr=0.7 †\s+4/5\s+0\.9050", printed)
    notes = printed[printed.index("\n- ") + 1 :].split("\n \n")[0].split(" configuration")[0].rstrip().splitlines()
    assert {line[:2] for line in notes} == {"- ", "  "}


def test_what_no_run_has_is_no_column(tmp_path):
    def columns(curve):
        folder = tmp_path / str(curve)
        for number, lr in enumerate((0.1, 0.5)):
            write_run(folder / f"{number}", 0.8, optim__lr=lr, curve=curve)
        first, second = cost_table(compared(folder)[1])
        assert first.keys() == second.keys()
        return {*first}

    assert columns(True) - columns(False) == {"ms/step", "examples/s", "peak MB", "log10 ratio"}


def test_a_second_comparison_says_the_same_in_another_folder(saved):
    first, second, _ = saved
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    assert all((second / path.name).read_bytes() == path.read_bytes() for path in first.iterdir())


def test_strangers_words_stay_words(tmp_path):
    write_run(tmp_path / "a", None, status="failed", reason="<script>alert(1)</script>|x", optim__lr=0.5)
    write_run(tmp_path / "b", 0.8, model={"name": "<img src=x>"})
    _, found = compared(tmp_path)
    page, text = html_page(found, {}, "<b>"), markdown_page(found, {}, "x")
    assert not re.search("<(script|img|b)[ >]", page) and "&lt;script&gt;" in page
    assert "\\<script\\>" in text and "\\|x" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs=nowhere/x*"], "runs: no run found for 'nowhere/x*' (there is no such folder in "),
        (["runs=empty"], "runs: 'empty' is not a run folder and contains none (a run folder has"),
        (["run=s"], "run: requires task=evaluate, predict, export, probe_stages or doctor; got task=compare"),
        (["runs=[]"], "runs: got [], must name at least one"),
        (["runs=s", "task.baseline=lr=9"], "task.baseline: 'lr=9' matches no configuration"),
        (["runs=s", "task.metric=test/accuracy"], "task.metric: unknown value 'test/accuracy'"),
    ],
)
def test_errors_take_one_line_and_leave_nothing(tmp_path, words, said):
    write_sweep(tmp_path / "s", {0.1: LOW[:1], 0.5: HIGH[:1]})
    (tmp_path / "empty").mkdir()
    done = command("task=compare", *words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"runner: error: {said}") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "s"]


def test_folders_with_commas_and_lists_of_them_are_taken_as_typed(tmp_path):
    folder = write_sweep(tmp_path / "s", {0.1: LOW, 0.5: HIGH})
    first = sorted(folder.iterdir())[0]
    assert job("task=compare", f"runs={first}").config["runs"] == str(first)
    patterns = job("task=compare", f"runs=['{first}','{folder}/optim.lr=0.5*']").config["runs"]
    assert compared(*patterns)[1].runs == 6


def with_calibration(folder, **scores):
    """Add scores of the selected weights to a run, as its end computes them."""
    found = read_result(folder)
    found.scores["val"]["best"] |= scores
    write_result(folder, found)


def test_scores_of_probabilities_are_shown_where_runs_have_them(tmp_path, capsys):
    for number, lr in enumerate((0.1, 0.1, 0.1, 0.5)):
        write_run(tmp_path / f"s/{number}", 0.8, optim__lr=lr, seed=number, loss=0.3 + 0.1 * number)
    assert calibration_table(compared(tmp_path / "s")[1]) == []
    for number in range(3):
        with_calibration(tmp_path / f"s/{number}", ece=0.02 * (number + 1), brier=0.25)
    _, found = compared(tmp_path / "s", baseline="lr=0.1")
    assert calibration_table(found) == [
        {
            "configuration": "optim.lr=0.1",
            "val/nll (best)": "0.4000 ± 0.1000",
            "val/ece (best)": "0.0400 ± 0.0200",
            "val/brier (best)": "0.2500 ± 0.0000",
        },
        {"configuration": "optim.lr=0.5", "val/nll (best)": "0.6000", "val/ece (best)": "", "val/brier (best)": ""},
    ]
    out = asked(tmp_path / "s")
    rows = list(csv.DictReader(io.StringIO((out / "runs.csv").read_text())))
    assert sorted(row["val/ece best"] for row in rows) == ["", "0.02", "0.04", "0.06"]
    assert not [name for name in rows[0] if "aurc" in name or name == "val/ece last"]
    for text in ((out / "comparison.html").read_text(), (out / "comparison.md").read_text()):
        assert "Calibration" in text and "0.0400 ± 0.0200" in text
    assert "0.0400 ±" in capsys.readouterr().out
