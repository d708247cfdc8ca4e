"""Server of the live view: address, methods, routes, and its end."""

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib

import pytest

from ptycho_backend.errors import ConfigError, OutputError
from ptycho_backend.live import server as server_module
from ptycho_backend.live.page import PAGE_FILES
from ptycho_backend.live.server import serving
from ptycho_backend.live.state import RunState

SECRET = "a text of the disk"
SMALL = ("", "watch.js", "watch.css", "icon.svg", "state.json")
PICTURES = ("amplitude.png", "phase.png", "probe.png")


def test_the_page_and_its_files_are_served(client):
    with urllib.request.urlopen(client.server.url, timeout=10) as answer:
        assert b"<!DOCTYPE html>" in answer.read()
    for name in SMALL:
        answer = client.get(name)
        assert (answer.status, int(answer.headers["Content-Length"])) == (200, len(answer.content)), name
        assert len(answer.content) > 50
        assert answer.headers["Content-Type"].split(";")[0] != "application/octet-stream"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_pictures_are_png_files(client):
    for name in PICTURES:
        answer = client.get(f"{name}?v=1")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
        length, kind = struct.unpack(">I4s", answer.content[8:16])
        (checksum,) = struct.unpack(">I", answer.content[16 + length : 20 + length])
        assert zlib.crc32(kind + answer.content[16 : 16 + length]) == checksum


def test_only_loopback_is_open(client):
    assert client.server.server_address[0] == "127.0.0.1"
    assert client.server.url.startswith(f"http://127.0.0.1:{client.port}/")


def test_tokens_differ(run_folder):
    tokens = set()
    for _ in range(3):
        with serving(RunState(run_folder)) as server:
            tokens.add(server.token)
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("change", [lambda t: "", lambda t: "x", lambda t: t[:-1], lambda t: t + "x", str.swapcase])
def test_a_wrong_token_is_refused(client, method, change):
    for name in (*SMALL, "amplitude.png"):
        answer = client.request(method, f"/{change(client.server.token)}/{name}")
        assert answer.status == 403
        assert client.server.token.encode() not in answer.content


@pytest.mark.parametrize("target", ["/", "//", "*", "/%00", "/\xe9/", "http://127.0.0.1/x", "/favicon.ico", "/?token"])
def test_a_target_without_the_token_is_refused(client, target):
    with socket.create_connection((client.host, client.port), timeout=10) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1"))
        assert connection.recv(100).split()[1] == b"403"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MKCOL"])
def test_other_methods_are_refused(client, method):
    before = {path: path.stat().st_mtime_ns for path in client.folder.iterdir()}
    answer = client.request(method, client.base + "state.json")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert {path: path.stat().st_mtime_ns for path in client.folder.iterdir()} == before


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "", "127.0.0.1:x"])
def test_another_host_is_refused(client, host):
    assert client.get("state.json", Host=host.format(port=client.port)).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "localhost:9000"])
def test_names_of_this_machine_are_accepted(client, host):
    assert client.get("state.json", Host=host.format(port=client.port)).status == 200


def test_a_missing_or_double_host_is_refused(client):
    assert client.get("state.json", Host=None).status == 403
    with socket.create_connection((client.host, client.port), timeout=10) as connection:
        lines = f"GET {client.base} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        connection.sendall(lines.encode())
        assert connection.recv(100).split()[1] == b"403"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "..\\secret.txt",
        "secret.txt",
        "reconstruction.h5",
        "first/reconstruction.h5",
        "assets/index.html",
        "index.html",
        "server.py",
        "state.json/",
        "state.json%00.png",
        "../state.json",
        ".png",
        "object.png",
        "amplitude.jpg",
        "amplitude.png.png",
        "%61mplitude.png",
        "a" * 5000,
    ],
)
def test_no_path_is_served(client, name):
    for folder in (client.folder, client.folder.parent):
        (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    answer = client.get(name)
    assert answer.status == 404
    assert SECRET.encode() not in answer.content
    assert len(answer.content) < 100


def test_routes_are_a_fixed_list(client):
    assert set(PAGE_FILES) == {"", "watch.js", "watch.css", "icon.svg"}
    assert client.request("GET", client.base.rstrip("/")).status == 404  # relative addresses would lack the token


@pytest.mark.parametrize("name", [*SMALL, "probe.png"])
def test_unchanged_documents_are_not_sent_again(client, name):
    first = client.get(name)
    again = client.get(name, If_None_Match=f'"other", W/{first.headers["ETag"]}')
    assert (again.status, again.content) == (304, b"")
    assert client.get(name, If_None_Match='"other"').status == 200


@pytest.mark.parametrize("name", [*SMALL, "probe.png"])
def test_head_has_no_content(client, name):
    head, get = client.request("HEAD", client.base + name), client.get(name)
    assert (head.status, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.content))


@pytest.mark.parametrize(
    "raw", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x00\xff\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"x" * 70000]
)
def test_malformed_requests_leave_the_server_running(client, raw, capfd):
    with socket.create_connection((client.host, client.port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b"Traceback" not in answer
    assert b"<" not in answer
    assert client.get("state.json").status == 200
    assert capfd.readouterr() == ("", "")


def test_many_idle_connections_leave_the_server_running(client):
    idle = [socket.create_connection((client.host, client.port), timeout=10) for _ in range(80)]
    deadline = time.monotonic() + 5
    while threading.active_count() < server_module.MAX_REQUESTS and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert threading.active_count() <= server_module.MAX_REQUESTS + 5
    for connection in idle:
        connection.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert client.get("state.json").status == 200
            break
        except OSError:
            time.sleep(0.02)
    else:
        pytest.fail("no request was served after the idle ones had gone")


def test_slow_requests_end(run_folder, monkeypatch):
    monkeypatch.setattr(server_module._Handler, "timeout", 0.2)
    with serving(RunState(run_folder)) as server, socket.create_connection(server.server_address) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET /")
        assert connection.recv(100) == b""


def test_the_end_closes_the_port(run_folder):
    before = threading.active_count()
    with serving(RunState(run_folder)) as server:
        url, port = server.url, server.server_port
        urllib.request.urlopen(url, timeout=10).close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)
    with serving(RunState(run_folder), port) as again:  # at once
        assert again.server_port == port
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_the_end_follows_a_failure(run_folder):
    def fail():
        with serving(RunState(run_folder)) as server:
            urls.append(server.url)
            raise ZeroDivisionError

    urls = []
    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(urls[0], timeout=2)


def test_a_port_in_use_is_an_error(client, run_folder):
    with pytest.raises(OutputError, match=f"port {client.port}"), serving(RunState(run_folder), client.port):
        pass


@pytest.mark.parametrize("port", [-1, 65536, 10**30])
def test_a_port_out_of_range_is_an_error(run_folder, port):
    with pytest.raises(ConfigError, match="0 to 65535"), serving(RunState(run_folder), port):
        pass


def test_the_page_uses_no_other_address(client):
    """Neither inline code nor addresses of other servers; the policy would refuse both."""
    page, script, style = (client.get(name).content.decode() for name in ("", "watch.js", "watch.css"))
    for text in (page, script.replace("http://www.w3.org/2000/svg", ""), style):
        assert "http:" not in text
        assert "https:" not in text
    assert "innerHTML" not in script
    assert "eval" not in script
    assert " style=" not in page
    assert " on" not in page.replace(" one", "").replace(" onc", "")
    json.loads(client.get("state.json").content)
