"""
The one schema: what a model is, how it is trained, how it is applied, and how a run is executed.

Constraints stand on the fields (`annotated_types`), defaults exist only here. Building a config checks
nothing, because real clients fill it in afterwards; :func:`validate` checks everything and reports every
violation at once. YAML, the command line and the JSON Schema all come from these four classes.

Notes
-----
Spec: config 1 to 4.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Interval, Le, Lt, MultipleOf

from ptycho_backend.compat.deprecated_names import modern_fields
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.runtime.yaml_files import read_yaml

Fraction = Annotated[float, Interval(ge=0.0, lt=1.0)]
NonNegative = Annotated[float, Ge(0.0)]


@dataclass
class ModelConfig:
    """
    What the model is: everything that changes the function the network computes.

    Parameters
    ----------
    N : int
        Side of a diffraction pattern and of a reconstructed patch, pixels; a multiple of 16.
    gridsize : int
        A group holds gridsize² neighbouring positions.
    architecture : {"unet", "cnn"}
        "unet" is the unrolled reconstruction, "cnn" the published two-decoder network.
    model_type : {"pinn", "supervised"}
        Self-supervised by the diffraction physics, or fitted to labels cut from the known object.
    n_filters_scale : int
        Multiplies every channel width.
    unrolled_steps : int
        Network passes of "unet"; each pass after the first follows a data-consistency step.
    initial_iterations : int
        Accelerated data-consistency steps of "unet" before the first pass.
    amp_activation : {"sigmoid", "swish", "softplus", "relu"}
        Amplitude head of "cnn", times 2 ("silu" is accepted as another name of "swish").
    decoder_outputs : {"amplitude_phase", "real_imaginary"}
        What the two decoders of "cnn" predict; the second is for converted models that were trained so.
    object_big : bool
        Merge the patches of a group into one consistent object before the physics.
    probe_big : bool
        "cnn" with `pad_object`: predict the frame around the central half too.
    pad_object : bool
        "cnn": the main branch predicts the central half of the window, the rest is padded.
    probe_mask : bool
        Cut the probe to a centred disc of radius N/4 pixels.
    gaussian_smoothing_sigma : float
        Gaussian smoothing of the exit wave, pixels; 0 switches it off.
    """

    N: Annotated[int, Ge(32), Le(512), MultipleOf(16)] = 64
    gridsize: Annotated[int, Ge(1), Le(8)] = 1
    architecture: Literal["unet", "cnn"] = "unet"
    model_type: Literal["pinn", "supervised"] = "pinn"
    n_filters_scale: Annotated[int, Ge(1), Le(16)] = 1
    unrolled_steps: Annotated[int, Ge(1), Le(8)] = 2
    initial_iterations: Annotated[int, Ge(0), Le(64)] = 8
    amp_activation: Literal["sigmoid", "swish", "silu", "softplus", "relu"] = "sigmoid"
    decoder_outputs: Literal["amplitude_phase", "real_imaginary"] = "amplitude_phase"
    object_big: bool = True
    probe_big: bool = True
    pad_object: bool = True
    probe_mask: bool = False
    gaussian_smoothing_sigma: Annotated[float, Ge(0.0), Le(16.0)] = 0.0

    @property
    def channels(self) -> int:
        """Patches per group, C = gridsize²."""
        return self.gridsize**2


@dataclass
class TrainingConfig:
    """
    How the model is fitted: data selection, loss and optimisation; it changes the weights, not the model.

    Parameters
    ----------
    model : ModelConfig
        The model to train.
    backend : {"auto", "tensorflow", "pytorch"} or an entry-point name
        The engine; "auto" takes PyTorch if it is installed, else TensorFlow.
    nepochs, batch_size : int
        Passes over the data, and groups per batch.
    learning_rate : float, optional
        Of the optimiser, before scheduling. None: 0.001 for random weights, 0.0001 for the shipped network's.
    nll_weight, mae_weight : float
        Weights of the Poisson half-deviance (counts) and of the amplitude mean absolute error.
    constraint_share : float
        Share of the data loss that is taken after one more data-consistency step ("unet"): 1 trains the image that
        is returned, 0 the network's own last estimate.
    realspace_weight : float
        Weight of the total variation of the predicted object.
    realspace_mae_weight : float
        Weight of the mean absolute error against labels (needs a known object).
    nphotons : float, optional
        Mean photons per pattern for data whose amplitude has no absolute unit; None takes data as counts.
    probe_trainable, intensity_scale_trainable : bool
        Train the probe, and the scale between predicted and measured intensity.
    probe_iterations : int
        Passes that refine the probe before training (physics 8.4); 0 switches them off.
    validation_fraction : float
        Share of the groups held out; at least one group where it is positive.
    start : {"pretrained", "scratch"}
        Where the weights of a "unet" start: those of the network that ships with the package, where the model has
        that network, or random ones.
    n_groups : int, optional
        How many groups to train on; None uses one for every position.
    neighbor_count : int
        Nearest neighbours a group's members are drawn from; raised to gridsize² - 1 where it is smaller.
    seed : int
        Seeds weights, groups, split and batch order.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    backend: str = "auto"
    nepochs: Annotated[int, Ge(1)] = 50
    batch_size: Annotated[int, Ge(1)] = 16
    learning_rate: Annotated[float, Gt(0.0), Lt(10.0)] | None = None
    nll_weight: NonNegative = 1.0
    mae_weight: NonNegative = 0.0
    constraint_share: Annotated[float, Interval(ge=0.0, le=1.0)] = 1.0
    realspace_weight: NonNegative = 0.0
    realspace_mae_weight: NonNegative = 0.0
    nphotons: Annotated[float, Gt(0.0)] | None = None
    probe_trainable: bool = False
    intensity_scale_trainable: bool = True
    probe_iterations: Annotated[int, Ge(0)] = 20
    validation_fraction: Fraction = 0.05
    start: Literal["pretrained", "scratch"] = "pretrained"
    n_groups: Annotated[int, Ge(1)] | None = None
    neighbor_count: Annotated[int, Ge(1)] = 7
    seed: Annotated[int, Ge(0)] = 0


@dataclass
class InferenceConfig:
    """
    How a trained model is applied to a scan.

    Parameters
    ----------
    batch_size : int
        Groups per forward pass.
    amplitude_constraint : bool
        End with one more data-consistency step: measured amplitude, predicted phase ("unet").
    phase_alignment : bool
        Give all groups one phase reference before stitching.
    iterations : int, optional
        Data-consistency steps on the whole stitched object; 0 leaves it as it is, None takes 16 to 64 (physics 7.8).
    epie_iterations : int
        Passes of ePIE that polish the image at last.
    probe_iterations : int, optional
        Passes that adapt the probe first (physics 8.4), for a guess that is wrong; None takes 20 for the network that
        ships with the package, which never saw this probe, and none for a model trained on a scan.
    calibration : {"auto", "model", "scan"}
        Where probe and scale come from: the model's own when the scan carries the probe guess the model was
        trained with, else the scan's ("auto"); or always the one or the other.
    half_datasets : bool
        Judge an image by two reconstructions of half the patterns each (`assess` and the command line), for about the
        time of the passes over all patterns; with `gridsize` above 1, of the whole reconstruction.
    neighbor_count : int
        As in training.
    seed : int
        Seeds grouping and the polishing order.
    """

    batch_size: Annotated[int, Ge(1)] = 32
    amplitude_constraint: bool = True
    phase_alignment: bool = True
    iterations: Annotated[int, Ge(0)] | None = None
    epie_iterations: Annotated[int, Ge(0)] = 0
    probe_iterations: Annotated[int, Ge(0)] | None = None
    calibration: Literal["auto", "model", "scan"] = "auto"
    half_datasets: bool = True
    neighbor_count: Annotated[int, Ge(1)] = 7
    seed: Annotated[int, Ge(0)] = 0


@dataclass
class ExecutionConfig:
    """
    How a run is executed; nothing here changes what the model is.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:<index>"; "auto" takes a GPU where the framework sees one.
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
        Of the convolutions; FFT, loss and parameters stay float32. "auto" takes bf16 where the processor has it;
        "16-mixed" needs a GPU.
    compile : bool
        Let the framework compile the training step (torch.compile, XLA).
    deterministic : bool
        Use algorithms whose result does not depend on the order of threads, where a GPU has faster ones.
    accumulate_grad_batches : int
        Batches whose mean gradient makes one optimiser step.
    gradient_clip_val : float, optional
        Upper bound of the accumulated gradient.
    gradient_clip_algorithm : {"norm", "value"}
        What is bounded: the global norm, or each element.
    scheduler : {"constant", "cosine", "exponential", "multistep", "plateau"}
        Learning rate over the epochs: unchanged; half a cosine to `min_lr_ratio`; a steady decay to it; lower
        from each milestone on; lower whenever the monitor no longer improves.
    warmup_epochs : int
        Epochs of linear warm-up before the schedule.
    min_lr_ratio : float
        Smallest learning rate over the largest; "cosine" and "exponential" end there.
    scheduler_milestones : list of int, optional
        Epochs of "multistep", counted from 0; None takes 1/2 and 3/4 of the training.
    scheduler_factor : float
        Factor of "multistep" and "plateau" at each step down.
    scheduler_patience : int
        Epochs without improvement that "plateau" endures.
    monitor : str
        Metric that chooses the best epoch; "val_loss" and "train_loss" stand for the model's own names.
    monitor_mode : {"min", "max"}
        Whether less or more of the monitor is better.
    early_stop_patience : int, optional
        Epochs without improvement of the monitor before training stops; None never stops early.
    restore_best : bool
        Return the weights of the best epoch instead of the last one.
    save_top_k : int
        Checkpoints of the best epochs that a run folder keeps beside the last one; -1 keeps every epoch.
    logger : {"csv", "tensorboard", "mlflow", "none"}
        What the metrics of every epoch are written with while a run trains.
    devices : int
        Devices of each machine that train together, with one process for each; `batch_size` is that of all.
    num_nodes : int
        Machines; with several of them, srun or torchrun starts the processes.
    strategy : {"auto", "ddp", "ddp_spawn", "mirrored", "multiworker"}
        How processes work together: the first two are PyTorch's, the last two TensorFlow's; "auto" suits both.
    threads : int, optional
        Processor threads for the framework in each process; None leaves its default to one process, and gives several
        on one machine equal shares.
    progress : bool
        Show the progress display on the command line.
    """

    device: str = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    compile: bool = False
    deterministic: bool = False
    accumulate_grad_batches: Annotated[int, Ge(1)] = 1
    gradient_clip_val: Annotated[float, Gt(0.0)] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    scheduler: Literal["constant", "cosine", "exponential", "multistep", "plateau"] = "cosine"
    warmup_epochs: Annotated[int, Ge(0)] = 0
    min_lr_ratio: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.05
    scheduler_milestones: list[Annotated[int, Ge(0)]] | None = None
    scheduler_factor: Annotated[float, Interval(gt=0.0, lt=1.0)] = 0.5
    scheduler_patience: Annotated[int, Ge(0)] = 3
    monitor: str = "val_loss"
    monitor_mode: Literal["min", "max"] = "min"
    early_stop_patience: Annotated[int, Ge(1)] | None = None
    restore_best: bool = True
    save_top_k: Annotated[int, Ge(-1)] = 1
    logger: Literal["csv", "tensorboard", "mlflow", "none"] = "csv"
    devices: Annotated[int, Ge(1)] = 1
    num_nodes: Annotated[int, Ge(1)] = 1
    strategy: Literal["auto", "ddp", "ddp_spawn", "mirrored", "multiworker"] = "auto"
    threads: Annotated[int, Ge(1)] | None = None
    progress: bool = True


Config = TypeVar("Config")


@functools.cache
def _adapter(config_type: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.dataclasses import dataclass as checked

    return TypeAdapter(checked(config_type, config=ConfigDict(extra="forbid", allow_inf_nan=False)))


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as nested plain values, ready for YAML or JSON."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if getattr(value, "ndim", None) == 0 else value  # NumPy scalars count as numbers


def from_dict(config_type: type[Config], values: dict[str, Any], source: str = "the given values") -> Config:
    """
    Build and check a config from nested plain values.

    Raises
    ------
    ConfigError
        For unknown keys (naming the nearest one that exists) and for every violated constraint.
    """
    if config_type is ExecutionConfig:
        values = modern_fields(values)
    _refuse_unknown_keys(config_type, values, source)
    config = _build(config_type, values)
    validate(config, source)
    return config


def validate(config: Any, source: str = "the given values") -> None:
    """
    Check every constraint of a config, nested ones included.

    Raises
    ------
    ConfigError
        One error that lists all violations.
    """
    from pydantic import ValidationError

    try:
        _adapter(typing.cast(Any, type(config))).validate_json(json.dumps(to_dict(config), default=repr), strict=True)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}, not {item['input']!r}"
            for item in error.errors()
        ]
        raise ConfigError(
            f"{type(config).__name__} has {len(problems)} invalid value(s).",
            expected="; ".join(problems),
            received=source,
            fix="correct the fields named above; 'ptychopinn train --help' lists every field",
        ) from None


def json_schema(config_type: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a config class."""
    schema: dict[str, Any] = _adapter(typing.cast(Any, config_type)).json_schema()
    return schema


def load_yaml(path: Path | str, config_type: type[Config]) -> Config:
    """Read a config from a YAML file; unknown keys and bad values are errors that name the file."""
    return from_dict(config_type, read_yaml(path), source=f"file '{path}'")


def save_yaml(config: Any, path: Path | str) -> None:
    """Write a config (or a dict of plain values) as YAML."""
    import yaml

    values = config if isinstance(config, dict) else to_dict(config)
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def fields_of(config_type: type[Any]) -> dict[str, Any]:
    """Return the field names of a config class with their resolved types."""
    return typing.get_type_hints(config_type, include_extras=True)


def _build(config_type: type[Config], values: dict[str, Any]) -> Config:
    nested = {name: kind for name, kind in fields_of(config_type).items() if dataclasses.is_dataclass(kind)}
    arguments = {
        key: _build(typing.cast(Any, nested[key]), value)
        if key in nested and isinstance(value, dict)
        else copy.deepcopy(value)
        for key, value in values.items()
    }
    built: Config = config_type(**arguments)
    return built


def _refuse_unknown_keys(config_type: type[Any], values: dict[str, Any], source: str, prefix: str = "") -> None:
    known = fields_of(config_type)
    for key, value in values.items():
        if key not in known:
            nearest = nearest_name(str(key), known)
            raise ConfigError(
                f"Unknown configuration key '{prefix}{key}'.",
                expected=f"a field of {config_type.__name__}: {', '.join(known)}",
                received=f"'{prefix}{key}' in {source}",
                fix=f"did you mean '{prefix}{nearest}'?" if nearest else "remove the key",
            )
        if dataclasses.is_dataclass(known[key]) and isinstance(value, dict):
            _refuse_unknown_keys(typing.cast(type[Any], known[key]), value, source, f"{prefix}{key}.")
