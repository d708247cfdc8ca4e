"""
Archives in PtychoPINN's format: its published layers and names, with random weights.

They are built from the published description of files and networks, without PtychoPINN's code.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from ptycho_backend.cli import main
from ptycho_backend.engines.registry import missing_packages

ENCODER = {64: (32, 64, 128), 128: (16, 32, 64, 128), 256: (8, 16, 32, 64, 128)}
DECODER = {64: (64, 32), 128: (128, 64, 32), 256: (256, 128, 64, 32)}


@dataclasses.dataclass(frozen=True)
class Description:
    """Settings of a model of PtychoPINN."""

    N: int = 64
    gridsize: int = 1
    scale: int = 1
    pad_object: bool = True
    probe_big: bool = True
    object_big: bool = True
    amp_activation: str = "sigmoid"
    polar: bool = True
    amplitude_channels: int | None = None  # None: equal to the channels of the phase

    @property
    def heads(self) -> int:
        """Return the channels of the phase head."""
        return self.gridsize**2 if self.object_big else 1


def custom_layers() -> dict[str, Any]:
    """Return layers with the published names and settings."""
    import tensorflow as tf
    from keras import layers

    class IntensityScaler(layers.Layer):
        def __init__(self, log_scale=0.0, **kwargs):
            super().__init__(**kwargs)
            self.w = tf.Variable(log_scale)  # no variable of Keras: archives do not hold it

        def call(self, inputs):
            return inputs[0] / tf.exp(self.w)

    class ActivationLayer(layers.Layer):
        def __init__(self, activation_name="sigmoid", scale=1.0, **kwargs):
            super().__init__(**kwargs)
            self.activation_name, self.scale = activation_name, scale

        def call(self, inputs):
            return self.scale * getattr(tf.keras.activations, self.activation_name)(inputs)

        def get_config(self):
            return {**super().get_config(), "activation_name": self.activation_name, "scale": self.scale}

    class CenterMaskLayer(layers.Layer):
        def __init__(self, N, c, kind="center", **kwargs):
            super().__init__(**kwargs)
            self.N, self.c, self.kind = N, c, kind

        def call(self, inputs):
            mask = np.ones((1, self.N, self.N, self.c), np.float32)
            mask[:, self.N // 4 : -self.N // 4, self.N // 4 : -self.N // 4] = 0
            return tf.constant(mask) * tf.ones_like(inputs[:, :1, :1, :1])

        def get_config(self):
            return {**super().get_config(), "N": self.N, "c": self.c, "kind": self.kind}

    class CombineComplexLayer(layers.Layer):
        polar = True

        def call(self, inputs):
            first, second = inputs
            if self.polar:
                return tf.complex(first * tf.cos(second), first * tf.sin(second))
            return tf.complex(first, second)

        def compute_output_spec(self, inputs):
            import keras

            return keras.KerasTensor(inputs[1].shape, "complex64")

    class TrimReconstructionLayer(layers.Layer):
        def __init__(self, output_size=None, **kwargs):
            super().__init__(**kwargs)
            self.output_size = output_size

        def call(self, inputs):
            return inputs[0]

        def get_config(self):
            return {**super().get_config(), "output_size": self.output_size}

    return {name: value for name, value in locals().items() if isinstance(value, type)}


def build(description: Description) -> Any:
    """Return the published model: (diffraction, positions) to the object, with a layer named "obj"."""
    import keras
    from keras import layers

    custom = custom_layers()
    N, s = description.N, description.scale

    def convolved(value, width):
        return layers.Conv2D(width, (3, 3), activation="relu", padding="same")(value)

    def up(value, width):
        return layers.UpSampling2D((2, 2))(convolved(convolved(value, width), width))

    def last(value, inner, outer, activation, name):
        width = s * (2048 // N)
        if not description.pad_object:
            return activation(outer(up(value, width)))
        centre = layers.ZeroPadding2D((N // 4, N // 4), name=f"{name}_padded")(activation(inner(value[..., :-4])))
        if not description.probe_big:
            return centre
        frame = keras.activations.swish(outer(up(value[..., -4:], width)))
        return centre + frame * custom["CenterMaskLayer"](N, 1, "border")(frame)

    def decoder(code, channels, activation, name):
        inner, outer = (layers.Conv2D(channels, (3, 3), padding="same") for _ in range(2))
        value = code
        for width in DECODER[N]:
            value = up(value, s * width)
        return last(value, inner, outer, activation, name)

    image = keras.Input((N, N, description.gridsize**2), name="input")
    positions = keras.Input((1, 2, description.gridsize**2), name="input_positions")
    value = custom["IntensityScaler"](name="intensity_scaler")([image])
    for width in ENCODER[N]:
        value = layers.MaxPool2D((2, 2), padding="same")(convolved(convolved(value, s * width), s * width))
    amp = custom["ActivationLayer"](description.amp_activation, name="amp")
    phi = custom["ActivationLayer"]("tanh", np.pi, name="phi")
    amplitude = decoder(value, description.amplitude_channels or description.heads, amp, "amp")
    phase = decoder(value, description.heads, phi, "phase")
    combine = custom["CombineComplexLayer"](name="obj")
    combine.polar = description.polar
    trimmed = custom["TrimReconstructionLayer"](N, name="trimmed_obj")([combine([amplitude, phase]), positions])
    return keras.Model([image, positions], [trimmed])


def random_weights(model: Any, seed: int) -> None:
    """Set weights that make every layer matter."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.__class__.__name__ == "Conv2D":
            kernel, bias = layer.get_weights()
            limit = np.sqrt(6.0 / np.prod(kernel.shape[:3]))
            layer.set_weights([rng.uniform(-limit, limit, kernel.shape), rng.normal(0, 0.1, bias.shape)])


