"""Training in processes of our own, one for each device of this machine (spec: config 6.4)."""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.handlers
import multiprocessing
import os
import signal
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
from ptycho_backend.engines.model import History, Model, Weights
from ptycho_backend.errors import PtychoError, TrainingError, TrainingStopped
from ptycho_backend.events import EpochEvent, Event, OnEvent, ignore
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.devices import processors
from ptycho_backend.training.options import CheckpointWriter, FitOptions
from ptycho_backend.training.parallel import ProcessRank, SilentCheckpointWriter, on_own_device
from ptycho_backend.training.signals import SIGNALS, Stop

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
GRACE_S = 5.0  # in which the process that failed first may still say why


def fit_in_processes(
    model: Model,
    samples: tuple[Samples, Samples | None],
    execution: ExecutionConfig,
    on_event: OnEvent,
    options: FitOptions | None,
) -> History:
    """
    Train a model in rank, with one new process per device of this machine.

    Parameters
    ----------
    model : Model
    samples : tuple of Samples and Samples or None
        For training, and held out. Every process gets a copy.
    execution : ExecutionConfig
    on_event : callable
        Called in this process, which the others wait for.
    options : FitOptions, optional
        Its logger writes in this process, its writer in the first of the new ones.
    """
    options = options or FitOptions()
    parts = options.resume, options.history, options.checkpoints, options.stop.signal
    task = _Task(model.backend, model.training, model.calibration, model.get_weights(), execution, samples, *parts)
    children: list[_Child] = []
    try:
        for rank, environment in _places(model.backend, execution.devices):
            children.append(_Child(rank, environment))
        for child in children:
            child.tell(task)
        result = _follow(children, _Listener(on_event, options))
    finally:
        for child in children:
            child.end()
    model.set_weights(result.weights)
    return result.history


