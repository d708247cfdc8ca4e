"""Environment of a launched process, as Lightning reads it (config 6.4)."""

from __future__ import annotations

import os

import pytest

from ptycho_backend.errors import ConfigError
from ptycho_backend.training.parallel import ProcessRank
from ptycho_torch.engine.parallel import StartedProcess


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a launcher for the second of two processes on one machine."""
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    return ProcessRank(1, 2, 1)


def test_a_process_is_a_node_with_one_device(launched, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK")  # Slurm sets its own variables
    environment = StartedProcess(launched)
    assert environment.creates_processes_externally
    assert (environment.node_rank(), environment.local_rank()) == (1, 0)
    assert (environment.main_address, environment.main_port) == ("127.0.0.1", 29500)


def test_the_local_rank_of_a_launcher_is_not_used(launched):
    assert StartedProcess(launched).local_rank() == 0


def test_the_number_of_processes_stays_in_the_environment(launched):
    StartedProcess(launched).teardown()
    assert os.environ["WORLD_SIZE"] == "2"


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_address_is_an_error(launched, monkeypatch, name):
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=f"no {name} in the environment"):
        StartedProcess(launched)
