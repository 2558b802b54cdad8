"""The client's end of the native HTTP API: where the server is, who we are, and one request at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from launcher.cli import wire

Json = dict[str, Any]
TIMEOUT = 70.0
"""Seconds for one answer; a little more than the server gives its own calls, so that its words arrive."""

UPLOAD_TIMEOUT = 600.0
"""For the last look at a large image."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_PREFIX = re.compile(r"[0-9a-f-]{1,36}")


class Exit(IntEnum):
    """What the exit code says to a script."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    LATE = 5
    FAULT = 6


class Failure(Exception):
    """Ends the command: what went wrong, the details, the next thing to try, and the exit code."""

    def __init__(self, title: str, *, exit_code: Exit = Exit.REFUSED, detail: str = "", hint: str = "") -> None:
        super().__init__(title)
        self.title, self.exit_code, self.detail, self.hint = title, exit_code, detail, hint


class Unanswered(Failure):
    """The request may have arrived, but no answer came back."""


class Endpoint(NamedTuple):
    """Where the server listens, what lets us in, and which of the places to look told us so."""

    url: str
    token: str
    source: str
    region: str = "RegionOne"


def find_state(option: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's state directory: the option --state, else LAUNCHER_STATE, else the usual place."""
    if option or environ.get("LAUNCHER_STATE"):
        return Path(option or environ["LAUNCHER_STATE"])
    if os.geteuid() == 0:
        return Path("/var/lib/launcher")
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/"), ".local", "state")
    return Path(home, "launcher")


