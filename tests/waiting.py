"""Waiting for something to become true, with a limit; the only place in the tests that lets time pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY = 0.005


async def eventually(look: Callable[[], Awaitable[T | None]], *, within: float = 10.0, what: str = "") -> T:
    """The first true value that `look` gives."""
    found: T | None = None
    try:
        async with asyncio.timeout(within):
            while not (found := await look()):  # noqa: ASYNC110 - most of what tests wait for has no event
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError:
        raise AssertionError(f"not within {within:g} s: {what or look}; last seen: {found!r}") from None
    return found


async def until(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Return when a condition that needs no asking holds."""

    async def look() -> bool:
        return condition()

    await eventually(look, within=within, what=str(condition))
