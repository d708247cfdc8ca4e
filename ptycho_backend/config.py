"""
Configuration classes: model, training, inference and execution.

The fields carry their constraints (`annotated_types`) and the only copy of each default.
Construction checks nothing, because clients fill in the fields later.
:func:`validate` checks all fields and reports every violation at once.
YAML files, the command line and the JSON Schema derive from these four classes.

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
from ptycho_backend.errors import ConfigError, field_problems, nearest_name
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.runtime.yaml_files import read_yaml

Fraction = Annotated[float, Interval(ge=0.0, lt=1.0)]
NonNegative = Annotated[float, Ge(0.0)]
Switch = Literal["auto", "on", "off"]
Orientation = Literal["given", "auto", "+y+x", "-y+x", "+y-x", "-y-x", "+x+y", "-x+y", "+x-y", "-x-y"]


@dataclass
class ModelConfig:
    """
    Options of the model: the function that the network computes.

    Parameters
    ----------
    N : int
        Side of a diffraction pattern and of a reconstructed patch, pixels; a multiple of 16. 0 takes the scan's.
    gridsize : int
        Side of a group, positions; a group holds gridsize² neighbours.
    architecture : {"unet", "cnn"}
        Network: "unet" is the unrolled reconstruction, "cnn" a network with two decoders.
    model_type : {"pinn", "supervised"}
        Training target: the diffraction physics ("pinn"), or labels cut from the known object ("supervised").
    n_filters_scale : int
        Factor of every channel width.
    unrolled_steps : int
        Network evaluations of "unet", with one amplitude constraint and object update between two of them.
    initial_iterations : int
        Accelerated amplitude constraints and object updates of "unet" before the first network evaluation.
    amp_activation : {"sigmoid", "swish", "softplus", "relu"}
        Activation of the amplitude head of "cnn", times 2; "silu" is another name of "swish".
    decoder_outputs : {"amplitude_phase", "real_imaginary"}
        Quantities that the two decoders of "cnn" predict; "real_imaginary" is for converted models.
    object_big : bool
        Merging of the patches of a group into one object before the physics.
    probe_big : bool
        Prediction of the frame around the central half of the window ("cnn" with `pad_object`).
    pad_object : bool
        Prediction of the central half of the window only, with padding around it ("cnn").
    probe_mask : bool
        Restriction of the probe to a centred disc of radius N/4 pixels.
    gaussian_smoothing_sigma : float
        Standard deviation of the Gaussian smoothing of the exit wave, pixels; 0 switches it off.
    """

    N: Literal[0] | Annotated[int, Ge(32), Le(512), MultipleOf(16)] = 0
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
    Options of a training: data selection, loss and optimisation.

    Parameters
    ----------
    model : ModelConfig
        Model to train.
    backend : str
        Engine: "auto", "pytorch", "tensorflow" or another entry point; "auto" takes the first installed one.
    nepochs : int
        Number of epochs.
    batch_size : int
        Groups per batch.
    learning_rate : float, optional
        Learning rate before scheduling; None takes 0.001 for random weights and 0.0001 for those of the shipped
        network.
    nll_weight : float
        Weight of the Poisson half-deviance of the counts.
    mae_weight : float
        Weight of the mean absolute error of the amplitudes.
    constraint_share : float
        Share of the data loss after one more amplitude constraint ("unet"); 1 trains the returned image, 0 the last
        estimate of the network.
    realspace_weight : float
        Weight of the total variation of the predicted object.
    realspace_mae_weight : float
        Weight of the mean absolute error against labels; needs a known object.
    nphotons : float, optional
        Mean photons per pattern of amplitude data without an absolute unit; None takes the data as counts.
    probe_trainable : bool
        Training of the probe.
    intensity_scale_trainable : bool
        Training of the scale between predicted and measured intensity.
    probe_iterations : int
        Iterations of probe refinement before training (physics 8.4); 0 switches it off.
    validation_fraction : float
        Share of the groups for validation; a positive share takes at least one group.
    start : {"pretrained", "scratch"}
        Initial weights of a "unet": those of the shipped network if it has the same sizes, or random ones.
    n_groups : int, optional
        Number of groups to train on; None takes one for every position.
    neighbor_count : int
        Number of nearest neighbours from which a group is drawn; at least gridsize² - 1.
    seed : int
        Seed of weights, groups, split and batch order.
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
    Options of a reconstruction, with a model or without one.

    Parameters
    ----------
    start : {"auto", "flat", "physics", "network"}
        Initial object: 1 everywhere ("flat"), an estimate from each pattern ("physics"), or the prediction of a
        network. "auto" takes the network of a given model, and else "flat".
    batch_size : int
        Groups per evaluation of the network.
    amplitude_constraint : bool
        Final amplitude constraint: measured amplitude, predicted phase ("unet").
    phase_alignment : bool
        Alignment of the global phases of all groups before stitching.
    iterations : int, optional
        Solver iterations on the initial object; 0 leaves it unchanged, None iterates until convergence (physics 7.8).
    probe_iterations : int, optional
        Iterations of probe refinement before the initial object (physics 8.4); None takes 0 for a model that was
        trained on a scan, and else 20.
    fit_positions : {"auto", "on", "off"}
        Fit of the position of every pattern (physics 9.8); "auto" where the data show that it differs from the given.
    fit_flux : {"auto", "on", "off"}
        Fit of the flux of every pattern; "auto" where the data show that it differs.
    fit_background : {"auto", "on", "off"}
        Fit of the intensity that all pixels share; "auto" where the data show one.
    orientation : {"given", "auto", "+y+x", "-y+x", "+y-x", "-y-x", "+x+y", "-x+y", "+x-y", "-x-y"}
        Axes of the positions, as the detector sees them (data 11). "given" warns where another one fits clearly
        better, "auto" takes it, and a name turns the positions.
    calibration : {"auto", "model", "scan"}
        Source of probe and scale: the model, the scan, or with "auto" the model if both have the same probe guess.
    half_datasets : bool
        Uncertainty from two reconstructions of half the patterns each, in `assess` and on the command line. It costs
        about the time of the solver, or for `gridsize` above 1 of the whole reconstruction.
    neighbor_count : int
        Number of nearest neighbours from which a group is drawn.
    seed : int
        Seed of the groups.
    """

    start: Literal["auto", "flat", "physics", "network"] = "auto"
    batch_size: Annotated[int, Ge(1)] = 32
    amplitude_constraint: bool = True
    phase_alignment: bool = True
    iterations: Annotated[int, Ge(0)] | None = None
    probe_iterations: Annotated[int, Ge(0)] | None = None
    fit_positions: Switch = "auto"
    fit_flux: Switch = "auto"
    fit_background: Switch = "auto"
    orientation: Orientation = "given"
    calibration: Literal["auto", "model", "scan"] = "auto"
    half_datasets: bool = True
    neighbor_count: Annotated[int, Ge(1)] = 7
    seed: Annotated[int, Ge(0)] = 0


