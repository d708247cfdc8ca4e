"""Data-parallel training in worker processes, one for each device of this machine (spec: config 6.4)."""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.handlers
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import History, Model, Weights
from ptycho_backend.errors import PtychoError, TrainingError, TrainingStopped
from ptycho_backend.events import EpochEvent, Event, OnEvent, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.devices import processors
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessRank, on_own_device
from ptycho_backend.training.signals import SIGNALS, Stop

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
GRACE_S = 5.0  # after the first failure: time for the process with the cause to report its error


def fit_in_processes(
    backend: type[Backend],
    model: Model,
    samples: tuple[Samples, Samples | None],
    execution: ExecutionConfig,
    on_event: OnEvent,
    options: FitOptions,
) -> History:
    """
    Train a model in place, with one new process per device of this machine.

    Parameters
    ----------
    backend : type
        Class of the engine, which every process constructs.
    model : Model
    samples : tuple of Samples and Samples or None
        Training and validation samples. Every process gets a copy.
    execution : ExecutionConfig
    on_event : callable
        Called in this process, while the worker processes wait.
    options : FitOptions
        Its logger writes in this process, its checkpoint writer in the first worker process.
    """
    sent = FitOptions(options.resume, options.history, options.checkpoints)
    sent.stop.signal = options.stop.signal
    task = _Task(backend, model.training, model.calibration, model.get_weights(), execution, samples, sent)
    workers: list[_Worker] = []
    try:
        for rank, environment in enumerate(_environments(backend.name, execution.devices)):
            workers.append(_Worker(ProcessRank(rank, execution.devices, rank), environment))
        for worker in workers:
            worker.start(task)
        result = _wait_for_result(workers, on_event, options)
    finally:
        for worker in workers:
            worker.end()
    model.set_weights(result.weights)
    return result.history


