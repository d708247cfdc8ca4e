"""Fixtures: a run folder with an image, and a server in a thread."""

import http.client
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.live.server import serving
from ptycho_backend.live.state import RunState

SHAPE = (40, 48)


def image_of(seed=1, **fields):
    """Return a small image with a probe."""
    rng = np.random.default_rng(seed)
    obj = np.exp(1j * rng.uniform(0, 1, SHAPE)).astype(np.complex64)
    probe = rng.normal(size=(2, 16, 16)).astype(np.complex64)
    experiment = Experiment.given(probe, rng.uniform(0, 20, (5, 2)))
    coverage = np.ones(SHAPE, dtype=np.float32)
    values = {"pixel_size_m": (1e-8, 1e-8), "errors": (0.5, 0.25, 0.125), "name": "scan 7"} | fields
    return Image(obj, coverage, (0.0, 0.0), experiment, **values)


@pytest.fixture
def make_image():
    return image_of


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a finished reconstruction."""
    folder = tmp_path / "first"
    folder.mkdir()
    image_of().save(folder / RECONSTRUCTION)
    return folder


class Answer(NamedTuple):
    """Status, headers and content of an answer."""

    status: int
    headers: dict
    content: bytes


class Client:
    """Client of a server: requests with a path after the token, or a whole target."""

    def __init__(self, server, folder):
        parts = urlsplit(server.url)
        self.folder = folder
        self.server, self.host, self.port, self.base = server, parts.hostname, parts.port, parts.path

    def request(self, method, target, **headers):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, target, skip_host="Host" in headers)
            for name, value in headers.items():
                if value is not None:
                    connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, name="", **headers):
        return self.request("GET", self.base + name, **headers)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return a client of a server for a finished reconstruction; tests leave its state as it is."""
    folder = tmp_path_factory.mktemp("served") / "first"
    folder.mkdir()
    image_of().save(folder / RECONSTRUCTION)
    with serving(RunState(folder)) as server:
        yield Client(server, folder)


@pytest.fixture
def client_of():
    """Return a class for clients of servers."""
    return Client
