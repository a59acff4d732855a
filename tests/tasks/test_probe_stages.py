"""task=probe_stages: features as torchvision extracts them, scores of a run and of weights, files, refusals."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import result
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from runner.__main__ import main
from runner.components.model.stages import stages
from runner.engine import feature_cache
from runner.tasks import probe_stages as task
from runner.tasks import stage_features
from runner.tasks.stage_features import make_reader, pooled

SMALL = ("model=resnet", "model.width=8", "steps=20", "device=cpu", "figures=never", "augment=[]", "probe=[]")
RUN = Path("outputs/base")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*SMALL, "test=never", "name=base"]) == 0
    return folder


@pytest.fixture(autouse=True)
def place(trained, monkeypatch):
    monkeypatch.chdir(trained)


def report(folder=RUN, name="stages"):
    return json.loads((folder / f"{name}.json").read_text())


def numbers(record):
    return [{key: value for key, value in each.items() if key != "stage"} for each in record["stages"]]


def reader_of(model, shape):
    return make_reader(model, stages(model, shape), nullcontext)


@pytest.mark.parametrize(
    ("arch", "shape", "nodes", "axes"),
    [
        ("resnet18", (3, 32, 32), ["layer1", "layer3"], (2, 3)),
        ("swin_t", (3, 32, 32), ["features.1", "features.5"], (1, 2)),
        ("convnext_tiny", (3, 32, 32), ["features.1"], (2, 3)),
        ("densenet121", (3, 32, 32), [], (2, 3)),
    ],
)
def test_features_are_those_that_torchvision_extracts(arch, shape, nodes, axes):
    torch.manual_seed(0)
    model = getattr(models, arch)(num_classes=5).eval()
    images = torch.randn(2, *shape)
    reader = reader_of(model, shape)
    found = reader.of(images, list(reader.places))
    assert list(found) == list(reader.places) and all(each.shape[0] == 2 and each.ndim == 2 for each in found.values())
    expected = create_feature_extractor(model, _ends(model, nodes))(images) if nodes else {}
    for name in nodes:
        own = next(each for each in found if each in (name, name.rpartition(".")[2]))
        torch.testing.assert_close(found[own], expected[name].mean(axes), atol=1e-5, rtol=1e-5)


def _ends(model, nodes):
    """Return the last node of each module."""
    known = get_graph_node_names(model)[1]
    return {[node for node in known if node.startswith(f"{module}.")][-1]: module for module in nodes}


def test_the_last_features_are_the_inputs_of_the_head():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    images = torch.randn(5, 1, 8, 8)
    found = reader_of(model, (1, 8, 8)).of(images, list(reader_of(model, (1, 8, 8)).places))
    torch.testing.assert_close(list(found.values())[-1], model[:-1](images))
    torch.testing.assert_close(next(iter(found.values())), model[:3](images).mean((2, 3)))


def test_channels_are_those_of_the_layer_that_reads_them():
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(pooled(x, nn.Sequential(nn.ReLU(), nn.Conv2d(4, 1, 1))), x.mean((2, 3)))
    torch.testing.assert_close(pooled(x, nn.Sequential(nn.LayerNorm(4))), x.mean((1, 2)))
    tokens = torch.randn(2, 5, 3)
    torch.testing.assert_close(pooled(tokens, nn.Identity()), tokens.mean(1))


def test_a_run_is_probed_and_its_folder_has_the_report(capsys):
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    printed, record = capsys.readouterr().out, report()
    assert [each["stage"] for each in record["stages"]] == ["stem", "stage1", "stage2", "stage3"]
    assert [each["features"] for each in record["stages"]] == [8, 8, 16, 32]
    assert record["examples"] == {"train": 1200, "val": 297} and record["not_called"] == []
    best = max(each["accuracy"] for each in record["stages"])
    assert f"{best:.4f}" in printed and "saved in      outputs/base: stages.json, stages.png" in printed
    assert (RUN / "stages.png").read_bytes().startswith(b"\x89PNG")
    assert best > 0.7 and result(RUN)["test_reads"] == 0


def test_the_same_weights_have_the_same_scores_as_init_from():
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    words = ["transfer=feature_extraction", "init_from=outputs/base", "name=as_weights"]
    assert main(["task=probe_stages", *SMALL, *words]) == 0
    assert numbers(report(Path("outputs/as_weights"))) == numbers(report())
    assert result(Path("outputs/as_weights"))["status"] == "done"


def test_other_data_of_the_same_shape_may_have_other_classes():
    data = ["data=synthetic", "data.kind=shapes", "data.size=8", "data.classes=2", "data.train=60", "data.val=40"]
    assert main(["task=probe_stages", "run=outputs/base", *data]) == 0
    name = next(path.stem for path in RUN.glob("stages-data*.json"))
    assert report(name=name)["examples"] == {"train": 60, "val": 40}


def test_the_test_split_is_never_opened(monkeypatch):
    def opened():
        raise AssertionError("the test split was opened")

    load = task.load

    def guarded(config):
        loaded = load(config)
        return replace(loaded, data=replace(loaded.data, test=opened, check_test=opened))

    monkeypatch.setattr(task, "load", guarded)
    assert main(["task=probe_stages", "run=outputs/base", "task.examples=50"]) == 0
    assert report()["examples"] == {"train": 50, "val": 50}


def test_little_memory_takes_more_passes_and_gives_the_same(monkeypatch):
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    whole, passes = report(), []
    features = task.features_of
    monkeypatch.setattr(task, "features_of", lambda *given: passes.append(list(given[2])) or features(*given))
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 4 * 1497 * (36 * 32 + 1))
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    assert len(passes) > 2
    assert report() == whole


def test_features_that_do_not_fit_at_all_are_refused(monkeypatch, capfd):
    monkeypatch.setattr(stage_features, "place_for", lambda size, device: None)
    assert main(["task=probe_stages", "run=outputs/base"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("runner: error: task.examples: got 1497 with validation, whose features of stage stem need")


def test_features_that_are_not_finite_have_no_scores(monkeypatch, capsys):
    features = task.features_of

    def broken(*given):
        found, labels = features(*given)
        found["stage2"][3, 0] = np.nan
        return found, labels

    monkeypatch.setattr(task, "features_of", broken)
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    assert report()["stages"][2]["accuracy"] is None and report()["stages"][1]["accuracy"] is not None
    assert "not finite" in capsys.readouterr().out


def test_a_folder_that_may_not_be_written_gets_a_line(monkeypatch, capfd):
    from runner.errors import Locked

    def locked(folder):
        raise Locked(f"{folder}: another process holds it")

    monkeypatch.setattr(task, "existing_run", locked)
    assert main(["task=probe_stages", "run=outputs/base"]) == 0
    out, err = capfd.readouterr()
    assert "stage3" in out and "saved in" not in out
    assert "the scores of the stages are not saved: outputs/base: another process holds it" in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "run: got null; expected a run folder, or weights: task=probe_stages init_from=<run or file>"),
        (["run=outputs/none"], "run: got 'outputs/none', must be a run folder"),
        (["run=outputs/both"], "run: got 'outputs/both', an ensemble; expected one training run"),
        (["run=outputs/base", "task.examples=9"], "task.examples: got 9, must be >= 10, one example of each class"),
        (["run=outputs/base", "init_from=outputs/base"], "init_from: cannot be changed with run=..."),
        (["run=outputs/base", "data=synthetic"], "data: examples have shape 2x1x1; expected 1x8x8"),
        (["model=linear", "augment=[]", "init_from={file}"], "model: got one with a single stage, the head"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_line(words, line, tmp_path, capfd):
    from safetensors.torch import save_file

    file = tmp_path / "linear.safetensors"
    if "{file}" in str(words):
        from small_runs import build, small

        save_file(build(small({"model": "linear"})).learner.model.state_dict(), file)
    Path("outputs/both").mkdir(exist_ok=True)
    Path("outputs/both/ensemble.json").write_text("{}")
    before = sorted(Path("outputs").iterdir())
    assert main(["task=probe_stages", "device=cpu", *(word.replace("{file}", str(file)) for word in words)]) != 0
    error = capfd.readouterr().err
    assert error.startswith(f"runner: error: {line}") and error.count("\n") == 1
    assert sorted(Path("outputs").iterdir()) == before
