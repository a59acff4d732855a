"""Which of several processes this one is, from the environment."""

from __future__ import annotations

import itertools

import pytest

from runner.engine.rendezvous import Place, first_host, place_in
from runner.errors import ConfigError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}


def test_no_variables_are_one_process():
    assert place_in({}) is None
    assert place_in({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) is None, "a batch script before srun"
    assert place_in({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None


def test_the_variables_of_torchrun():
    elastic = {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert place_in({**TORCHRUN, **elastic}) == Place(
        rank=1, size=4, local_rank=1, address="localhost", port=29500, attempt=2, keeps_store=True
    )


@pytest.mark.parametrize("count", range(5))
def test_each_part_of_the_variables_is_refused_and_names_what_is_missing(count):
    for names in itertools.combinations(TORCHRUN, count):
        part = {name: TORCHRUN[name] for name in names}
        if not {"RANK", "WORLD_SIZE"} & part.keys():
            assert place_in(part) is None
            continue
        with pytest.raises(ConfigError) as error:
            place_in(part)
        assert all(name in str(error.value) for name in TORCHRUN) and "torchrun" in str(error.value)


@pytest.mark.parametrize("change", [{"RANK": "4"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"MASTER_PORT": "1e3"}])
def test_impossible_values_are_refused(change):
    with pytest.raises(ConfigError):
        place_in({**TORCHRUN, **change})


def test_the_variables_of_srun():
    found = place_in({**SRUN, "SLURM_STEP_NODELIST": "gpu[03-05]", "SLURM_RESTART_COUNT": "1"})
    assert found is not None
    assert (found.rank, found.size, found.local_rank, found.address, found.attempt) == (2, 3, 0, "gpu03", 1)
    assert 20_000 <= found.port < 30_000
    other = place_in({**SRUN, "SLURM_JOB_ID": "8"})
    assert other is not None and other.port != found.port


@pytest.mark.parametrize(
    "nodes, first",
    [("a", "a"), ("a,b", "a"), ("node[1-3]", "node1"), ("node[03,07-9],x", "node03"), ("a[1-2]-ib", "a1-ib")],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first
