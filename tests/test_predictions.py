"""Predictions, class scores and figures at the end of a run and of `task=evaluate`."""

import csv
import dataclasses
import io
import json
import re
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
from running import job, result, run_in_child
from safetensors import safe_open
from sklearn import metrics as reference

from runner import tasks
from runner.door.jobs import trial_job
from runner.engine.saving import storage
from runner.engine.saving.storage import TEMPORARY
from runner.tasks import predictions

SMALL = ("model=mlp", "model.hidden=[16]", "epochs=2", "probe=[]", "figures=never", "name=a")
DOC = Path(__file__).parents[1] / "docs" / "metrics.md"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*words):
    assert tasks.start(job(*words)) == 0


def opened(path):
    """Return the arrays and the metadata of a file of predictions."""
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


RUN = Path("outputs/a")


def test_a_run_saves_the_predictions_that_its_scores_are_computed_from():
    start(*SMALL)
    scores = result(RUN)["scores"]
    for split, found in (("val", scores["val"]["best"]), ("test", scores["test"])):
        arrays, about = opened(RUN / "predictions" / f"{split}.safetensors")
        assert {name: str(array.dtype) for name, array in arrays.items()} == {
            "ids": "int64",
            "labels": "int64",
            "log_p": "float32",
        }
        p, y = np.exp(arrays["log_p"].astype(float)), arrays["labels"]
        assert p.sum(1) == pytest.approx(np.ones(len(p)), abs=1e-5)
        p /= p.sum(1, keepdims=True)
        assert np.array_equal(arrays["ids"], np.arange(len(y)))
        assert found["accuracy"] == reference.accuracy_score(y, p.argmax(1))
        assert found["nll"] == pytest.approx(reference.log_loss(y, p, labels=range(10)), rel=1e-5)
        assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, p.argmax(1)))
        assert found["f1_macro"] == pytest.approx(reference.f1_score(y, p.argmax(1), average="macro"))
        assert found["top5"] == reference.top_k_accuracy_score(y, p, k=5)
        assert 0 < found["ece"] < 1
        assert (about["split"], about["predict"], about["weights"]) == (split, "plain", result(RUN)["weights"])
        assert about["classes"] == [str(digit) for digit in range(10)]
        assert about["data"] == result(RUN)["data"][-1] and about["step"] == scores["val"]["best"]["step"]


def test_the_predictions_are_those_of_the_best_weights_not_of_the_last():
    rough = ("optim.lr=30", "scheduler=constant", "average=none", "norm=none")
    start(*SMALL[:2], "steps=30", "validate_every=1steps", *rough, *SMALL[3:])
    scores = result(RUN)["scores"]["val"]
    assert scores["best"]["accuracy"] > scores["last"]["accuracy"], "or the test tests nothing"
    arrays, _ = opened(RUN / "predictions" / "val.safetensors")
    assert (arrays["log_p"].argmax(1) == arrays["labels"]).mean() == scores["best"]["accuracy"]


@pytest.mark.parametrize("loss", ["mse", "hinge"])
def test_a_loss_without_probabilities_saves_logits(loss):
    start(*SMALL, f"loss={loss}")
    arrays, _ = opened(RUN / "predictions" / "val.safetensors")
    assert arrays.keys() == {"ids", "labels", "logits"}
    found = result(RUN)["scores"]["val"]["best"]
    assert (arrays["logits"].argmax(1) == arrays["labels"]).mean() == found["accuracy"]
    assert found.keys() == {"accuracy", "loss", "balanced_accuracy", "f1_macro", "top5", "step"}


def test_the_test_split_has_predictions_only_if_it_is_read():
    start(*SMALL, "test=never")
    assert result(RUN)["test_reads"] == 0
    assert files(RUN / "predictions") == ["val.safetensors"]
    start("task=evaluate", "run=outputs/a")
    assert result(RUN)["test_reads"] == 1
    assert "predictions/test.safetensors" in files(RUN)


def test_a_run_that_saves_nothing_scores_its_validations_only():
    start(*SMALL, "predictions=never")
    assert not (RUN / "predictions").exists()
    assert result(RUN)["scores"]["val"]["best"].keys() == {"accuracy", "loss", "nll", "step"}
    assert result(RUN)["scores"]["test"].keys() == {"accuracy", "loss", "nll"}