@dataclass
class ExecutionConfig:
    """
    Options of the execution of a run, without effect on the definition of the model.

    Parameters
    ----------
    device : str
        Device: "auto", "cpu", "cuda" or "cuda:<index>"; "auto" takes a GPU if the framework finds one.
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
        Precision of the convolutions; "auto" takes bf16 on a processor with native bf16, "16-mixed" needs a GPU. FFT,
        loss and parameters stay float32.
    compile : bool
        Compilation of the training step by the framework (torch.compile, XLA).
    deterministic : bool
        Algorithms without dependence on the order of threads, even if the GPU has faster ones.
    accumulate_grad_batches : int
        Batches per optimiser step; the step uses their mean gradient.
    gradient_clip_val : float, optional
        Upper bound of the accumulated gradient.
    gradient_clip_algorithm : {"norm", "value"}
        Bounded quantity: the global norm, or each element ("value").
    scheduler : {"constant", "cosine", "exponential", "multistep", "plateau"}
        Schedule of the learning rate: constant; decay to `min_lr_ratio` by half a cosine or exponentially; a step
        down at each milestone ("multistep"); a step down without improvement of the monitor ("plateau").
    warmup_epochs : int
        Epochs of linear warm-up before the schedule.
    min_lr_ratio : float
        Smallest learning rate over the largest; the end of "cosine" and "exponential".
    scheduler_milestones : list of int, optional
        Epochs of the steps of "multistep", counted from 0; None takes 1/2 and 3/4 of the training.
    scheduler_factor : float
        Factor of "multistep" and "plateau" at each step down.
    scheduler_patience : int
        Epochs without improvement before "plateau" lowers the learning rate.
    monitor : str
        Metric for the choice of the best epoch; "val_loss" and "train_loss" stand for the model's own names.
    monitor_mode : {"min", "max"}
        Better direction of the monitor: smaller or larger.
    early_stop_patience : int, optional
        Epochs without improvement of the monitor before training stops; None never stops early.
    restore_best : bool
        Return of the weights of the best epoch instead of the last one.
    save_top_k : int
        Number of saved checkpoints of the best epochs, besides the last one; -1 saves every epoch.
    logger : {"csv", "tensorboard", "mlflow", "none"}
        Logger of the metrics of every epoch during training.
    devices : int
        Devices of each machine that train together, with one process for each; `batch_size` counts all of them.
    num_nodes : int
        Number of machines; for several machines srun or torchrun starts the processes.
    strategy : {"auto", "ddp", "ddp_spawn", "mirrored", "multiworker"}
        Distribution strategy: "ddp" and "ddp_spawn" for PyTorch, "mirrored" and "multiworker" for TensorFlow, "auto"
        for both.
    threads : int, optional
        Processor threads of the framework in each process; None takes its default for one process, and equal shares
        for several processes on one machine.
    progress : bool
        Progress bars on the command line.
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
    """Return a config as nested plain values for YAML or JSON."""
    values: dict[str, Any] = to_plain(config)
    return values


def from_dict(config_type: type[Config], values: dict[str, Any], source: str = "the given values") -> Config:
    """
    Return a checked config from nested plain values.

    Raises
    ------
    ConfigError
        For an unknown key, with the nearest existing one, and for violated constraints.
    """
    if config_type is ExecutionConfig:
        values = modern_fields(values)
    config = _build(config_type, values, source)
    validate(config, source)
    return config


def validate(config: Any, source: str = "the given values") -> None:
    """
    Check every constraint of a config and of its nested configs.

    Raises
    ------
    ConfigError
        One error that lists all violations.
    """
    from pydantic import ValidationError

    try:
        _adapter(typing.cast(Any, type(config))).validate_json(json.dumps(to_dict(config), default=repr), strict=True)
    except ValidationError as error:
        raise ConfigError.invalid_fields(type(config).__name__, field_problems(error.errors()), source) from None


def json_schema(config_type: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a config class."""
    schema: dict[str, Any] = _adapter(typing.cast(Any, config_type)).json_schema()
    return schema


