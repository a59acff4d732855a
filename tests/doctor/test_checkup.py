"""Several runs examined together: siblings, shares, notes, and the pages."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hand_made import facts, history, series, write_folder

from runner.comparing.runs import find_runs
from runner.doctor import Evidence, Finding, Severity
from runner.doctor.checkup import examine, shares
from runner.doctor.figures import diagnosis_figure
from runner.doctor.page import checkup_record, draw_pictures, headline, html_page, markdown_page, shares_table
from runner.doctor.screen import numbered_advice, print_checkup
from runner.door.options import find_conf
from runner.door.variants import vary
from runner.errors import CheckpointError, ConfigError
from runner.registry import register


@pytest.fixture(autouse=True, scope="module")
def _rule():
    """Register the rule for this module only: every run of a process asks all rules."""
    register("symptom")(ends_high)


def ends_high(history):
    """Fire for a last training loss above 2, and say which siblings ended lower."""
    last = history.series("train/loss").values[-1:]
    if not len(last) or not last[0] > 2:
        return None
    lower = sum(each.series("train/loss").values[-1] < last[0] for each in history.siblings)
    return Finding(
        id="ends_high",
        severity=Severity.WARN if lower else Severity.HINT,
        confidence=0.5,
        evidence=Evidence(numbers={"end": float(last[0]), "lower_siblings": lower}, steps=(2, 3), tags=("train/loss",)),
        why="The loss <ends> high.",
        advice=(("optim.lr=0.01",), ("optim.lr=-1",)),
        probe="another rate",
        source="a test",
    )


def rows(last):
    return [{"step": step, "train/loss": value, "val/accuracy": 0.5} for step, value in ((1, 2.5), (2, 2.4), (3, last))]


def on(runs, *patterns):
    return examine(find_runs(patterns or [str(runs)]).runs, lambda *given: vary(find_conf(), *given))


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    for lr, last in ((0.1, 0.5), (1.0, 2.2), (2.0, 2.3)):
        for seed in (0, 1):
            write_folder(
                folder / f"lr={lr}-seed={seed}", rows(last), optim__lr=lr, seed=seed,
                optim__weight_decay=0.0 if lr < 1 else 0.1,
            )  # fmt: skip
    return folder


def mine(findings):
    return [each for each in findings if each.id == "ends_high"]


def test_the_runs_of_a_folder_are_siblings(sweep):
    found = on(sweep)
    by_name = {each.run.folder.name: mine(each.findings) for each in found.runs}
    assert by_name["lr=0.1-seed=0"] == []
    # Two of 0.1, and of the larger rate also two of the smaller one
    assert by_name["lr=1.0-seed=0"][0].evidence.numbers["lower_siblings"] == 2
    assert by_name["lr=2.0-seed=1"][0].evidence.numbers["lower_siblings"] == 4
    assert found.runs[-1].run.folder.name.startswith("lr=0.1") and not found.notes


def test_runs_of_other_folders_are_no_siblings(sweep, tmp_path):
    write_folder(tmp_path / "alone", rows(3.0))
    found = on(None, str(sweep), str(tmp_path / "alone"))
    alone = next(each for each in found.runs if each.run.folder.name == "alone")
    assert mine(alone.findings)[0].evidence.numbers["lower_siblings"] == 0
    assert mine(alone.findings)[0].severity is Severity.HINT


def test_a_share_names_the_values_that_only_sick_runs_have(sweep):
    share = next(each for each in shares(on(sweep)) if each.id == "ends_high")
    assert len(share.runs) == 4 and share.severity is Severity.WARN
    assert share.shared == {"optim.weight_decay": "0.1"}
    row = next(row for row in shares_table(on(sweep)) if row["symptom"] == "ends_high")
    assert (row["runs"], row["severity"], row["only with"]) == ("4 of 6", "warning", "optim.weight_decay=0.1")
    assert row["such as"].endswith("and 1 more")


def test_advice_is_composed_and_numbered_once(sweep):
    one = next(each for each in on(sweep).runs if mine(each.findings))
    assert mine(one.findings)[0].advice == (("optim.lr=0.01",),)
    assert [words for finding, words in numbered_advice(one) if finding.id == "ends_high"] == [("optim.lr=0.01",)]


def test_a_config_that_this_version_refuses_is_a_note(tmp_path):
    write_folder(tmp_path / "run", rows(3.0), optim={"name": "of_a_user", "lr": 1.0})
    found = on(tmp_path / "run")
    assert mine(found.runs[0].findings)[0].advice == ()
    assert len(found.notes) == 1 and "no advice" in found.notes[0]


def test_a_run_that_goes_on_or_has_no_curves_is_one_line_or_a_note(tmp_path):
    write_folder(tmp_path / "all/ended", rows(0.5))
    write_folder(tmp_path / "all/going", rows(0.5), status="running")
    write_folder(tmp_path / "all/empty", [])
    (write_folder(tmp_path / "all/lost", rows(0.5)) / "metrics.jsonl").unlink()
    found = on(tmp_path / "all")
    assert [each.run.folder.name for each in found.runs] == ["ended"]
    assert len(found.notes) == 3 and all(note.startswith("left out: ") for note in found.notes)
    for name, error, text in (
        ("going", ConfigError, "has not ended"),
        ("empty", CheckpointError, "no numbers"),
        ("lost", CheckpointError, "there is none"),
    ):
        with pytest.raises(error, match=text):
            on(tmp_path / "all" / name)
    with pytest.raises(ConfigError, match="none of the 2 runs can be read"):
        on(None, str(tmp_path / "all/going"), str(tmp_path / "all/lost"))


def command(examined, advice):
    return f"runner <{examined.run.folder.name}> {' '.join(advice)}"


def test_the_pages_have_all_findings_and_load_nothing(sweep):
    found = on(sweep)
    markdown, html = (page(found, {"curves-1": b"<svg/>"}, command, "given") for page in (markdown_page, html_page))
    assert markdown.count("warning: ends\\_high") == html.count("warning: ends_high</h3>") == 4
    assert "![curves](curves-1.svg)" in markdown and "curves-2.svg" not in markdown
    assert "The loss &lt;ends&gt; high." in html and "<ends>" not in html
    assert "try: <code>runner &lt;lr=1.0-seed=0&gt; optim.lr=0.01</code>" in html
    assert html.count("<img") == 1 and "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=\"(?!data:)", html)
    assert "<h2>Without findings</h2><ul><li>" in html
    record = json.loads(json.dumps(checkup_record(found), allow_nan=False))
    assert record["symptoms"]["ends_high"] == 4 and len(record["runs"]) == 6


def test_the_headline_counts(sweep, tmp_path):
    assert headline(on(sweep)).startswith("6 runs: 4 with findings (4 warnings")
    write_folder(tmp_path / "well", rows(0.5), steps=57)
    assert re.search(r"well, done after 57 steps: no findings, \d+ symptoms? checked$", headline(on(tmp_path / "well")))
    write_folder(tmp_path / "early", rows(0.5), status="stopped", done_steps=38, steps=57, patience=1)
    assert "early, stopped early after 38 of 57 steps" in headline(on(tmp_path / "early"))


@pytest.mark.parametrize("columns", [60, 100, 140])
def test_the_screen_fits_and_cuts_no_advice(sweep, capfd, monkeypatch, columns):
    monkeypatch.setattr("runner.doctor.screen._WIDTH", columns)
    one = next(str(each.run.folder) for each in on(sweep).runs if mine(each.findings))
    print_checkup(on(None, one))
    print_checkup(on(sweep))
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert any(line.startswith(("warning  ends_high", "hint     ends_high")) for line in lines)
    assert any(line.endswith("optim.lr=0.01") for line in lines)


def svg_of(history, findings):
    return ElementTree.fromstring(diagnosis_figure(history, findings).draw())


def marks(figure):
    """Return (panel, first step, last step, number) of each mark, read from the axes of the figure."""
    found = []
    for panel, axes in enumerate(figure.axes):
        spans = [patch.get_x() for patch in axes.patches]
        ends = [patch.get_x() + patch.get_width() for patch in axes.patches]
        numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
        found += [(panel, first, end, number) for first, end, number in zip(spans, ends, numbers, strict=True)]
    return found


def finding_on(*tags, steps=(100, 200), severity=Severity.WARN):
    return Finding(
        id="x", severity=severity, confidence=0.5, evidence=Evidence(numbers={}, steps=steps, tags=tags),
        why="", advice=(), probe=None, source="",
    )  # fmt: skip


def test_a_finding_is_marked_at_its_steps_in_the_panels_of_its_curves():
    loss = series(np.linspace(2, 1, 400))
    found = history(facts(), train__loss=loss, val__accuracy=series([0.1, 0.5], [200, 400]), train__lr=loss)
    findings = [
        finding_on("train/loss"),
        finding_on("val/accuracy", "train_eval/accuracy", steps=(200, 400)),
        finding_on("ratio/l2/_global", steps=(1, 50)),
        finding_on("train/lr/decay", steps=(5, 9)),
        # No panel shows these
        finding_on("activations/hidden.fc1.act/dead", steps=(300, 400)),
    ]
    drawn = marks(diagnosis_figure(found, findings).make())
    assert [(panel, first, number) for panel, first, _, number in drawn] == [
        (0, 100, "1"), (0, 300, "5"), (1, 200, "2"), (2, 5, "4"), (3, 1, "3"),
    ]  # fmt: skip
    assert [end for _, _, end, _ in drawn] == [200, 400, 400, 9, 50]


@pytest.mark.rendered
def test_curves_without_numbers_or_of_one_point_are_drawn():
    nan = history(facts(), train__loss=[np.nan, np.inf], val__accuracy=[0.5])
    root = svg_of(nan, [finding_on("train/loss", steps=(1, 1), severity=Severity.ERROR)])
    assert root.tag.endswith("svg")
    assert svg_of(history(facts()), []).tag.endswith("svg")


def test_only_sick_runs_are_drawn_and_a_run_that_is_alone(sweep):
    assert sorted(draw_pictures(on(sweep))) == ["curves-1", "curves-2", "curves-3", "curves-4"]
    assert sorted(draw_pictures(on(sweep / "lr=0.1-seed=0"))) == ["curves-1"]
