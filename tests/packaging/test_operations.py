"""docs/operations.md tells the truth: every message is in it, and its proxies work before a real server."""

import ast
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import eventually

from datacat.server.config import read_file
from datacat.server.keys import KeyFile, make

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NAME = "datacat.example.org"
ERRORS = {"HostError", "StoreError", "Busy", "Corrupt", "DatacatError", "JournalError"}
SOURCES = [
    *sorted((ROOT / "datacat" / "server").glob("*.py")),
    *sorted((ROOT / "datacat" / "store").glob("*.py")),
    ROOT / "datacat" / "host" / "locks.py",
    ROOT / "datacat" / "cli" / "winservice.py",
]
# What no operator can meet: misuse of a class inside the program, and what a client is told about its own request.
INNER = {
    "the store is closed",
    "segments have no deletes",
    "segments are not compacted",
    "takes no more records",
    "bytes is too large for a segment",
    "the front of an entry is not what was written",
    "lost its records",
}


def code(language):
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return block


def messages(path):
    """Yield the longest constant part of the message of every error that a module raises."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            constants = [part.value for part in parts if isinstance(part, ast.Constant)]
            if constants:
                yield max(constants, key=len).strip(" :;(,")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_message_of_a_fault_stands_in_the_page(path):
    missing = {
        text
        for text in messages(path)
        if text not in PAGE and not any(text in inner or inner in text for inner in INNER)
    }
    assert missing == set(), "write in docs/operations.md what to do about it"


def test_messages_are_found_at_all():
    assert sum(len(list(messages(path))) for path in SOURCES) > 25


def test_every_level_of_the_log_that_needs_a_person_stands_in_the_page():
    """What is logged as a warning or an error by the server and its store."""
    missing = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r'_log\.(?:warning|error|critical)\(\s*f?"([^"]+)"', text):
            words = max(re.split(r"%\S+|\{[^}]*\}", found), key=len).strip(" :;(,")
            if words not in PAGE:
                missing.append(f"{path.name}: {words}")
    known = {"listen.py", "router.py", "jobs.py"}  # what a unit of one's own does wrong; a bug, with its stack
    assert [one for one in missing if one.split(":")[0] not in known] == []


def test_the_settings_of_the_page_are_settings(tmp_path):
    (tmp_path / "server.toml").write_text(code("toml"))
    assert read_file(tmp_path / "server.toml") == {"allowed_hosts": (NAME,)}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def processes():
    started = []
    yield started
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def certificate(tmp_path):
    openssl = shutil.which("openssl") or pytest.skip("capability: no openssl on this machine")
    files = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def serve(folder, processes, settings):
    """Start a server with the settings; return its port."""
    folder.mkdir()
    (folder / "server.toml").write_text(settings)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DATACAT_")}
    command = [
        *(Path(sys.executable).parent / "datacat-server", "--config", folder / "server.toml", "--port", "0"),
        *("--port-file", folder / "port", "--data-dir", folder / "data", "--log-file", folder / "log"),
    ]
    processes.append(subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL))
    return int(eventually(lambda: (folder / "port").exists() and (folder / "port").read_text(), timeout_s=30))


def nginx(folder, port, upstream, certificate):
    """Return the command of nginx with the block of the page."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip("capability: no nginx on this machine")
    text = code("nginx").replace("listen 443", f"listen 127.0.0.1:{port}").replace("127.0.0.1:8080", upstream)
    text = text.replace("/etc/ssl/datacat", str(certificate[0].parent))
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    command = [program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return command


def caddy(folder, port, upstream, certificate):
    """Return the command of Caddy with the block of the page."""
    program = shutil.which("caddy") or pytest.skip("capability: no caddy on this machine")
    text = code("caddy").replace("127.0.0.1:8080", upstream)
    text = text.replace(
        f"{NAME} {{", f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {' '.join(map(str, certificate))}"
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
    return [program, "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]


class Proxied:
    """Requests to a proxy by the name that it has in the page."""

    def __init__(self, port, certificate):
        self.port = port
        self.context = ssl.create_default_context(cafile=str(certificate[0]))

    def __call__(self, path, key=None, body=None):
        """Return the status of an answer; 0 while nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as raw:
                secure = self.context.wrap_socket(raw, server_hostname=NAME)
                head = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {NAME}", "Connection: close"]
                head += [f"Authorization: Bearer {key}"] if key else []
                head += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
                secure.sendall("\r\n".join([*head, "", ""]).encode() + (body or b""))
                answer = b"".join(iter(lambda: secure.recv(65536), b""))
                secure.close()
        except ConnectionRefusedError:
            return 0
        return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_proxy_of_the_page_lets_those_in_who_have_the_key(proxy, tmp_path, processes, certificate):
    port, folder = free_port(), tmp_path / "proxy"
    folder.mkdir()
    command = proxy(folder, port, f"127.0.0.1:{serve(tmp_path / 'server', processes, code('toml'))}", certificate)
    with (folder / "log").open("wb") as log:
        environ = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
    ask = Proxied(port, certificate)
    assert eventually(lambda: ask("/livez")) == 200, (folder / "log").read_text()
    assert ask("/api/sessions") == 403
    texts = {}
    for role in ("read", "ingest"):
        key, texts[role] = make(role, role, (), 0, 1)
        KeyFile(tmp_path / "server" / "data").add(key)
    assert eventually(lambda: ask("/api/sessions", texts["read"]) == 200)
    assert ask("/api/sessions") == 401
    assert ask("/api/sessions", "WRONG") == 401
    assert ask("/api/sessions", texts["ingest"]) == 403
    assert ask("/api/sessions", texts["ingest"], b'{"product": "far", "version": "1"}') == 201


def test_without_keys_a_forwarded_request_is_refused_although_it_comes_from_this_machine(tmp_path, processes):
    port = serve(tmp_path / "server", processes, f'allowed_hosts = ["{NAME}"]\n')
    url = f"http://127.0.0.1:{port}/api/sessions"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, headers={"X-Forwarded-For": "192.0.2.1"}), timeout=10)
    assert refused.value.code == 403
    refused.value.close()