def test_a_trial_of_a_sweep_saves_none_unless_it_is_asked_to():
    for name, words, expected in (("x", (), False), ("y", ("predictions=always",), True)):
        made = trial_job(job(*SMALL).config | {"predictions": "auto", "test": "auto"}, SMALL, Path(name))
        made = dataclasses.replace(made, config=made.config | dict(word.split("=") for word in words))
        assert tasks.start(made) == 0
        assert Path(made.folder, "predictions", "val.safetensors").is_file() == expected


def test_large_predictions_are_left_out_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(predictions, "_AUTO_LIMIT", 1000)
    start(*SMALL)
    assert not (RUN / "predictions").exists()
    line = "predictions of val: not saved, they have 0 MB; predictions=always saves them"
    assert line in capsys.readouterr().err.splitlines()
    assert "f1_macro" in result(RUN)["scores"]["val"]["best"]
    start(*SMALL[:-1], "name=b", "predictions=always")
    assert files("outputs/b/predictions") == ["test.safetensors", "val.safetensors"]


def test_predictions_that_cannot_be_written_cost_no_result(monkeypatch, capsys):
    write = storage.write_atomic

    def full(path, data):
        if path.name.endswith(".safetensors") and path.parent.name == "predictions":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(predictions.storage, "write_atomic", full)
    start(*SMALL)
    assert result(RUN)["status"] == "done" and "f1_macro" in result(RUN)["scores"]["val"]["best"]
    assert "runner: warning: predictions/val.safetensors: not written (" in capsys.readouterr().err


def test_a_run_that_is_killed_while_it_saves_them_ends_as_if_it_were_not(monkeypatch):
    start(*SMALL[:-1], "name=b")

    def killed():
        import os
        import signal

        replace = storage.disk.replace

        def fatal(old, new):
            if new.parent.name == "predictions":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(old, new)

        storage.disk.replace = fatal
        return tasks.start(job(*SMALL))

    assert run_in_child(killed) == -9
    assert any(TEMPORARY.fullmatch(Path(name).name) for name in files(RUN))
    start("resume=outputs/a")
    assert not any(TEMPORARY.fullmatch(Path(name).name) for name in files(RUN))
    assert result(RUN)["scores"] == result(Path("outputs/b"))["scores"]
    for split in ("val", "test"):
        ours, theirs = (Path(f"outputs/{name}/predictions/{split}.safetensors").read_bytes() for name in "ab")
        assert ours == theirs


def test_a_metric_that_a_run_lists_is_logged_and_scored_at_each_validation():
    start(*SMALL, "metric=[f1_macro]", "predictions=never")
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in rows if "val/accuracy" in row]
    assert len(found) == 2 and all({"val/f1_macro", "train_eval/f1_macro"} <= row.keys() for row in found)
    scores = result(RUN)["scores"]
    assert scores["val"]["last"]["f1_macro"] == found[-1]["val/f1_macro"]
    assert scores["train_eval"]["last"]["f1_macro"] == found[-1]["train_eval/f1_macro"]
    assert "ece" not in scores["val"]["best"] and "f1_macro" in scores["test"]


@pytest.mark.parametrize(("score", "pick"), [("val/ece", min), ("val/f1_macro", max)])
def test_a_run_selects_by_the_metric_it_monitors(score, pick):
    start(*SMALL[:2], "steps=20", "validate_every=1steps", f"monitor={score}", *SMALL[3:])
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    series = {row["step"]: row[score] for row in rows if score in row}
    best = result(RUN)["scores"]["val"]["best"]
    assert len(series) == 20 and best[score.partition("/")[2]] == pick(series.values())
    assert best["step"] == next(step for step, value in series.items() if value == pick(series.values()))