@dataclass(eq=False)
class _Task:
    """Arguments of the training that every process runs."""

    backend: type[Backend]
    training: TrainingConfig
    calibration: Calibration
    weights: Weights
    execution: ExecutionConfig
    samples: tuple[Samples, Samples | None]
    options: FitOptions

    def fit(self, process: ProcessRank, on_event: OnEvent) -> _Result:
        """Train on this process's share of every batch."""
        backend, options = self.backend(), self.options
        execution = on_own_device(self.execution, backend.devices(), process)
        if execution.threads is None:
            execution = dataclasses.replace(execution, threads=max(1, processors() // process.world))
        if options.checkpoints is not None:
            options.checkpoints.silent = process.rank > 0
        model = backend.create_model(self.training, self.calibration, execution)
        model.set_weights(self.weights)
        history = backend.fit(model, *self.samples, execution, on_event, options)
        return _Result(history, model.get_weights())


@dataclass(eq=False)
class _Result:
    """Result of a process: a history with weights, or an error."""

    history: History = dataclasses.field(default_factory=list)
    weights: Weights = dataclasses.field(default_factory=dict)
    error: BaseException | None = None


class _Worker:
    """Parent's handle of a worker process."""

    def __init__(self, process: ProcessRank, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # frameworks do not survive a fork
        self.process = process
        self.connection, remote = context.Pipe()
        self._child = context.Process(target=_run_worker, args=(process, environment, remote), daemon=True)
        self._child.start()
        remote.close()  # so that the pipe ends with the process

    def start(self, task: _Task) -> None:
        """Send the task through the pipe, which breaks if the process has ended; process arguments would block."""
        try:
            self.connection.send(task)
        except OSError:
            raise self._silent_end() from None

    def receive(self) -> Any:
        """Return the next message of the process; an end without a message is an error."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return _Result(error=self._silent_end())

    def end(self) -> None:
        """Kill the process."""
        self._child.kill()
        self._child.join()
        self.connection.close()

    def _silent_end(self) -> TrainingError:
        self._child.join(GRACE_S)
        return TrainingError(
            "A process of the training ended without an error message.",
            expected=f"{self.process.world} processes that train together",
            received=f"exit status {self._child.exitcode} of process {self.process.rank}",
            fix="check the memory; a script that trains does so under: if __name__ == '__main__':",
        )


def _wait_for_result(workers: list[_Worker], on_event: OnEvent, options: FitOptions) -> _Result:
    """Handle messages until the first process returns its result, or a process fails."""
    waiting: dict[Any, _Worker] = {worker.connection: worker for worker in workers}
    errors: list[BaseException] = []
    deadline = float("inf")
    while waiting and time.monotonic() < deadline:
        for connection in wait(list(waiting), timeout=1.0):
            worker = waiting[connection]
            message = worker.receive()
            if not isinstance(message, _Result):
                _handle(message, worker, on_event, options)
                continue
            del waiting[connection]
            if message.error is None:
                if worker.process.rank == 0:
                    return message
                continue
            # The first failure makes the exchanges of the other processes fail: their errors are not the cause.
            if _is_cause(message.error, worker.process, options):
                raise message.error
            if not isinstance(message.error, TrainingStopped):
                errors.append(message.error)
                deadline = min(deadline, time.monotonic() + GRACE_S)
    raise errors[0]


def _handle(message: Event | logging.LogRecord, worker: _Worker, on_event: OnEvent, options: FitOptions) -> None:
    """Log a record; report an event and reply with the signal of a stop request, or None."""
    if isinstance(message, logging.LogRecord):
        log = logging.getLogger(message.name)
        if log.isEnabledFor(message.levelno):
            log.handle(message)
        return
    if isinstance(message, EpochEvent) and options.logger is not None:
        options.logger.log(message.metrics, message.epoch)
    on_event(message)
    worker.connection.send(options.stop.signal)


def _is_cause(error: BaseException, process: ProcessRank, options: FitOptions) -> bool:
    """Whether an error ends the training at once; a stop does in the first process, which writes the checkpoint."""
    if isinstance(error, TrainingStopped):
        error.signal = options.stop.signal or error.signal
        return process.rank == 0
    return isinstance(error, PtychoError)


def _run_worker(process: ProcessRank, environment: Mapping[str, str], connection: Any) -> None:
    """Run a worker process: receive the task, train, send the result."""
    os.environ.update(environment)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    stop = _ParentStop()
    stop.listen()
    pipe, is_first = _Pipe(connection, stop), process.rank == 0
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(pipe) if is_first else logging.NullHandler())  # type: ignore[arg-type]
    root.setLevel(logging.INFO)
    try:
        task: _Task = connection.recv()
        stop.signal, task.options.stop = task.options.stop.signal, stop
        result = task.fit(process, pipe.report if is_first else ignore)
    except BaseException as error:
        result = _Result(error=_picklable(error, process))
    pipe.put_nowait(result if is_first or result.error else _Result())


class _ParentStop(Stop):
    """Stop request from the parent only; the terminal sends its signals to the whole process group."""

    def listen(self) -> None:
        """Ignore signals: the worker process ends with its parent."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _Pipe:
    """Worker's end of the pipe to the parent; a queue for a logging.handlers.QueueHandler."""

    def __init__(self, connection: Any, stop: Stop) -> None:
        self._connection, self._stop, self._lock = connection, stop, threading.RLock()

    def put_nowait(self, message: Any) -> None:
        """Send a message."""
        with self._lock:
            self._connection.send(message)

    def report(self, event: Event) -> None:
        """Send an event and wait until the parent has handled it."""
        with self._lock:
            self._connection.send(event)
            number = self._connection.recv()
        if number is not None:
            self._stop.request(number)


def _picklable(error: BaseException, process: ProcessRank) -> BaseException:
    """Return an error that the parent can unpickle."""
    story = "".join(traceback.format_exception(error))
    if not isinstance(error, PtychoError):
        logger.error("process %d of the training fails:\n%s", process.rank, story)
    try:
        copy = ForkingPickler.loads(bytes(ForkingPickler.dumps(error)))
        if type(copy) is type(error):
            return error
    except Exception:  # of any class: constructors of exceptions raise their own
        pass
    return TrainingError("A process of the training fails.", received=story)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _environments(engine: str, n: int) -> list[dict[str, str]]:
    """Return the environment variables of n processes on this machine, for each its own."""
    ports = _free_ports(n)
    shared = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(ports[0]), "WORLD_SIZE": str(n)}
    return [
        {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        | (_tensorflow_variables(rank, ports) if engine == "tensorflow" else {})
        for rank in range(n)
    ]


def _tensorflow_variables(rank: int, ports: list[int]) -> dict[str, str]:
    """Return the variables of a TensorFlow worker: the cluster, and the one GPU that it sees."""
    cluster = {"worker": [f"{LOOPBACK}:{port}" for port in ports]}
    gpus = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(str(i) for i in range(len(ports)))).split(",")
    task = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
    return {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": gpus[rank] if rank < len(gpus) else "-1"}


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(n)]
    ports = [int(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports
