"""task=profile: the training loop under torch's profiler, with a table, figures per step and a trace."""

import gzip
import json
import re
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from running import command, job, result
from torch import profiler

from runner.errors import ConfigError
from runner.tasks import start
from runner.tasks.profile import Recording, operation_table

TRACE = "steps.pt.trace.json.gz"
MLP = ("model=mlp", "model.hidden=[16]")


def ran(folder, *overrides):
    """Profile, and return how often each name stands in the trace."""
    assert start(job(*MLP, "task=profile", *overrides, f"hydra.run.dir={folder}")) == 0
    with gzip.open(folder / "profile" / TRACE) as trace:
        return Counter(event["name"] for event in json.load(trace)["traceEvents"] if event["ph"] == "X")


def rows_of(printed):
    """Return the rows of the printed table: name -> its numbers."""
    lines = [line.split() for line in printed.splitlines() if line.rstrip().endswith("%")]
    return {" ".join(words[:-3]): [float(word.rstrip("%")) for word in words[-3:]] for words in lines if len(words) > 3}


def is_name(shown, name):
    """Return True if the table shows this name of an operation, whole or by its end."""
    return name.endswith(shown.removeprefix("...")) if shown.startswith("...") else name == shown


def test_a_profile_leaves_a_trace_of_its_steps_and_shows_ten_operations(tmp_path, capfd):
    found = ran(tmp_path / "run", "augment=[crop]")
    printed = capfd.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {".lock", "config.yaml", "overrides.yaml", "environment.json", "result.json", "profile"}
    assert [path.name for path in (tmp_path / "run" / "profile").iterdir()] == [TRACE]
    left = result(tmp_path / "run")
    assert (left["status"], left["exit"], left["steps"], left["scores"]) == ("done", 0, 5 + 20 + 1 + 20, {})
    assert sum(count for name, count in found.items() if name.startswith("ProfilerStep#")) == 20
    assert found["aten::addmm"] == 20  # the head has a bias, the hidden layer none
    assert found["aten::_fused_sgd_"] == 2 * 20  # one group decays, one does not
    rows = rows_of(printed)
    assert len(rows) == 10 and "aten::mm" in rows
    counts = [sum(found[each] for each in found if is_name(name, each)) / 20 for name in rows]
    assert [calls for calls, _, _ in rows.values()] == pytest.approx(counts, rel=1e-3)
    own = [milliseconds for _, milliseconds, _ in rows.values()]
    assert own == sorted(own, reverse=True) and own[0] > 0
    assert sum(share for _, _, share in rows.values()) <= 100.5
    assert re.search(
        r"^speed +[0-9]+ examples/s, [0-9.]+ ms/step, data wait [0-9]+%, peak memory [0-9]+ MB$", printed, re.M
    )
    assert f"Open trace file: {tmp_path / 'run' / 'profile' / TRACE}" in printed


def test_a_profile_is_as_long_as_asked_for_whatever_would_end_the_run(tmp_path):
    found = ran(tmp_path / "run", "steps=3", "patience=1", "validate_every=1steps", "task.steps=2", "task.warmup=0")
    assert sum(count for name, count in found.items() if name.startswith("ProfilerStep#")) == 2
    assert result(tmp_path / "run")["steps"] == 2 + 1 + 2


def test_what_is_due_within_the_steps_is_in_the_profile(tmp_path):
    probed = ("augment=[]", "probe=[grad_norm]", "task.steps=4", "task.warmup=1")
    seldom = ran(tmp_path / "seldom", *probed, "probe.grad_norm.every=1000", "log_every=1000")
    often = ran(tmp_path / "often", *probed, "probe.grad_norm.every=2", "log_every=2")
    more = often - seldom
    assert more["aten::_foreach_norm"] == 2 and more["aten::item"] > 0  # looked at, and brought to the log


def test_a_profile_is_no_run_to_go_on_with_or_to_evaluate(tmp_path):
    ran(tmp_path / "run", "task.steps=1", "task.warmup=0")
    for words in ([f"resume={tmp_path / 'run'}"], ["task=evaluate", f"run={tmp_path / 'run'}"]):
        with pytest.raises(ConfigError, match=r"(resume|run): got '.*', must be the folder of a training run"):
            start(job(*words))


