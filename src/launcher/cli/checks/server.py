"""Does a server run, and is it well?"""

from __future__ import annotations

from launcher.cli.checks.finding import OK, WITHOUT, Finding
from launcher.cli.client import Api, Exit, Failure, find_endpoint

_PATIENCE = 5.0


def reachable(state: str | None) -> Finding:
    try:
        endpoint = find_endpoint(state)
        Api(endpoint).get("/healthz", timeout=_PATIENCE)
    except Failure as failure:
        said = f"{failure.title}: {failure.detail}" if failure.detail else failure.title
        running = failure.exit_code != Exit.UNREACHABLE
        return Finding("server", WITHOUT, said, failure.hint or ("" if running else "launcher serve"))
    return Finding("server", OK, f"{endpoint.url} answers and all its roles are well")
