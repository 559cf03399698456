"""Call a WSGI application without a socket, as one client would see it."""

import io
import json as jsonlib
from typing import NamedTuple
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return jsonlib.loads(self.body)

    def header(self, name):
        return self.headers.get(name.lower())


class Client:
    """One client; headers are added to every request. environ overrides the WSGI environment."""

    def __init__(self, app, headers=None, environ=None):
        self.app = app
        self.headers = headers or {}
        self.environ = environ or {}

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, json=None, **more):
        return self.request("POST", path, json=json, **more)

    def request(self, method, path, *, json=None, body=None, headers=None, environ=None):
        if json is not None:
            body = jsonlib.dumps(json).encode()
        path, _, query = path.partition("?")
        env = {
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote(path, "latin-1"),
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "50000",
            "HTTP_HOST": "localhost:8080",
            "SERVER_PORT": "8080",
            "wsgi.multithread": True,
            "wsgi.input": io.BytesIO(body or b""),
            "CONTENT_LENGTH": str(len(body or b"")),
        }
        if json is not None:
            env["CONTENT_TYPE"] = "application/json"
        for name, value in {**self.headers, **(headers or {})}.items():
            key = name.upper().replace("-", "_")
            env[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        setup_testing_defaults(env)
        env |= {**self.environ, **(environ or {})}
        env = {name: value for name, value in env.items() if value is not None}
        seen = []

        def start_response(status, response_headers, exc_info=None):
            seen[:] = [status, response_headers]

        result = self.app(env, start_response)
        try:
            content = b"".join(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        status, response_headers = seen
        told = {name.lower(): value for name, value in response_headers}
        if "content-length" in told and method != "HEAD":
            assert int(told["content-length"]) == len(content)
        return Answer(int(status.split()[0]), told, content)
