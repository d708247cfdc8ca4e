"""
Read-only server of a live view on this machine: fixed routes under a secret address.

The server listens on 127.0.0.1 only. The token in the address keeps out other users and other pages of the browser. The
check of the Host header keeps out pages whose name resolves to 127.0.0.1. No route is a path of the file system.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from ptycho_backend.errors import ConfigError, OutputError
from ptycho_backend.live.page import PAGE_FILES, page_file
from ptycho_backend.live.state import PICTURES, Document, RunState

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")  # with any port, because a tunnel may have another one
TOKEN_BYTES = 24
TIMEOUT_S = 10.0  # longest wait for a slow browser
MAX_REQUESTS = 32  # served at the same time; further connections are closed
MAX_PORT = 65535
TEXT, JSON, PNG = "text/plain; charset=utf-8", "application/json", "image/png"
STATE = "state.json"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",  # the browser compares the ETag
}


class LiveServer(ThreadingHTTPServer):
    """
    Server of the live view of one run.

    Parameters
    ----------
    state : RunState
    port : int
        0 takes a free one.

    Raises
    ------
    ConfigError
        If the port is no number from 0 to 65535.
    OutputError
        If the system refuses the port.
    """

    daemon_threads = True
    request_queue_size = 2 * MAX_REQUESTS

    def __init__(self, state: RunState, port: int = 0) -> None:
        if not 0 <= port <= MAX_PORT:
            raise ConfigError(
                "The port of a server is a number of 16 bits.",
                f"0 to {MAX_PORT}",
                str(port),
                "--port 0 takes a free one",
            )
        self.token, self._free = secrets.token_urlsafe(TOKEN_BYTES), threading.BoundedSemaphore(MAX_REQUESTS)
        try:
            super().__init__((ADDRESS, port), partial(_Handler, state, self.token))
        except OSError as error:
            raise OutputError(
                "The live view needs a free port.",
                expected=f"a port of {ADDRESS} that this user may open",
                received=f"port {port}: {error.strerror or error}",
                fix="--port 0 takes a free one",
            ) from error

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Bind the socket without looking up a name."""
        if os.name != "nt":  # there the option lets another program take over the port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a request in a thread; close the connection while too many are open."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread has started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a connection, for example a browser that has gone."""
        logger.debug("a request ended early", exc_info=True)


@contextmanager
def serving(state: RunState, port: int = 0) -> Iterator[LiveServer]:
    """
    Serve the live view of a run until the block ends.

    Parameters
    ----------
    state : RunState
    port : int
        0 takes a free one.

    Raises
    ------
    ConfigError, OutputError
    """
    server = LiveServer(state, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answer to one request; connections close after it."""

    server_version, sys_version = "ptychopinn", ""
    timeout = TIMEOUT_S

    def __init__(self, state: RunState, token: str, *arguments: Any) -> None:
        self._state, self._token = state, token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send a document."""
        self._answer()

    do_HEAD = do_GET  # headers without content

    def _answer(self) -> None:
        if not self._host_is_local():
            return self._refuse(HTTPStatus.FORBIDDEN, "this server answers under 127.0.0.1 and localhost only")
        _, _, rest = _path_of(self.path).partition("/")
        token, slash, name = rest.partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode("ascii")):
            return self._refuse(HTTPStatus.FORBIDDEN, "the address needs the token that 'ptychopinn watch' has shown")
        found = self._document(name) if slash else None
        if found is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such document")
        document, content_type = found
        tag = f'"{document.version}"'
        if tag in [each.strip().removeprefix("W/") for each in self.headers.get("If-None-Match", "").split(",")]:
            return self._send(HTTPStatus.NOT_MODIFIED, b"", content_type, {"ETag": tag})
        self._send(HTTPStatus.OK, document.content, content_type, {"ETag": tag})

    def _document(self, name: str) -> tuple[Document, str] | None:
        """Return the document of a route with its type; None for every other name."""
        if name in PAGE_FILES:
            content, version = page_file(name)
            return Document(content, version), PAGE_FILES[name][1]
        if name == STATE:
            return self._state.document(), JSON
        stem, dot, suffix = name.partition(".")
        if dot and suffix == "png" and stem in PICTURES:
            picture = self._state.picture(stem)
            return None if picture is None else (picture, PNG)
        return None

    def _host_is_local(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        name, _, port = hosts[0].strip().lower().partition(":") if len(hosts) == 1 else ("", "", "")
        return name in HOSTS and (not port or port.isdecimal())

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._send(status, f"{text}\n".encode(), TEXT, {})

    def _send(self, status: HTTPStatus, content: bytes, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error of the protocol as text; a method other than GET and HEAD is one."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            text = b"this server is read-only\n"
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, text, TEXT, {"Allow": "GET, HEAD"})
        else:
            self._send(HTTPStatus(code), b"the request is not valid HTTP\n", TEXT, {})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing, because the address of a request holds the token."""


def _path_of(target: str) -> str:
    """Return the path of a request's target, as sent: without a query, and without decoding; "" for another form."""
    try:
        return urlsplit(target).path if target.startswith("/") and not target.startswith("//") else ""
    except ValueError:
        return ""