def load_yaml(path: Path | str, config_type: type[Config]) -> Config:
    """Return a checked config from a YAML file; errors contain the path of the file."""
    return from_dict(config_type, read_yaml(path), source=f"file '{path}'")


def save_yaml(config: Any, path: Path | str) -> None:
    """Write a config (or a dict of plain values) as YAML."""
    import yaml

    values = config if isinstance(config, dict) else to_dict(config)
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def fields_of(config_type: type[Any]) -> dict[str, Any]:
    """Return the field names of a config class with their resolved types."""
    return typing.get_type_hints(config_type, include_extras=True)


def _build(config_type: type[Config], values: dict[str, Any], source: str, prefix: str = "") -> Config:
    known, arguments = fields_of(config_type), {}
    for key, value in values.items():
        if key not in known:
            nearest = nearest_name(str(key), known)
            raise ConfigError(
                f"Unknown configuration key '{prefix}{key}'.",
                expected=f"a field of {config_type.__name__}: {', '.join(known)}",
                received=f"'{prefix}{key}' in {source}",
                fix=f"did you mean '{prefix}{nearest}'?" if nearest else "remove the key",
            )
        nested = dataclasses.is_dataclass(known[key]) and isinstance(value, dict)
        arguments[key] = (
            _build(typing.cast(Any, known[key]), value, source, f"{prefix}{key}.") if nested else copy.deepcopy(value)
        )
    built: Config = config_type(**arguments)
    return built