def find_endpoint(state: str | None, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The option --state, else LAUNCHER_URL and LAUNCHER_TOKEN, else LAUNCHER_STATE, else the default directory."""
    url, token = environ.get("LAUNCHER_URL", ""), environ.get("LAUNCHER_TOKEN", "")
    if url and token and not state:
        return Endpoint(
            url.rstrip("/"), token, "LAUNCHER_URL and LAUNCHER_TOKEN", environ.get("AWS_DEFAULT_REGION") or "RegionOne"
        )
    path = find_state(state, environ) / "admin.json"
    try:
        admin = json.loads(path.read_text())
        url, token = str(admin["url"]).rstrip("/"), str(admin["token"])
        return Endpoint(url, token, str(path), str(admin.get("region") or "RegionOne"))
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = "not the JSON that `launcher serve` writes"
    unset = " and ".join(name for name in ("LAUNCHER_URL", "LAUNCHER_TOKEN") if not environ.get(name))
    raise Failure(
        "no server found",
        exit_code=Exit.UNREACHABLE,
        detail=f"looked at {path}: {reason}" + (f"; {unset} not set in the environment" if unset else ""),
        hint="start one with `launcher serve`, or name its state directory with --state",
    )


class Api:
    """One server, one user. Every method raises Failure with the server's own words."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        parts = urlsplit(endpoint.url)
        self.secure, self.host = parts.scheme == "https", parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.prefix = parts.path
        if parts.scheme not in ("http", "https") or not self.host:
            raise Failure(f"{endpoint.url!r} is no http URL", exit_code=Exit.USAGE, detail=f"from {endpoint.source}")
        if not (endpoint.token.isascii() and endpoint.token.isprintable()):
            raise Failure("the token has odd characters", exit_code=Exit.USAGE, detail=f"from {endpoint.source}")

    def get(self, path: str, query: Mapping[str, object] | None = None, *, timeout: float = TIMEOUT) -> Any:
        return _parsed(self.request("GET", path, query=query, timeout=timeout))

    def get_text(self, path: str, query: Mapping[str, object] | None = None) -> str:
        return self.request("GET", path, query=query).decode(errors="replace")

    def post(self, path: str, body: Json, headers: Mapping[str, str] | None = None) -> Any:
        return _parsed(self.request("POST", path, body=body, headers=headers))

    def put(self, path: str, body: Json) -> Any:
        return _parsed(self.request("PUT", path, body=body))

    def patch(self, path: str, body: Json) -> Any:
        return _parsed(self.request("PATCH", path, body=body))

    def upload(self, path: str, pieces: Iterable[bytes], size: int, *, timeout: float = UPLOAD_TIMEOUT) -> Any:
        """Send `size` bytes as they come, and wait for what is said of the whole."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self.open("PUT", path, headers, pieces, timeout=timeout) as answer:
            return _parsed(answer.body())

    def delete(self, path: str, body: Json | None = None) -> Any:
        return _parsed(self.request("DELETE", path, body=body) or b"null")

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> bytes:
        """Send one request and read the whole answer; each recv of it may take `timeout` seconds."""
        payload = b"" if body is None else json.dumps(body).encode()
        more = {"Content-Type": "application/json", **(headers or {})}
        with self.open(method, path + _encoded(query or {}), more, payload, timeout=timeout) as answer:
            try:
                return answer.body()
            except (OSError, wire.WireError) as error:
                raise self._unanswered(f"{method} {path}", error) from None

    @contextlib.contextmanager
    def stream(self, path: str, query: Mapping[str, object], deadline: float) -> Iterator[Iterator[str]]:
        """The lines of an answer that does not end by itself; they stop at `deadline` (of time.monotonic)."""
        headers = {"Accept": "text/event-stream"}
        with self.open("GET", path + _encoded(query), headers, timeout=_left(deadline)) as answer:
            yield _lines(answer, deadline)

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] = b"",
        *,
        timeout: float,
    ) -> Iterator[wire.Answer]:
        """An answer whose head has been read and is no refusal; its socket is closed in the end."""
        sock = self._connected(timeout)
        with contextlib.closing(sock):
            name = f"[{self.host}]" if ":" in self.host else self.host
            mine = {"Host": f"{name}:{self.port}", "Authorization": f"Bearer {self.endpoint.token}"}
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who refuses early says why
                    wire.send(sock, method, self.prefix + target, {**mine, "Connection": "close", **headers}, body)
                answer = wire.Answer(sock)
                refusal = refused(answer.status, answer.body()) if answer.status >= 400 else None
            except (OSError, wire.WireError) as error:
                raise self._unanswered(f"{method} {target}", error) from None
            if refusal:
                raise refusal
            yield answer

    def _connected(self, timeout: float) -> socket.socket:
        try:
            return wire.connect(self.host, self.port, secure=self.secure, timeout=timeout)
        except OSError as error:
            raise Failure(
                f"no server answers at {self.endpoint.url}",
                exit_code=Exit.UNREACHABLE,
                detail=f"{error.strerror or error}; the address came from {self.endpoint.source}",
                hint="is `launcher serve` running?",
            ) from None

    def _unanswered(self, what: str, error: Exception) -> Unanswered:
        late = isinstance(error, TimeoutError)
        return Unanswered(
            f"{what}: " + ("no answer in time" if late else "the connection was lost"),
            exit_code=Exit.LATE if late else Exit.UNREACHABLE,
            detail=str(error),
            hint="see the server's log; the request may have been carried out",
        )


def refused(status: int, body: bytes) -> Failure:
    """The failure that a problem document (RFC 9457) describes, or what can be said without one."""
    code = Exit.NOT_FOUND if status == 404 else Exit.REFUSED
    try:
        problem = json.loads(body)
        detail = problem.get("detail", "") + (f" (field {problem['field']})" if problem.get("field") else "")
        return Failure(problem["title"], exit_code=code, detail=detail, hint=problem.get("hint", ""))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return Failure(f"the server answered {status}", exit_code=code, detail=body[:300].decode(errors="replace"))


def list_instances(api: Api, query: Mapping[str, object] | None = None) -> list[Json]:
    """Every page of the list."""
    found: list[Json] = []
    marker = None
    while True:
        page = api.get("/instances", {**(query or {}), "marker": marker})
        found += page["instances"]
        marker = page.get("next_marker")
        if not marker:
            return found


def find_instance(api: Api, word: str) -> Json:
    """The instance whose id or name is `word`, or the only one whose id begins with it."""
    try:
        found: Json = api.get(f"/instances/{quote(word, safe='')}")
        return found
    except Failure as failure:
        if failure.exit_code != Exit.NOT_FOUND or not _UUID_PREFIX.fullmatch(word) or _UUID.fullmatch(word):
            raise
        missing = failure
    matching: list[Json] = []
    for deleted in (False, True):
        matching = matching or [
            each for each in list_instances(api, {"deleted": deleted}) if each["id"].startswith(word)
        ]
    if len(matching) > 1:
        known = ", ".join(f"{each['id']} ({each['name']})" for each in matching[:5])
        raise Failure(f"{word} begins {len(matching)} ids", exit_code=Exit.USAGE, detail=known)
    if not matching:
        raise missing
    return matching[0]


def find_id(api: Api, word: str) -> str:
    """The id that `word` stands for; a whole id is not looked up."""
    return word if _UUID.fullmatch(word) else str(find_instance(api, word)["id"])


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Failure("the server's answer is not JSON", detail=body[:300].decode(errors="replace")) from None


def _encoded(query: Mapping[str, object]) -> str:
    known = {name: str(value).lower() if value is True else value for name, value in query.items() if value}
    return f"?{urlencode(known)}" if known else ""


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def _lines(answer: wire.Answer, deadline: float) -> Iterator[str]:
    """Line by line, giving the socket only the time that is left; an end, however it came, is an end."""
    lines = answer.lines()
    with contextlib.suppress(OSError, wire.WireError, StopIteration):
        while time.monotonic() < deadline:
            answer.sock.settimeout(_left(deadline))
            line = next(lines)
            yield line