@dataclass(eq=False)
class _Task:
    """What every process is told."""

    backend: str
    training: TrainingConfig
    calibration: Calibration
    weights: Weights
    execution: ExecutionConfig
    samples: tuple[Samples, Samples | None]
    resume: TrainerState | None
    history: History
    writer: CheckpointWriter | None
    signal: int | None

    def fit(self, rank: ProcessRank, on_event: OnEvent, stop: Stop) -> _Result:
        """Train this process's share."""
        from ptycho_backend.engines.registry import get_backend

        backend = get_backend(self.backend)
        writer, execution = self.writer, on_own_device(self.execution, backend.devices(), rank)
        if writer and rank.rank > 0:
            writer = SilentCheckpointWriter(writer.folder, writer.save_top_k)
        if execution.threads is None:
            execution = dataclasses.replace(execution, threads=max(1, processors() // rank.world))
        model = backend.create_model(self.training, self.calibration, execution)
        model.set_weights(self.weights)
        options = FitOptions(self.resume, self.history, writer, stop)
        history = backend.fit(model, *self.samples, execution, on_event, options)
        return _Result(history, model.get_weights())


@dataclass(eq=False)
class _Result:
    """How a process has ended: with what it returns, or with an error."""

    history: History = dataclasses.field(default_factory=list)
    weights: Weights = dataclasses.field(default_factory=dict)
    error: BaseException | None = None


class _Child:
    """A process as its parent sees it."""

    def __init__(self, rank: ProcessRank, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # frameworks do not survive a fork
        self.rank = rank
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_train_share, args=(rank, environment, other), daemon=True)
        self._process.start()
        other.close()  # so that the end of the process is the end of the pipe

    def tell(self, task: _Task) -> None:
        """Say what to do, by a pipe that breaks where the process has ended; arguments of a process would block."""
        try:
            self.connection.send(task)
        except OSError:
            self._process.join(GRACE_S)
            raise self._silent_end() from None

    def receive(self) -> Any:
        """Return what the process says; its silent end is an error."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._process.join(GRACE_S)
            return _Result(error=self._silent_end())

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _silent_end(self) -> TrainingError:
        return TrainingError(
            "A process of the training has ended without a word.",
            expected=f"{self.rank.world} processes that train together",
            received=f"exit status {self._process.exitcode} of process {self.rank.rank}",
            fix="check the memory; a script that trains does so under: if __name__ == '__main__':",
        )


class _Listener:
    """What the parent does with what the first process says."""

    def __init__(self, on_event: OnEvent, options: FitOptions) -> None:
        self._on_event, self.options = on_event, options

    def hear(self, message: Event | logging.LogRecord, child: _Child) -> None:
        """Pass a log record on; pass an event on and answer with the signal that asks to stop, or None."""
        if isinstance(message, logging.LogRecord):
            log = logging.getLogger(message.name)
            if log.isEnabledFor(message.levelno):
                log.handle(message)
            return
        if isinstance(message, EpochEvent) and self.options.logger is not None:
            self.options.logger.log(message.metrics, message.epoch)
        self._on_event(message)
        child.connection.send(self.options.stop.signal)


def _follow(children: list[_Child], listener: _Listener) -> _Result:
    """Listen to all processes until the first one has its result, or one has failed."""
    waiting = {child.connection: child for child in children}
    errors: list[BaseException] = []
    deadline = float("inf")
    while waiting and time.monotonic() < deadline:
        for ready in wait(list(waiting), timeout=1.0):
            child = next(child for connection, child in waiting.items() if connection is ready)
            message = child.receive()
            if not isinstance(message, _Result):
                listener.hear(message, child)
                continue
            del waiting[child.connection]
            if message.error is None and child.rank.rank == 0:
                return message
            # What the others met on the way down matters less than what went wrong first.
            if message.error is not None and _decides(message.error, child.rank, listener.options):
                raise message.error
            if message.error is not None and not isinstance(message.error, TrainingStopped):
                errors.append(message.error)
                deadline = min(deadline, time.monotonic() + GRACE_S)
    raise errors[0]


def _decides(error: BaseException, rank: ProcessRank, options: FitOptions) -> bool:
    """Whether an error is the reason why training ends; the first process stops when it has kept where it stands."""
    if isinstance(error, TrainingStopped):
        error.signal = options.stop.signal or error.signal
        return rank.rank == 0
    return isinstance(error, PtychoError)


def _train_share(rank: ProcessRank, environment: Mapping[str, str], connection: Any) -> None:
    """Be one process of a training."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stop = _Told()
    stop.listen()
    task: _Task = connection.recv()
    stop.signal = task.signal
    line = _Line(connection, stop)
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.addHandler(_Forwarding(line) if rank.rank == 0 else logging.NullHandler())
    root.setLevel(logging.INFO)
    try:
        result = task.fit(rank, line.ask if rank.rank == 0 else ignore, stop)
    except BaseException as error:
        result = _Result(error=_portable(error, rank))
    line.tell(result if rank.rank == 0 or result.error else _Result())


class _Told(Stop):
    """A stop that hears of signals from the parent only: the terminal sends them to the whole group."""

    def listen(self) -> None:
        """Leave signals to the parent, whose end is the end of this process too."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _Line:
    """The pipe to the parent."""

    def __init__(self, connection: Any, stop: Stop) -> None:
        self._connection, self._stop, self._lock = connection, stop, threading.RLock()

    def tell(self, message: Any) -> None:
        """Say something."""
        with self._lock:
            self._connection.send(message)

    def ask(self, event: Event) -> None:
        """Report an event, and wait until it has been heard."""
        with self._lock:
            self._connection.send(event)
            number = self._connection.recv()
        if number is not None:
            self._stop.request(number)


class _Forwarding(logging.handlers.QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, line: _Line) -> None:
        super().__init__(line)  # type: ignore[arg-type]
        self._line = line

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._line.tell(record)


def _portable(error: BaseException, rank: ProcessRank) -> BaseException:
    """Return an error that survives the way to the parent."""
    story = "".join(traceback.format_exception(error))
    if not isinstance(error, PtychoError):
        logger.error("process %d of the training fails:\n%s", rank.rank, story)
    try:
        copy = ForkingPickler.loads(bytes(ForkingPickler.dumps(error)))
        return error if type(copy) is type(error) else TrainingError("A process of the training fails.", received=story)
    except Exception:  # of whatever class an exception's own constructor raises
        return TrainingError("A process of the training fails.", received=story)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _places(engine: str, n: int) -> list[tuple[ProcessRank, dict[str, str]]]:
    """Return the places of n processes on this machine with the environment that tells them so."""
    ports = _free_ports(n)
    shared = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(ports[0]), "WORLD_SIZE": str(n)}
    if engine == "tensorflow":
        return [(ProcessRank(i, n, i), {**shared, **_ranks(i), **_worker(i, ports)}) for i in range(n)]
    return [(ProcessRank(i, n, i), {**shared, **_ranks(i)}) for i in range(n)]


def _ranks(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _worker(rank: int, ports: list[int]) -> dict[str, str]:
    """Return what a worker of TensorFlow's is told: the cluster, and the one GPU that it sees."""
    cluster = {"worker": [f"{LOOPBACK}:{port}" for port in ports]}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(str(i) for i in range(len(ports)))
    own = gpus.split(",")[rank] if rank < len(gpus.split(",")) else "-1"
    task = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
    return {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": own}


def _free_ports(n: int) -> list[int]:
    import socket

    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(n)]
    ports = [int(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports
