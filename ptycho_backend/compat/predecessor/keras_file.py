"""Reader of `.keras` files: the graph of layers from JSON, convolutions from HDF5 (spec: model_file 7.3)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptycho_backend.compat.predecessor.keras_weights import Convolution, read_convolutions
from ptycho_backend.model_file.zip_members import read_member

MAX_JSON = 64 * 2**20
MAX_LAYERS = 2000  # the published networks have fewer than 200


@dataclass(frozen=True)
class Layer:
    """Name, class, settings and input layers of a layer."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class KerasFile:
    """
    Content of a `.keras` file.

    Parameters
    ----------
    layers : dict of Layer by name
        In the file's order.
    convolutions : dict of (kernel, bias) by layer name
        float32, (height, width, in, out) and (out,).
    saved : str
        Date, or "".
    version : str
        Version of Keras, or "".
    """

    layers: dict[str, Layer]
    convolutions: dict[str, Convolution]
    saved: str
    version: str

    def ancestors(self, name: str) -> set[str]:
        """Return the names of a layer and of all layers that it depends on."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in found and current in self.layers:
                found.add(current)
                waiting += self.layers[current].inputs
        return found

    def chain(self, names: set[str]) -> list[str]:
        """Return the convolutions among some layers, first to last."""
        depth = {
            name: len(self.ancestors(name) & set(self.convolutions)) for name in names if name in self.convolutions
        }
        return sorted(depth, key=lambda name: (depth[name], name))


def read_keras(content: bytes) -> KerasFile:
    """
    Read a `.keras` file.

    Raises
    ------
    ValueError
        If the file is damaged, is no functional model, or has weights that are not numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = _json(archive, "config.json")
            metadata = _json(archive, "metadata.json") if "metadata.json" in archive.namelist() else {}
            weights = read_member(archive, "model.weights.h5")
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"not a readable .keras file ({error})") from None
    layers = _layers(config)
    names = [name for name, layer in layers.items() if layer.class_name == "Conv2D"]
    return KerasFile(
        layers=layers,
        convolutions=read_convolutions(weights, names),
        saved=str(metadata.get("date_saved", "")),
        version=str(metadata.get("keras_version", "")),
    )


def _json(archive: zipfile.ZipFile, member: str) -> dict[str, Any]:
    content = read_member(archive, member, MAX_JSON)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"member '{member}' is not JSON ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise ValueError(f"member '{member}' holds a {type(values).__name__}")
    return values


def _layers(config: Mapping[str, Any]) -> dict[str, Layer]:
    try:
        listed = config["config"]["layers"]
        if len(listed) > MAX_LAYERS:
            raise ValueError(f"{len(listed)} layers, more than {MAX_LAYERS}")
        names = {item["config"]["name"] for item in listed}
        return {
            item["config"]["name"]: Layer(
                item["config"]["name"],
                item["class_name"],
                item["config"],
                tuple(dict.fromkeys(_input_layers(item.get("inbound_nodes"), names))),
            )
            for item in listed
        }
    except (KeyError, TypeError, AttributeError):
        raise ValueError("'config.json' describes no functional model") from None


def _input_layers(nodes: Any, names: set[str]) -> Iterator[str]:
    """
    Yield the names of a layer's input layers.

    Keras 3 writes {"keras_history": [name, node, tensor]}, earlier versions [name, node, tensor, …].
    """
    waiting = [nodes]
    while waiting:
        item = waiting.pop()  # a stack: the first item lies on top
        if isinstance(item, dict):
            history = item.get("keras_history")
            waiting += [history] if history else reversed(item.values())
        elif isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str) and item[0] in names:
            yield item[0]
        elif isinstance(item, list):
            waiting += reversed(item)