@pytest.mark.rendered
def test_the_figures_and_tables_of_the_classes_are_in_the_folder(capsys):
    start(*(word for word in SMALL if word != "figures=never"))
    for name in ("confusion_val.png", "calibration_val.png"):
        assert (RUN / name).read_bytes().startswith(b"\x89PNG")
    arrays, _ = opened(RUN / "predictions" / "val.safetensors")
    expected = reference.confusion_matrix(arrays["labels"], arrays["log_p"].argmax(1))
    head, *rows = csv.reader((RUN / "confusion_val.csv").read_text().splitlines())
    assert head[1:] == [row[0] for row in rows] == [str(digit) for digit in range(10)]
    assert np.array_equal([[int(cell) for cell in row[1:]] for row in rows], expected)
    head, *rows = csv.reader((RUN / "classes_val.csv").read_text().splitlines())
    precision, recall, f1, count = reference.precision_recall_fscore_support(
        arrays["labels"], arrays["log_p"].argmax(1), zero_division=np.nan
    )
    for row, *scores in zip(rows, recall, precision, f1, strict=True):
        assert [float(cell or "nan") for cell in row[2:5]] == pytest.approx(scores, nan_ok=True)
    assert [int(row[1]) for row in rows] == list(count)
    worst = min(rows, key=lambda row: float(row[2]))
    shown = capsys.readouterr().out
    assert f"worst classes {worst[0]} {float(worst[2]):.4f}" in shown
    assert re.search(
        r"^more scores   aurc 0\.\d{4}, balanced_accuracy 0\.\d{4}, brier [01]\.\d{4}, ece 0\.\d{4}, f1_macro",
        shown,
        re.M,
    )


def test_an_evaluation_shows_the_classes_and_saves_what_it_scored(capsys):
    start(*SMALL, "test=never")
    before = files(RUN)
    start("task=evaluate", "run=outputs/a", "task.split=val", "predict=tta")
    shown = capsys.readouterr().out
    assert re.search(r"class +examples +accuracy +precision +F1 +mostly taken for", shown)
    assert "confusion matrix: rows are true classes, columns predicted ones" in shown
    assert set(files(RUN)) - set(before) == {
        *("calibration_val.png", "classes_val.csv", "confusion_val.csv", "confusion_val.png"),
        *("tta_val.html", "tta_val.md", "tta_val.png"),
    }
    assert opened(RUN / "predictions" / "val.safetensors")[1]["predict"] == "tta"
    start("task=evaluate", "run=outputs/a", "task.split=train", "predictions=never", "figures=never")
    assert "predictions/train.safetensors" not in files(RUN)
    start("task=evaluate", "run=outputs/a", "task.split=train", "figures=never")
    arrays, _ = opened(RUN / "predictions" / "train.safetensors")
    assert len(set(arrays["ids"])) == len(arrays["ids"]) and arrays["ids"].max() > len(arrays["ids"])


@pytest.mark.parametrize(("split", "changed"), [("val", set()), ("test", {"outputs/a/.lock", "outputs/a/result.json"})])
def test_an_evaluation_without_predictions_and_figures_writes_at_most_the_count_of_test_reads(split, changed):
    def state() -> dict[str, tuple[int, bytes]]:
        found = (path for path in Path().rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}

    start(*SMALL)
    before = state()
    start("task=evaluate", "run=outputs/a", f"task.split={split}", "predictions=never", "figures=never")
    after = state()
    written = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in written if "notebook" not in name} == changed
    assert split == "test" or not written


def test_an_evaluation_of_a_run_that_goes_on_saves_nothing_and_says_so():
    from runner.engine.saving.locking import lock

    def printed(*more) -> str:
        with redirect_stderr(io.StringIO()) as screen:
            assert tasks.start(job("task=evaluate", "run=outputs/a", "task.split=val", *more)) == 0
        return screen.getvalue()

    def evaluate() -> int:
        assert "the evaluation is not saved: " in printed()
        # Nothing is to be saved, and nothing is said
        assert "not saved" not in printed("predictions=never", "figures=never")
        return 0

    start(*SMALL)
    before = (RUN / "predictions" / "val.safetensors").stat().st_mtime_ns
    with lock(RUN):
        assert run_in_child(evaluate) == 0
    assert (RUN / "predictions" / "val.safetensors").stat().st_mtime_ns == before


def test_numpy_reads_the_predictions_as_the_page_says(capsys):
    start(*SMALL)
    block = re.search(r"```python\n(import json.*?)```", DOC.read_text(), re.S)[1]
    exec(compile(block.replace("outputs/mine", "outputs/a"), "doc", "exec"), {})
    accuracy = result(RUN)["scores"]["val"]["best"]["accuracy"]
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{accuracy:.4f} accuracy")
