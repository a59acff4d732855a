"""The components of docs/extending.md work as written: their numbers by hand, resumed, and all commands of the page."""

import subprocess
import sys

import pytest
import torch
from documented import commands, write_files
from running import ROOT, checkpoint_checksums, command, killed_in_step, metrics, result, run_in_child
from sklearn.datasets import load_digits

from runner.__main__ import main

PAGE = ROOT / "docs" / "extending.md"
PLUGIN = ("--config-dir", "my_conf", "plugins=[my_lab.parts]")
# Four steps on all examples, from zeros
RUN = (
    *PLUGIN,
    *("data=digit_files", "data.batch_size=1437", "preprocess=scale01", "augment=[]", "model=linear", "init=zeros"),
    *("loss=generalized", "loss.q=0.5", "optim=signum", "optim.lr=0.01", "scheduler=hold", "scheduler.decay=50%"),
    *("average=none", "probe=[]", "figures=never", "steps=4", "log_every=1", "validate_every=1steps"),
    *("checkpoint_every=1steps", "device=cpu", "threads=1"),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("lab")
    options = ("data/digit_files", "loss/generalized", "optim/signum", "scheduler/hold")
    written = {"my_lab/parts.py", "make_digits.py", *(f"my_conf/{option}.yaml" for option in options)}
    assert set(write_files(PAGE, folder)) == written
    subprocess.run([sys.executable, "make_digits.py"], cwd=folder, check=True)
    return folder


def test_the_components_of_the_page_train_as_computed_by_hand(lab):
    done = command(*RUN, "name=whole", cwd=lab)
    assert done.returncode == 0, done.stderr
    images, labels = torch.from_numpy(load_digits().images), torch.from_numpy(load_digits().target)
    x = ((images.flatten(1) * 255 / 16).round() / 255).float()
    validates = torch.arange(len(x)) % 5 == 0
    weight, mean = torch.zeros(10, 64, requires_grad=True), torch.zeros(10, 64)
    bias, bias_mean = torch.zeros(10, requires_grad=True), torch.zeros(10)

    def loss(at):
        p = (x @ weight.T + bias).softmax(1)[at, labels[at]]
        return ((1 - p.sqrt()) / 0.5).mean()

    losses = []
    for factor in (1.0, 1.0, 1.0, 0.5):
        gradients = torch.autograd.grad(loss(~validates), (weight, bias))
        with torch.no_grad():
            for each, average, gradient in zip((weight, bias), (mean, bias_mean), gradients, strict=True):
                average.copy_(0.9 * average + 0.1 * gradient)
                each -= 0.01 * factor * average.sign()
            losses.append(float(loss(validates)))
    logged = metrics(lab / "outputs" / "whole")
    assert [float(value) for _, tag, value in logged if tag == "val/loss"] == pytest.approx(losses, rel=1e-5)
    rates = [float(value) for _, tag, value in logged if tag.startswith("lr") or tag.endswith("/lr")]
    assert rates[-1] == pytest.approx(0.005) and max(rates) == pytest.approx(0.01)
    right = (x @ weight.T + bias).argmax(1)[validates] == labels[validates]
    found = result(lab / "outputs" / "whole")["scores"]["val"]
    assert found["last"]["accuracy"] == pytest.approx(float(right.double().mean()))


def test_a_killed_run_with_them_ends_like_one_that_was_not(lab, monkeypatch):
    monkeypatch.chdir(lab)
    monkeypatch.syspath_prepend(str(lab))
    assert run_in_child(killed_in_step(3, lambda: main([*RUN, "name=killed"]))) == -9
    assert run_in_child(lambda: main([*RUN, "name=other"])) == 0
    assert run_in_child(lambda: main(["resume=outputs/killed", "plugins=[my_lab.parts]"])) == 0
    outputs = lab / "outputs"
    assert checkpoint_checksums(outputs / "killed") == checkpoint_checksums(outputs / "other")
    assert metrics(outputs / "killed") == metrics(outputs / "other")


@pytest.mark.slow
@pytest.mark.ci_slice
def test_wrong_knobs_and_missing_files_are_one_line(lab):
    for more, line in (
        ("loss.q=0", "loss.q: got 0, must be > 0"),
        ("optim.momentum=1", "optim.momentum: got 1, must be"),
        ("scheduler.decay=soon", "scheduler.decay: got 'soon'"),
        ("data.root=elsewhere", "plugin my_lab/parts.py:"),
    ):
        choices = ("data=digit_files", "loss=generalized", "optim=signum", "scheduler=hold", "model=linear")
        done = command(*PLUGIN, *choices, more, "augment=[]", "name=refused", cwd=lab)
        assert done.returncode == 2 and line in done.stderr, done.stderr
        assert not (lab / "outputs" / "refused").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_work_as_written(lab, tmp_path):
    shown = commands(PAGE, inline=False)
    assert len(shown) == 5
    for number, each in enumerate(shown):
        (empty := tmp_path / str(number)).mkdir()
        done = command(*each.words(empty), cwd=lab)
        assert done.returncode == 0, done.stderr