def patches_of(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the values of the "obj" layer, (group, channel, y, x), for amplitudes (group, y, x, channel)."""
    import keras

    inner = keras.Model(model.inputs, model.get_layer("obj").output)
    positions = np.zeros((len(x), 1, 2, x.shape[-1]), np.float32)
    return np.moveaxis(np.asarray(inner([x.astype(np.float32), positions])), -1, 1)


def keras_bytes(model: Any, folder: Path, saved: str = "2026-06-01@12:00:00") -> bytes:
    """Return a model as a .keras file with a given date."""
    model.save(folder / "model.keras")
    return with_members(
        (folder / "model.keras").read_bytes(),
        {"metadata.json": f'{{"keras_version": "3.10.0", "date_saved": "{saved}"}}'.encode()},
    )


def with_members(archive: bytes, members: dict[str, bytes | None]) -> bytes:
    """Return a zip archive with some members changed, added or (None) left out."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        contents: dict[str, bytes | None] = {name: old.read(name) for name in old.namelist()}
    return zipped(contents | members)


def zipped(members: dict[str, bytes | None]) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return buffer.getvalue()


def probe_of(N: int) -> np.ndarray:
    """Return a probe as `params.cfg` holds it, (N, N, 1)."""
    y, x = np.indices((N, N)) - N // 2
    return (3.0 * np.exp(-(y**2 + 2 * x**2) / (N / 4) ** 2 + 0.02j * y)).astype(np.complex64)[..., None]


def params_of(description: Description, **changes: Any) -> dict[str, Any]:
    """Return `params.cfg` of a training."""
    return {
        "N": description.N,
        "gridsize": description.gridsize,
        "n_filters_scale": description.scale,
        "object.big": description.object_big,
        "probe.big": description.probe_big,
        "probe.mask": False,
        "pad_object": description.pad_object,
        "amp_activation": description.amp_activation,
        "nphotons": 1e6,
        "batch_size": 8,
        "nepochs": 7,
        "data_source": "lines",
        "intensity_scale": np.float32(31.25),
        "probe": probe_of(description.N),
        "label": "",
        "_version": "1.0",
        **changes,
    }


def archive_bytes(keras_file: bytes, params: dict[str, Any], protocol: int = 4) -> bytes:
    """Return an archive with two equal models."""
    manifest = {"models": ["autoencoder", "diffraction_to_obj"], "version": "1.0"}
    members: dict[str, bytes | None] = {"manifest.dill": pickle.dumps(manifest, protocol)}
    for name in manifest["models"]:
        members[f"{name}/model.keras"] = keras_file
        members[f"{name}/params.dill"] = pickle.dumps(params, protocol)
        members[f"{name}/custom_objects.dill"] = b"never read"
    return zipped(members)


def with_old_layout(keras_file: bytes) -> bytes:
    """Return a .keras file in the layout of tf.keras 2.14: other paths and numbers, no names, other histories."""
    with zipfile.ZipFile(io.BytesIO(keras_file)) as archive:
        config = json.loads(archive.read("config.json"))
        source = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as target:
        for key, group in source["layers"].items():
            if not key.startswith("conv2d"):
                continue
            number = 2 * int(key.removeprefix("conv2d").lstrip("_") or 0)
            old_group = target.create_group(
                f"_layer_checkpoint_dependencies/conv2d{f'_{number}' if number else ''}/vars"
            )
            for name, value in group["vars"].items():
                old_group[name] = value[()]
    for layer in config["config"]["layers"]:
        inputs = re.findall(r'"keras_history": \["([^"]+)"', json.dumps(layer["inbound_nodes"]))
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in inputs]] if inputs else []
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = layer["config"].pop("batch_shape")
    return zipped({"config.json": json.dumps(config).encode(), "model.weights.h5": buffer.getvalue()})


class Outcome(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def ptychopinn(capsys):
    """Run the command in this process."""

    def run(*argv):
        status = main([str(argument) for argument in argv])
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def old_layout():
    """Return a function that converts a .keras file to the layout of tf.keras 2.14."""
    return with_old_layout


@pytest.fixture(scope="session")
def archive_of():
    """Return a function that packs a .keras file with `params.cfg`, with optional changes."""
    return lambda keras_file, description, protocol=4, **changes: archive_bytes(
        keras_file, params_of(description, **changes), protocol
    )


@dataclasses.dataclass(frozen=True)
class OldModel:
    """A model of PtychoPINN: archive, input, and its patches for that input."""

    description: Description
    keras_file: bytes
    archive: bytes
    x: np.ndarray
    patches: np.ndarray


@pytest.fixture(scope="session")
def old_model(tmp_path_factory):
    """Return a function that builds a model with random weights, its archive and its patches."""
    if missing_packages("tensorflow"):
        pytest.skip("TensorFlow is not installed")

    @functools.cache
    def make(saved: str = "2026-06-01@12:00:00", **fields: Any) -> OldModel:
        description = Description(**fields)
        model = build(description)
        random_weights(model, seed=4)
        rng = np.random.default_rng(5)
        shape = (3, description.N, description.N, description.gridsize**2)
        x = (rng.exponential(size=shape) * np.hypot(*(np.indices(shape[1:3]) - 32))[..., None] / 40).astype(np.float32)
        keras_file = keras_bytes(model, tmp_path_factory.mktemp("keras"), saved)
        return OldModel(
            description, keras_file, archive_bytes(keras_file, params_of(description)), x, patches_of(model, x)
        )

    return make
