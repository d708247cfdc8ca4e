"""The published network in a graph of Keras layers: its settings and its weights (spec: model_file 7.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.compat.predecessor.keras_file import KerasFile
from ptycho_backend.compat.predecessor.keras_weights import Convolution
from ptycho_backend.config import ModelConfig
from ptycho_backend.network.architectures import describe, parameters

SIDES = (64, 128, 256)
ACTIVATIONS = ("sigmoid", "swish", "silu", "softplus", "relu")
POLAR_SINCE = "2026-01-26"  # until then the complex layer took amplitude and phase as real and imaginary part
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Branches:
    """Convolutions of the published network by layer name, first to last."""

    encoder: list[str]
    centres: tuple[list[str], list[str]]
    frames: tuple[list[str], list[str]]


def branches(file: KerasFile) -> Branches:
    """
    Find encoder, decoders and frames along the graph.

    Raises
    ------
    ValueError
        If the graph is not that of the published network.
    """
    missing = [name for name in ("input", "amp", "phi", "obj") if name not in file.layers]
    if missing or len(file.layers["obj"].inputs) != 2:
        wanted = "layers 'input', 'amp', 'phi', and 'obj' of two inputs"
        raise ValueError(f"it is not the published network: {wanted}; missing: {', '.join(missing) or 'inputs'}")
    inside = [file.ancestors(name) for name in ("amp", "phi")]
    whole = [file.ancestors(name) for name in file.layers["obj"].inputs]
    if "amp" not in whole[0] or "phi" not in whole[1]:
        raise ValueError("it is not the published network: 'obj' does not join amplitude and phase")
    encoder = inside[0] & inside[1]
    centres = [file.chain(names - encoder) for names in inside]
    frames = [file.chain(all_ - names) for all_, names in zip(whole, inside, strict=True)]
    return Branches(file.chain(encoder), (centres[0], centres[1]), (frames[0], frames[1]))


def model_of(file: KerasFile, found: Branches, told: Mapping[str, Any], given: Mapping[str, Any]) -> ModelConfig:
    """
    Return the model that a graph describes.

    Parameters
    ----------
    file : KerasFile
    found : Branches
    told, given : mapping
        Fields of ModelConfig for what the graph does not say: as stored beside it, and as the user says.

    Raises
    ------
    ValueError
        If graph and user contradict each other, or this package has no such model.
    """
    told = {**told, **given}
    N, channels = _sides(file, told)
    for name, value in (("N", N), ("gridsize", math.isqrt(channels))):
        if given.get(name, value) != value:
            raise ValueError(f"its graph says {name}={value}, the command line {name}={given[name]}")
    gridsize = math.isqrt(channels)
    if gridsize**2 != channels:
        raise ValueError(f"{channels} patterns per group are no square of a gridsize")
    if N not in SIDES:
        raise ValueError(f"the published network takes patterns of {SIDES} pixels a side, not {N}")
    config = ModelConfig(
        **{
            **told,
            "N": N,
            "gridsize": gridsize,
            "architecture": "cnn",
            "pad_object": "amp_padded" in file.layers,
            "amp_activation": _activation(file, told),
            "decoder_outputs": told.get("decoder_outputs") or _outputs(file),
            "object_big": _merges(file, told),
        }
    )
    config.probe_big = bool(found.frames[0]) or not config.pad_object
    config.n_filters_scale = _scale(file, found, config)
    return config


def weights_of(file: KerasFile, found: Branches, config: ModelConfig) -> Weights:
    """
    Return the network's weights under canonical names.

    Raises
    ------
    ValueError
        If a layer is missing or has another shape than the published network's.
    """
    kernels = [p.name.removesuffix("/kernel") for p in parameters(config) if p.name.endswith("/kernel")]
    layers = [*found.encoder]
    for centre, frame in zip(found.centres, found.frames, strict=True):
        layers += [*centre, *frame]
    if len(layers) != len(kernels):
        raise ValueError(f"it has {len(layers)} convolutions, the published network of these settings {len(kernels)}")
    shapes = {p.name: p.shape for p in parameters(config)}
    weights: Weights = {}
    for name, layer in zip(kernels, layers, strict=True):
        kernel, bias = _shared(file.convolutions[layer], shapes[f"{name}/kernel"])
        for part, value in (("kernel", kernel), ("bias", bias)):
            if value.shape != shapes[f"{name}/{part}"]:
                raise ValueError(f"layer '{layer}' has a {part} of {value.shape}, not {shapes[f'{name}/{part}']}")
            weights[f"{name}/{part}"] = np.ascontiguousarray(value)
    return weights


def _shared(convolution: Convolution, shape: tuple[int, ...]) -> Convolution:
    """Return a convolution that gives all members of a group the one amplitude that earlier models predict."""
    kernel, bias = convolution
    if kernel.ndim == 4 and kernel.shape[3] == 1 and kernel.shape[:3] == shape[:3]:
        return np.repeat(kernel, shape[3], axis=3), np.repeat(bias, shape[3])
    return kernel, bias


def _sides(file: KerasFile, told: Mapping[str, Any]) -> tuple[int, int]:
    """Return N and the patterns per group: from the graph's input, or where that is open from elsewhere."""
    settings = file.layers["input"].config
    shape = settings.get("batch_shape") or settings.get("batch_input_shape") or []
    open_ = (None, told.get("N"), None, told["gridsize"] ** 2 if "gridsize" in told else None)
    sides = [side or other for side, other in zip(shape if len(shape) == 4 else [None] * 4, open_, strict=True)]
    if not isinstance(sides[1], int) or not isinstance(sides[3], int):
        raise ValueError("neither its graph nor its settings say N and gridsize; give --N and --gridsize")
    return sides[1], sides[3]


