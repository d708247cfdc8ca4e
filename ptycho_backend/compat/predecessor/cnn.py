"""Settings and weights of the published network, from its graph of Keras layers (spec: model_file 7.4)."""

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
POLAR_SINCE = "2026-01-26"  # earlier releases joined the decoders' outputs as real and imaginary part
MAX_SCALE = 16
Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Branches:
    """Layer names of the network's convolutions, first to last; pairs are (amplitude, phase)."""

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
        raise _other_network(f"{wanted}; missing: {', '.join(missing) or 'inputs'}")
    inside = [file.ancestors(name) for name in ("amp", "phi")]
    all_layers = [file.ancestors(name) for name in file.layers["obj"].inputs]
    if "amp" not in all_layers[0] or "phi" not in all_layers[1]:
        raise _other_network("'obj' does not join amplitude and phase")
    encoder = inside[0] & inside[1]
    centres = [file.chain(names - encoder) for names in inside]
    frames = [file.chain(names - centre) for names, centre in zip(all_layers, inside, strict=True)]
    return Branches(file.chain(encoder), (centres[0], centres[1]), (frames[0], frames[1]))


def model_of(file: KerasFile, found: Branches, stored: Mapping[str, Any], given: Mapping[str, Any]) -> ModelConfig:
    """
    Return the configuration of the model that a graph describes.

    Parameters
    ----------
    file : KerasFile
    found : Branches
    stored, given : mapping
        Fields of ModelConfig that the graph lacks: stored in the archive, and given by the user.

    Raises
    ------
    ValueError
        If graph and user contradict each other, or this package has no such model.
    """
    settings = {**stored, **given}
    N, channels = _sizes(file, settings)
    gridsize = math.isqrt(channels)
    for name, value in (("N", N), ("gridsize", gridsize)):
        if given.get(name, value) != value:
            raise ValueError(f"its graph says {name}={value}, the command line {name}={given[name]}")
    if gridsize**2 != channels:
        raise ValueError(f"{channels} patterns per group are no square of a gridsize")
    if N not in SIDES:
        raise ValueError(f"the published network takes patterns of {SIDES} pixels a side, not {N}")
    config = ModelConfig(
        **{
            **settings,
            "N": N,
            "gridsize": gridsize,
            "architecture": "cnn",
            "pad_object": "amp_padded" in file.layers,
            "amp_activation": _activation(file, settings),
            "decoder_outputs": settings.get("decoder_outputs") or _decoder_outputs(file),
            "object_big": _merges_patches(file, settings),
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
        If a layer is missing, or its shape differs from the published network's.
    """
    shapes = {p.name: p.shape for p in parameters(config)}
    names = [name.removesuffix("/kernel") for name in shapes if name.endswith("/kernel")]
    layers = [*found.encoder]
    for centre, frame in zip(found.centres, found.frames, strict=True):
        layers += [*centre, *frame]
    if len(layers) != len(names):
        raise ValueError(f"it has {len(layers)} convolutions, the published network of these settings {len(names)}")
    weights: Weights = {}
    for name, layer in zip(names, layers, strict=True):
        kernel, bias = _for_all_members(file.convolutions[layer], shapes[f"{name}/kernel"])
        for part, value in (("kernel", kernel), ("bias", bias)):
            if value.shape != shapes[f"{name}/{part}"]:
                raise ValueError(f"layer '{layer}' has a {part} of {value.shape}, not {shapes[f'{name}/{part}']}")
            weights[f"{name}/{part}"] = np.ascontiguousarray(value)
    return weights


def _for_all_members(convolution: Convolution, shape: tuple[int, ...]) -> Convolution:
    """Repeat a convolution of one output for all members of a group; earlier models predict one amplitude for all."""
    kernel, bias = convolution
    if kernel.ndim == 4 and kernel.shape[3] == 1 and kernel.shape[:3] == shape[:3]:
        return np.repeat(kernel, shape[3], axis=3), np.repeat(bias, shape[3])
    return kernel, bias


def _sizes(file: KerasFile, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return N and the patterns per group, from the graph's input or else from the settings."""
    layer = file.layers["input"].config
    shape = layer.get("batch_shape") or layer.get("batch_input_shape") or []
    _, graph_N, _, graph_channels = shape if len(shape) == 4 else [None] * 4
    N = graph_N or settings.get("N")
    channels = graph_channels or (settings["gridsize"] ** 2 if "gridsize" in settings else None)
    if not isinstance(N, int) or not isinstance(channels, int):
        raise ValueError("neither its graph nor its settings say N and gridsize; give --N and --gridsize")
    return N, channels


def _activation(file: KerasFile, settings: Mapping[str, Any]) -> str:
    name = file.layers["amp"].config.get("activation_name") or settings.get("amp_activation") or "sigmoid"
    if name not in ACTIVATIONS:
        raise ValueError(f"amplitude activation '{name}' is not one of {', '.join(ACTIVATIONS)}")
    phase = file.layers["phi"].config
    if phase.get("activation_name", "tanh") != "tanh" or not math.isclose(phase.get("scale", math.pi), math.pi):
        raise ValueError("its phase is not π·tanh")
    return str(name)


def _merges_patches(file: KerasFile, settings: Mapping[str, Any]) -> bool:
    class_name = file.layers["padded_obj_2"].class_name if "padded_obj_2" in file.layers else ""
    if class_name in ("ReassemblePatchesLayer", "PadReconstructionLayer"):
        return class_name == "ReassemblePatchesLayer"
    return bool(settings.get("object_big", True))


def _decoder_outputs(file: KerasFile) -> str:
    """Return the meaning of the two decoders' outputs, from the class of the joining layer and the file's date."""
    joined = file.layers["obj"].class_name == "CombineComplexLayer"
    return "real_imaginary" if joined and "" < file.saved[:10] < POLAR_SINCE else "amplitude_phase"


def _scale(file: KerasFile, found: Branches, config: ModelConfig) -> int:
    """Return `n_filters_scale`, the number of filters in the first layer over that at scale 1."""
    if not found.encoder or not all(found.centres):
        raise ValueError("it has no encoder with two decoders")
    out = file.convolutions[found.centres[1][-1]][0].shape[-1]
    if out != config.channels:
        raise ValueError(
            f"it predicts {out} patch(es) for a group of {config.channels} patterns (object_big=False); here every "
            "pattern has a patch of its own"
        )
    unit = describe(ModelConfig(N=config.N, architecture="cnn", n_filters_scale=1))["cnn"].parameters[0].shape[3]
    filters = file.convolutions[found.encoder[0]][0].shape[-1]
    scale, rest = divmod(filters, unit)
    if rest or not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"its first layer has {filters} filters, no whole multiple of {unit}")
    return scale


def _other_network(what: str) -> ValueError:
    return ValueError(f"it is not the published network: {what}")
