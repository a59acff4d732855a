"""`data.batch_size=auto`: the largest divisor of a step that fits, and a run as if its numbers had been given."""

import resource
from pathlib import Path

import pytest
import torch
import yaml
from running import checkpoint_checksums, command, job, metrics, result, run_in_child, starter
from torch import nn

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.assemble import assemble
from runner.batch_sizes import sizes_of
from runner.errors import ConfigError
from runner.hashes import group_hash, hash8
from runner.numerics import same_config, stripped
from runner.tasks import batch_size, start
from runner.tasks.batch_size import kept_bytes, largest_that_fits

AUTO = "data.batch_size=auto"
QUICK = ("model=mlp", "model.hidden=[16]", "figures=never", "predictions=never", "device=cpu", "test=never")
QUICK = (*QUICK, "log_every=1", "validate_every=3steps", "checkpoint_every=3steps", "steps=6", "augment=[crop]")
STEP = (AUTO, "effective_batch_size=96")


def saved(folder) -> dict:
    return yaml.safe_load((Path(folder) / "config.yaml").read_text())


def numbers(folder) -> tuple[int, int, int]:
    config = saved(folder)
    return config["data"]["batch_size"], config["accumulate"], config["effective_batch_size"]


@pytest.fixture
def device_of(monkeypatch):
    """Give the device memory for so many images of a training step."""
    forward = nn.Linear.forward

    def limited(images):
        def called(layer, x):
            if layer.training and len(x) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(layer, x)

        monkeypatch.setattr(nn.Linear, "forward", called)

    return limited


@pytest.mark.parametrize("images", [1, 2, 7, 36, 96, 97, 128, 720])
def test_the_largest_divisor_below_any_limit_is_found(images):
    sizes = [each for each in range(1, images + 1) if images % each == 0]
    assert sizes_of(images) == sizes
    for limit in range(images + 2):
        tried = []

        def fits(size, limit=limit, tried=tried):
            tried.append(size)
            return size <= limit

        best = max((size for size in sizes if size <= limit), default=None)
        assert largest_that_fits(sizes, fits) == best
        assert tried[0] == images and len(set(tried)) == len(tried)
        # Halvings, and a bisection of the sizes between two of them
        assert len(tried) <= images.bit_length() + len(sizes).bit_length() + 1


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_run_is_the_one_whose_config_has_the_numbers(tmp_path, device_of, capfd):
    device_of(30)
    starter(tmp_path / "auto", *QUICK, *STEP, "norm=batch")()
    line = "batch size: 24 images at a time, 4 times in a step of 96, found by trial on cpu; batch norms see 24 images"
    assert line in capfd.readouterr().err.replace("\n    ", " ")
    starter(tmp_path / "given", *QUICK, "norm=batch", "data.batch_size=24", "accumulate=4")()
    assert numbers(tmp_path / "auto") == (24, 4, 96)
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "given")
    assert checkpoint_checksums(tmp_path / "auto") == checkpoint_checksums(tmp_path / "given")


def test_a_step_that_fits_is_not_divided(tmp_path, device_of, capfd):
    device_of(96)
    starter(tmp_path / "run", *QUICK, *STEP, "norm=batch")()
    assert numbers(tmp_path / "run") == (96, 1, 96)
    printed = capfd.readouterr().err
    assert "batch size: 96, found by trial on cpu" in printed and "batch norms" not in printed


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("again", [True, False], ids=["resume=", "the same command"])
def test_a_resumed_run_keeps_its_batch_size(tmp_path, device_of, monkeypatch, again):
    device_of(30)
    words = (*QUICK, *STEP, "norm=batch", "regularizer=[dropout]", "regularizer.dropout.where=[head]")
    starter(tmp_path / "whole", *words)()
    folder = tmp_path / "broken"
    from runner.engine.learner import Learner

    step_optimizer = Learner.step_optimizer

    def fails(learner, loss):
        if learner.step == 4 and (folder / "config.yaml").exists():
            raise KeyboardInterrupt
        step_optimizer(learner, loss)

    monkeypatch.setattr(Learner, "step_optimizer", fails)
    with pytest.raises(KeyboardInterrupt):
        starter(folder, *words)()
    monkeypatch.setattr(Learner, "step_optimizer", step_optimizer)
    # Now all of a step would fit
    device_of(1000)
    assert (start(job(f"resume={folder}")) if again else starter(folder, *words)()) == 0
    assert numbers(folder) == (24, 4, 96)
    assert metrics(folder) == metrics(tmp_path / "whole")
    assert checkpoint_checksums(folder) == checkpoint_checksums(tmp_path / "whole")


