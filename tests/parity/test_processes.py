"""Training in two processes equals training in one (config 6.4)."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, from_dict
from ptycho_backend.data.batching import Samples, epoch_order
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines.registry import available_backends
from ptycho_backend.errors import ConfigError, DeprecatedNameWarning, DeviceError, TrainingError, TrainingStopped
from ptycho_backend.events import BatchEvent, EpochEvent, ignore
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing import assert_same_training
from ptycho_backend.testing.tolerances import SEVERAL_PROCESSES
from ptycho_backend.training.checkpoints import CheckpointWriter, read_checkpoint
from ptycho_backend.training.loggers import make_logger
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import (
    LAUNCHERS,
    ProcessRank,
    check_processes,
    must_launch,
    on_own_device,
    process_rank,
)

N = 32
SEED, BATCH, N_TRAIN = 5, 4, 9  # batches of 4, 4 and 1 groups: the last one has none for the second process


# --- shares and ranks ------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 60), batch=st.integers(1, 20), world=st.integers(1, 6), epoch=st.integers(0, 3))
def test_every_group_counts_once_in_an_epoch(n, batch, world, epoch):
    order, counted_groups = epoch_order(n, SEED, epoch), []
    for start in range(0, n, batch):
        rows = order[start : start + batch]
        for rank in range(world):
            process = ProcessRank(rank, world, rank)
            own, counted = process.share(rows), process.counted(len(rows))
            assert len(own) >= 1, "every process takes every step"
            assert counted == len(own) or (counted == 0 and len(own) == 1)
            counted_groups += list(own[:counted])
    assert sorted(counted_groups) == list(range(n))


@pytest.mark.parametrize("names", LAUNCHERS)
def test_the_rank_of_a_launched_process_is_in_its_environment(monkeypatch, names):
    two = ExecutionConfig(devices=2, num_nodes=2)
    assert process_rank(two) == ProcessRank()
    assert must_launch(two)
    for name, value in zip(names, ("3", "4", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert process_rank(two) == ProcessRank(3, 4, 1)
    assert not must_launch(two)
    assert process_rank(ExecutionConfig()) == ProcessRank(), "one process has no rank in the environment"
    assert process_rank(ExecutionConfig(devices=2)) == ProcessRank(), "the ranks are those of another program"


def test_each_process_has_its_own_gpu():
    execution, found = ExecutionConfig(devices=2), ("cpu", "cuda:0", "cuda:1")
    assert on_own_device(execution, found, ProcessRank(3, 4, 1)).device == "cuda:1"
    assert on_own_device(execution, found, ProcessRank()).device == "auto"
    assert on_own_device(execution, ("cpu", "cuda:0"), ProcessRank(1, 2, 1)).device == "auto", "the only visible GPU"
    assert on_own_device(dataclasses.replace(execution, device="cpu"), found, ProcessRank(1, 2, 1)).device == "cpu"


def test_impossible_settings_are_errors_before_any_work():
    with pytest.raises(ConfigError, match="one of auto, ddp, ddp_spawn"):
        check_processes(ExecutionConfig(strategy="mirrored"), "pytorch", ("cpu",))
    with pytest.raises(ConfigError, match="'tensorflow' has no strategy 'ddp'"):
        check_processes(ExecutionConfig(strategy="ddp"), "tensorflow", ("cpu",))
    with pytest.raises(ConfigError, match="one machine"):
        check_processes(ExecutionConfig(strategy="mirrored", num_nodes=2), "tensorflow", ("cpu",))
    with pytest.raises(ConfigError, match="started from outside"):
        check_processes(ExecutionConfig(num_nodes=2), "pytorch", ("cpu",))
    with pytest.raises(ConfigError, match="'tensorflow' compiles the training step of one device"):
        check_processes(ExecutionConfig(compile=True, devices=2), "tensorflow", ("cpu",))
    for device, devices in (("auto", 3), ("cuda:1", 2)):
        with pytest.raises(DeviceError, match="GPU of its own"):
            check_processes(ExecutionConfig(device=device, devices=devices), "pytorch", ("cpu", "cuda:0", "cuda:1"))
    check_processes(ExecutionConfig(devices=3), "pytorch", ("cpu",))
    check_processes(ExecutionConfig(strategy="own"), "third party", ("cpu",))


def test_the_deprecated_name_is_read():
    with pytest.warns(DeprecatedNameWarning, match="'n_devices' is now 'devices'"):
        assert from_dict(ExecutionConfig, {"n_devices": 2}).devices == 2


# --- two processes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=N, n_positions=12, object_name="lines", photons_per_pattern=2e5, step_px=3.3)


@pytest.fixture(scope="module")
def fit(backend, execution, scan):
    """Return a function that trains two epochs on nine groups and validates on three."""

    def run(devices, on_event=ignore, options=None, groups_of=None, resume=None, **knobs):
        # Without iterations before the network, which leave so little loss that rounding dominates.
        config = ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1, initial_iterations=0)
        training = TrainingConfig(
            model=config, nepochs=2, batch_size=BATCH, seed=SEED, learning_rate=2e-3, probe_trainable=True
        )
        groups = group_positions(scan.positions_px, 1, 5, None, np.random.default_rng(2))
        samples = Samples(scan, groups, calibrate(scan, config))
        settings = dataclasses.replace(execution, devices=devices, **knobs)
        model = backend.create_model(training, samples.calibration, settings)
        if resume is not None:
            bundle = read_checkpoint(resume)
            options = FitOptions(bundle.state, bundle.history)
            model.set_weights(bundle.weights)
        fitted, held_out = samples.subset(np.arange(N_TRAIN)), samples.subset(np.arange(N_TRAIN, 12))
        history = backend.fit(model, groups_of(fitted) if groups_of else fitted, held_out, settings, on_event, options)
        return history, model.get_weights()

    return run


@pytest.fixture(scope="module")
def single_process(fit):
    return fit(1)


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_two_processes_train_as_one_and_the_first_writes(fit, single_process, tmp_path, caplog):
    events, folder = [], tmp_path / "run" / "checkpoints"
    metrics = make_logger("csv", folder.parent)
    options = FitOptions(checkpoints=CheckpointWriter(folder, {}), logger=metrics)
    with caplog.at_level(logging.INFO):
        found = fit(2, events.append, options)
    metrics.close()
    assert_same_training(found, single_process, SEVERAL_PROCESSES)
    assert [(type(event), event.epoch) for event in events] == [
        (kind, epoch) for epoch in (1, 2) for kind in (BatchEvent, BatchEvent, BatchEvent, EpochEvent)
    ]
    assert [dict(event.metrics) for event in events if isinstance(event, EpochEvent)] == found[0]
    lines = (folder.parent / "metrics.csv").read_text().splitlines()
    assert [float(line.partition(",")[0]) for line in lines[1:]] == [1, 2]
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if not name.startswith("epoch=")] == ["config.yaml", "last.h5.zip"]
    assert len(names) == 3
    assert read_checkpoint(folder).state.epoch == 2


@pytest.mark.slow
def test_a_stop_request_ends_both_and_one_process_resumes(fit, tmp_path):
    """Accumulation and clipping act on the whole batch."""
    options = FitOptions(checkpoints=CheckpointWriter(tmp_path, {}))
    knobs = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}

    def listen(event):
        if isinstance(event, BatchEvent) and (event.epoch, event.batch) == (2, 1):
            options.stop.request(15)

    with pytest.raises(TrainingStopped, match="epoch 1 and batch 2") as stopped:
        fit(2, listen, options, **knobs)
    assert stopped.value.signal == 15
    assert_same_training(fit(1, resume=tmp_path, **knobs), fit(1, **knobs), SEVERAL_PROCESSES)


@pytest.mark.slow
def test_an_error_in_the_second_process_is_raised(fit):
    """Its first group has a pattern that does not exist."""
    lost = ProcessRank(1, 2).share(epoch_order(N_TRAIN, SEED, 0)[:BATCH])[0]

    def spoiled(samples):
        indices = samples.groups.indices.copy()
        indices[lost] = 10**6
        return dataclasses.replace(samples, groups=dataclasses.replace(samples.groups, indices=indices))

    with pytest.raises(IndexError, match="1000000"):
        fit(2, groups_of=spoiled)


@pytest.mark.slow
def test_a_killed_process_ends_the_training(fit):
    def listen(event):
        multiprocessing.active_children()[-1].kill()

    with pytest.raises(TrainingError, match="without an error message"):
        fit(2, listen)


@pytest.mark.slow
def test_an_exception_of_on_event_ends_the_training(fit):
    class EnoughError(Exception):
        pass

    def listen(event):
        raise EnoughError

    with pytest.raises(EnoughError):
        fit(2, listen)


MIRRORED = """
    import json
    import tensorflow as tf
    import ptycho_backend as pb
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    scan = pb.simulate_scan(N=32, n_positions=12, object_name="lines", photons_per_pattern=2e5, step_px=3.3)
    model = pb.ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1)
    fields = {"backend": "tensorflow", "nepochs": 2, "batch_size": 5, "probe_iterations": 0}
    histories = []
    for devices in (1, 2):
        execution = pb.ExecutionConfig(device="cpu", precision="32-true", strategy="mirrored", devices=devices)
        histories.append(pb.train(scan, pb.TrainingConfig(model=model, **fields), execution).history)
    print(json.dumps(histories))
