"""What a message is: a class per message, a table of routes per role, a context that travels along."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import TypeAdapter

from launcher.accounts import UserRole
from launcher.models import InstanceId, LaunchOrder, Model

R = TypeVar("R")


class Context(Model):
    """Who asks, by which credential, for which request, and where the work stands in its trace (W3C trace context)."""

    request_id: str
    project_id: str
    user_id: str
    role: UserRole = UserRole.READER
    credential_id: str = ""
    trace_id: str
    span_id: str | None = None

    @property
    def is_admin(self) -> bool:
        return self.role is UserRole.ADMIN

    def within(self, span_id: str) -> Context:
        """The same request, seen from inside a span."""
        return self.model_copy(update={"span_id": span_id})


@dataclass(frozen=True)
class Route:
    """Which handler answers which message; a role publishes a list of them."""

    message: type[Message]
    handler: Callable[[Context, Any], Awaitable[Any]]
    reply: TypeAdapter[Any] | None


class Message(Model):
    """What crosses the bus: `method` on the wire is the class's name in snake case.

    The handling of a `traced` message is a span in the launch's trace.
    """

    topic: ClassVar[str]
    method: ClassVar[str]
    traced: ClassVar[bool] = False

    @property
    def subject(self) -> InstanceId | None:
        """The instance whose trace this message's handling belongs to, when it names one."""
        order: LaunchOrder | None = getattr(self, "order", None)
        return order.instance_id if order else None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if "method" not in cls.__dict__:
            cls.method = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class Cast(Message):
    """Sent and not answered. Its handler may be run twice, late, or never."""

    @classmethod
    def to(cls, handler: Callable[[Context, Self], Awaitable[None]]) -> Route:
        return Route(cls, handler, None)


@dataclass(frozen=True)
class Encoded(Generic[R]):
    """A reply whose JSON is at hand already; whoever receives it validates it as an R all the same."""

    json: bytes


class Answer(Model, Generic[R]):
    """How an R crosses the wire."""

    result: R


class Call(Message, Generic[R]):
    """Asked and answered with an R, or with the error the handler raised.

    `needs` is the role that whoever asks must have in the project; the receiver's bus refuses all others.
    """

    needs: ClassVar[UserRole] = UserRole.MEMBER

    @classmethod
    def reply_adapter(cls) -> TypeAdapter[R]:
        """How the reply crosses the wire: R, as the class statement names it."""
        found: TypeAdapter[R] | None = cls.__dict__.get("adapter")
        if found is None:
            found = cls.adapter = TypeAdapter(cls._reply_type())
        return found

    @classmethod
    def answer_model(cls) -> type[Answer[R]]:
        """The reply as it arrives."""
        found: type[Answer[R]] | None = cls.__dict__.get("answer")
        if found is None:
            made: Any = Answer.__class_getitem__(cls._reply_type())
            found = cls.answer = made
        return found

    adapter: ClassVar[TypeAdapter[Any]]
    answer: ClassVar[type[Answer[Any]]]

    @classmethod
    def _reply_type(cls) -> Any:
        for base in cls.__mro__:
            args = getattr(base, "__pydantic_generic_metadata__", {}).get("args")
            if args:
                return args[0]
        raise TypeError(f"{cls.__name__} names no reply")

    @classmethod
    def to(cls, handler: Callable[[Context, Self], Awaitable[R | Encoded[R]]]) -> Route:
        return Route(cls, handler, cls.reply_adapter())


class Notice(Message):
    """Told to everybody who listens to the topic at this moment; may be lost."""

    @classmethod
    def to(cls, handler: Callable[[Context, Self], Awaitable[None]]) -> Route:
        return Route(cls, handler, None)