@pytest.mark.parametrize("knob", ["task.steps=0", "task.warmup=-1"])
def test_no_steps_are_refused_in_one_line(knob, tmp_path):
    with pytest.raises(ConfigError, match=rf"{knob.partition('=')[0]}: got {knob.partition('=')[2]}, must be >= "):
        start(job("task=profile", knob, f"hydra.run.dir={tmp_path / 'run'}"))
    assert not list(tmp_path.iterdir())


def test_on_the_screen_stand_a_table_and_figures_and_no_talk_of_the_profiler(tmp_path):
    said = command("task=profile", *MLP, "task.steps=2", "name=run", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert said.returncode == 0
    assert said.stderr.splitlines() == ["run outputs/run on cpu (1 thread)"]
    assert max(map(len, said.stdout.splitlines())) <= 100


def recorded(steps, body):
    """Return a recording of a body, and the milliseconds that a step takes by the clock."""
    schedule = profiler.schedule(wait=0, warmup=1, active=steps, repeat=1)
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU], schedule=schedule, acc_events=True) as recorder:
        body()
        recorder.step()
        began = time.perf_counter()
        for _ in range(steps):
            body()
            recorder.step()
        seconds = time.perf_counter() - began
    return Recording(list(recorder.key_averages()), steps, on_gpu=False), 1000 * seconds / steps


def test_figures_per_step_are_those_of_the_clock_and_of_the_code():
    a = torch.rand(300, 300)

    def body():
        for _ in range(3):
            a.mm(a)
        time.sleep(0.005)
        a[0, 0].item()
        float(a[1, 1])

    found, milliseconds = recorded(8, body)
    top = found.operations[0]
    assert (top.key, top.count) == ("aten::mm", 24)
    assert found.milliseconds == pytest.approx(milliseconds, rel=0.5)
    assert found.waits == 2
    assert 0 < found.busy <= 1 - 5 / found.milliseconds  # it sleeps for 5 ms of each step
    (row,) = operation_table(found, 1)
    assert row["operation"] == "aten::mm" and row["calls per step"].strip() == "3"
    assert float(row["share"].rstrip("%")) == pytest.approx(
        100 * found.host(top) / found.busy / found.milliseconds, abs=0.1
    )


def line(key, count, host, device, kind="CPU", *, named=False):
    return SimpleNamespace(
        key=key,
        count=count,
        self_cpu_time_total=host,
        cpu_time_total=host,
        self_device_time_total=device,
        device_type=SimpleNamespace(name=kind),
        is_user_annotation=named,
    )


def test_on_a_gpu_its_own_time_decides_and_its_waits_count():
    found = Recording(
        [
            line("ProfilerStep*", 4, 40_000, 0, named=True),
            line("ProfilerStep*", 4, 0, 36_000, "CUDA", named=True),
            line("aten::convolution", 8, 1_000, 20_000),
            line("implicit_gemm", 8, 0, 20_000, "CUDA"),
            line("aten::item", 4, 9_000, 0),
            line("aten::_local_scalar_dense", 4, 5_000, 0),
            line("cudaStreamSynchronize", 4, 5_000, 0),
            line("aten::relu_", 8, 2_000, 4_000),
        ],
        4,
        on_gpu=True,
    )
    assert [row.key for row in found.operations[:2]] == ["aten::convolution", "aten::relu_"]
    assert (found.milliseconds, found.waits) == (10.0, 1.0)
    assert found.busy == pytest.approx(24 / 40)
    first, second = operation_table(found, 2)
    assert (first["GPU, ms per step"].strip(), first["share"].strip()) == ("5.000", "83.3%")
    assert (second["calls per step"].strip(), second["own time, ms per step"].strip()) == ("2", "0.500")


def test_a_long_name_of_an_operation_keeps_its_end_and_the_table_its_width():
    name = "autograd::engine::evaluate_function: NativeBatchNormBackward0"
    (row,) = operation_table(Recording([line(name, 2, 1.0, 0.0)], 1, False), 1)
    assert row["operation"].startswith("...") and row["operation"].endswith(": NativeBatchNormBackward0")
    assert len(row["operation"]) == 48