"""


@pytest.mark.slow
def test_two_mirrored_devices_train_as_one():
    """Two logical devices on one processor, configured before any other call; batches of 5, 5 and 1 groups."""
    if "tensorflow" not in available_backends():
        pytest.skip("TensorFlow is not installed")
    command = [sys.executable, "-c", textwrap.dedent(MIRRORED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    for row, wanted in zip(two, one, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)
        assert row != wanted, "another order of sums gives another rounding"


# --- processes of a launcher -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_of_slurm_train_together_and_the_first_writes(backend, scan, tmp_path):
    """On the command line; each process has its own folder, which shows whether it writes."""
    write_npz(scan, tmp_path / "scan.npz")
    options = "--execution.num_nodes=2 --execution.device=cpu --execution.threads=1 --epochs=1 --no-reconstruct"
    model = "--training.model.n_filters_scale=1 --training.model.unrolled_steps=1 --training.probe_iterations=0"
    command = [sys.executable, "-m", "ptycho_backend.cli", "train", str(tmp_path / "scan.npz"), "--backend"]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1], other.getsockname()[1]]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    for rank in range(2):
        variables = {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": 2, "SLURM_LOCALID": 0}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0]}
        variables["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        words = [*command, backend.name, "--output", str(tmp_path / f"run{rank}"), *options.split(), *model.split()]
        with (tmp_path / f"log{rank}").open("w") as log:
            processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
        assert [process.wait(100) for process in processes] == [0, 0], (tmp_path / "log1").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert {"metrics.csv", "wts.h5.zip", "checkpoints"} <= {path.name for path in (tmp_path / "run0").iterdir()}
    assert not (tmp_path / "run1").exists()