@pytest.mark.ci_slice
@pytest.mark.slow
def test_not_even_one_image(tmp_path, device_of):
    device_of(0)
    with pytest.raises(ConfigError, match=r"^out of memory with batches of 1 image, 96 of them in a step") as error:
        starter(tmp_path / "run", *QUICK, *STEP)()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_does_not_fit_is_said(tmp_path, device_of, monkeypatch):
    device_of(30)
    training = nn.Linear.forward

    def called(layer, x):
        if not layer.training:
            raise MemoryError
        return training(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", called)
    with pytest.raises(ConfigError, match=r"^out of memory in evaluation, with batches of 256 images; choose"):
        starter(tmp_path / "run", *QUICK, *STEP)()


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_size_that_batch_norm_refuses_does_not_fit(tmp_path, device_of):
    words = (*QUICK, AUTO, "effective_batch_size=80", "norm=batch")
    device_of(2)
    starter(tmp_path / "run", *words)()
    assert numbers(tmp_path / "run") == (2, 40, 80)
    device_of(1)
    with pytest.raises(ConfigError, match=r"^out of memory with batches of 2 images, 40 of them in a step"):
        starter(tmp_path / "none", *words)()


def test_another_error_is_not_taken_for_one_of_memory(tmp_path, monkeypatch):
    def broken(layer, x):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(nn.Linear, "forward", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        starter(tmp_path / "run", *QUICK, *STEP)()


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_real_limit_of_memory(tmp_path):
    words = ("data=gaussian", "data.size=64", "model=cnn", "model.channels=[64]", "steps=2", "figures=never")
    words = (*words, "augment=[]", "device=cpu", "test=never", "threads=1", "data.train=256", "data.val=32")
    words = (*words, "preprocess=none", "predictions=never", "probe=[]", AUTO, "effective_batch_size=256")

    def limited():
        used = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))  # noqa: SIM115, PTH123
        limit = int(used.split()[1]) * 1024 + (600 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return starter(tmp_path / "run", *words)()

    assert run_in_child(limited) == 0
    batch, parts, whole = numbers(tmp_path / "run")
    assert batch * parts == whole == 256 and 1 <= batch < 256
    assert result(tmp_path / "run")["status"] == "done"


@pytest.mark.ci_slice
@pytest.mark.slow
def test_activations_beyond_the_free_memory_of_the_machine_are_not_tried(tmp_path, monkeypatch, capfd):
    made = assemble(job(*QUICK, "norm=none", "effective_batch_size=96", "data.batch_size=96").config)
    images, labels = next(made.batches.stream(0, 1))
    each = kept_bytes(made, images[:2], labels[:2]) / 2
    monkeypatch.setattr(batch_size, "free_memory", lambda: int(2 * each * 40))
    starter(tmp_path / "run", *QUICK, "norm=none", *STEP)()
    assert numbers(tmp_path / "run") == (32, 3, 96)
    monkeypatch.setattr(batch_size, "free_memory", lambda: int(each))
    with pytest.raises(ConfigError, match=r"^out of memory with batches of 1 image: activations of .+ are free"):
        starter(tmp_path / "none", *QUICK, "norm=none", *STEP)()


def test_kept_bytes_of_a_linear_model():
    made = assemble(job("model=linear", "augment=[]", "device=cpu").config)
    images, labels = next(made.batches.stream(0, 1))
    # The pixels, the log-probabilities, the labels, and the sum of the weights of the loss
    assert kept_bytes(made, images[:4].clone(), labels[:4].clone()) == 4 * 64 * 4 + 4 * 10 * 4 + 4 * 8 + 4


def test_only_the_images_of_a_step_identify_the_run():
    auto = job(*QUICK, *STEP).config
    found = [job(*QUICK, "effective_batch_size=96", *each).config for each in GIVEN]
    for each in found:
        assert hash8(each) == hash8(auto) and group_hash(each) == group_hash(auto) and same_config(each, auto)
    other = job(*QUICK, AUTO, "effective_batch_size=48").config
    assert hash8(other) != hash8(auto) and not same_config(other, auto)
    plain = job(*QUICK, "data.batch_size=96").config
    assert hash8(plain) != hash8(auto) and "effective_batch_size" not in stripped(plain)


GIVEN = [("data.batch_size=96",), ("data.batch_size=24", "accumulate=4"), ("data.batch_size=1", "accumulate=96")]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            (AUTO,),
            "data.batch_size: got 'auto'; requires effective_batch_size=<images of a step>, which accumulation keeps",
        ),
        (
            (*STEP, "accumulate=2"),
            "accumulate: got 2, must be 1 with data.batch_size=auto, which finds it; effective_batch_size is the "
            "images of a step",
        ),
        (
            ("effective_batch_size=96",),
            "effective_batch_size: got 96, must be data.batch_size times accumulate (64); data.batch_size=auto "
            "finds both",
        ),
        (
            (*STEP, "device=cuda", "cuda_graphs=true"),
            "cuda_graphs: got true, must be false with data.batch_size=auto, which may accumulate",
        ),
        (("data.batch_size=most",), "data.batch_size: got 'most', must be a whole number >= 1 or 'auto'"),
    ],
)
def test_what_makes_no_sense_is_refused(words, line):
    with pytest.raises(ConfigError) as error:
        job(*words)
    assert str(error.value) == line


@pytest.mark.parametrize("task", ["preview", "profile"])
def test_other_tasks_take_the_batch_size_too(tmp_path, task):
    words = ("model=mlp", "model.hidden=[16]", "device=cpu", "figures=never", f"task={task}", *STEP)
    assert starter(tmp_path / task, *words, *(("task.steps=2", "task.warmup=1") if task == "profile" else ()))() == 0


def test_a_sweep_keeps_what_its_trials_found(tmp_path):
    words = ("-m", *QUICK, AUTO, "effective_batch_size=32,96", "sweep=sizes", "hydra.launcher.workers=1")
    first = command(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    trials = sorted((tmp_path / "outputs" / "sweeps" / "sizes").glob("*/result.json"))
    found = [numbers(path.parent) for path in trials]
    assert sorted(found) == [(32, 1, 32), (96, 1, 96)]
    before = [path.read_bytes() for path in trials]
    second = command(*words, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert [path.read_bytes() for path in trials] == before
