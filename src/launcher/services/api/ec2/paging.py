"""A long answer in pages: MaxResults, and a token that says where the next page begins.

The token is opaque, and good for the same question only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from launcher.services.api.ec2.refusals import Refusal

T = TypeVar("T")
MARK = 9


def cut(
    found: Sequence[T], *, name: Callable[[T], str], question: str, size: int | None, token: str | None
) -> tuple[Sequence[T], str | None]:
    """The page after `token`, in the order of the names, and the token of the next one if there is more.

    `question` is what was asked for, in any form that is the same for the same question.
    """
    if size is None and token is None:
        return found, None
    ordered = sorted(found, key=name)
    if token is not None:
        last = _read(token, question)
        ordered = [each for each in ordered if name(each) > last]
    page = ordered[:size]
    return page, _write(name(page[-1]), question) if len(page) < len(ordered) else None


def _write(last: str, question: str) -> str:
    return base64.urlsafe_b64encode(_digest(question) + last.encode()).decode()


def _read(token: str, question: str) -> str:
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if raw[:MARK] == _digest(question):
            return raw[MARK:].decode()
    except (binascii.Error, ValueError):
        pass
    raise Refusal("InvalidParameterValue", "Unable to parse pagination token")


def _digest(question: str) -> bytes:
    return hashlib.sha256(question.encode()).digest()[:MARK]
