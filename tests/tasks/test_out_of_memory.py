"""A run whose memory is really limited ends in one line with its batch, the peak and the override to copy."""

import re
import resource

import pytest
from running import job, result, run_in_child

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.errors import ConfigError
from runner.status import ending
from runner.tasks import start
from runner.tasks.out_of_memory import out_of_memory

WORDS = ("data=gaussian", "data.size=64", "model=cnn", "model.channels=[64]", "steps=2", "figures=never", "augment=[]")
WORDS = (*WORDS, "device=cpu", "test=never", "threads=1", "data.train=1024", "data.batch_size=1024", "preprocess=none")


def limited(*words, free):
    """Run in this process with so many more bytes of address space; write the error into `result.json` and beside."""
    used = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))  # noqa: SIM115, PTH123
    limit = int(used.split()[1]) * 1024 + free
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        start(job(*words))
    except ConfigError as error:
        assert "\n" not in str(error)
        return ending(error).exit_code
    return 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("probe=[]",), "try data.batch_size=512 accumulate=2, or a smaller model or image"),
        (("probe=[activations]",), "try data.batch_size=512 accumulate=2, or a smaller model or image"),
    ],
    ids=["a step", "a probe"],
)
def test_a_run_without_memory_names_batch_peak_and_override(tmp_path, words, hint):
    folder = tmp_path / "run"
    given = (*WORDS, *words, f"hydra.run.dir={folder}")
    assert run_in_child(lambda: limited(*given, free=700 << 20)) == 2
    found = result(folder)
    assert (found["status"], found["exit"]) == ("failed", 2)
    line = found["reason"]
    assert line.startswith("out of memory with batches of 1024 images (peak "), line
    assert hint in line and "allocate memory" in line
    assert 100 < float(re.search(r"\(peak ([\d,]+) MB\)", line)[1].replace(",", "")) < 100_000


CONFIG = {"data": {"batch_size": 64}, "accumulate": 3, "cuda_graphs": False}


def test_the_override_keeps_the_examples_of_a_step():
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB")
    line = str(out_of_memory(error, CONFIG))
    assert "with batches of 64 images, 3 of them in a step" in line
    assert "data.batch_size=32 accumulate=6" in line and 32 * 6 == 64 * 3


@pytest.mark.parametrize(("batch", "hint"), [(2, None), (7, None), (4, (2, 6)), (9, (3, 9)), (35, (7, 15))])
def test_a_batch_is_split_into_equal_parts_of_two_images_or_more(batch, hint):
    line = str(out_of_memory(MemoryError(), {**CONFIG, "data": {"batch_size": batch}}))
    wanted = f"try data.batch_size={hint[0]} accumulate={hint[1]}, or" if hint else "choose a smaller batch, or"
    assert f"; {wanted} a smaller model or image" in line
    assert hint is None or hint[0] * hint[1] == batch * 3


@pytest.mark.parametrize("config", [{**CONFIG, "data": {"batch_size": 1}}, {**CONFIG, "cuda_graphs": True}])
def test_nothing_is_proposed_that_a_run_would_refuse(config):
    line = str(out_of_memory(MemoryError(), config))
    assert "accumulate=" not in line and "a smaller model or image" in line


def test_other_errors_are_none_of_it():
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), CONFIG) is None
    assert "batches" not in str(out_of_memory(MemoryError(), None))