def _activation(file: KerasFile, told: Mapping[str, Any]) -> str:
    name = file.layers["amp"].config.get("activation_name") or told.get("amp_activation") or "sigmoid"
    if name not in ACTIVATIONS:
        raise ValueError(f"amplitude activation '{name}' is not one of {', '.join(ACTIVATIONS)}")
    phase = file.layers["phi"].config
    if phase.get("activation_name", "tanh") != "tanh" or not math.isclose(phase.get("scale", math.pi), math.pi):
        raise ValueError("its phase is not π·tanh")
    return str(name)


def _merges(file: KerasFile, told: Mapping[str, Any]) -> bool:
    kind = file.layers["padded_obj_2"].kind if "padded_obj_2" in file.layers else ""
    if kind in ("ReassemblePatchesLayer", "PadReconstructionLayer"):
        return kind == "ReassemblePatchesLayer"
    return bool(told.get("object_big", True))


def _outputs(file: KerasFile) -> str:
    """Return what the two decoders mean: by the layer that joins them, and by its date."""
    joined = file.layers["obj"].kind == "CombineComplexLayer"
    return "real_imaginary" if joined and "" < file.saved[:10] < POLAR_SINCE else "amplitude_phase"


def _scale(file: KerasFile, found: Branches, config: ModelConfig) -> int:
    if not found.encoder or not all(found.centres):
        raise ValueError("it has no encoder with two decoders")
    out = file.convolutions[found.centres[1][-1]][0].shape[-1]
    if out != config.channels:
        raise ValueError(
            f"it predicts {out} patch(es) for a group of {config.channels} patterns (object_big=False); here every "
            "pattern has a patch of its own"
        )
    first = describe(ModelConfig(N=config.N, architecture="cnn", n_filters_scale=1))["cnn"].parameters[0].shape[3]
    scale, rest = divmod(file.convolutions[found.encoder[0]][0].shape[-1], first)
    if rest or not 1 <= scale <= 16:
        raise ValueError(f"its first layer has {scale * first + rest} filters, no whole multiple of {first}")
    return scale
