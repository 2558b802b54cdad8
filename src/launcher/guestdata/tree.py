"""What the metadata service is made of: directories, leaves, and how both are answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from launcher.errors import NotFound


@dataclass(frozen=True)
class Leaf:
    body: bytes
    content_type: str = "text/plain"


@dataclass(frozen=True)
class Directory:
    """In a listing a directory's name ends in a slash, except in a `plain` one, which lists the bare names.

    One with a `label` is listed as `name=label`, as EC2 does with keys.
    """

    entries: Mapping[str, Node]
    plain: bool = False
    label: str = ""

    def listing(self) -> str:
        return "\n".join(name if self.plain else _entry(name, node) for name, node in self.entries.items())


Node = Directory | Leaf


def text(value: object) -> Leaf:
    return Leaf(str(value).encode())


def split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def find(node: Node, parts: Sequence[str]) -> Node:
    """Raises NotFound."""
    for part in parts:
        if not isinstance(node, Directory) or part not in node.entries:
            raise NotFound(f"there is nothing at {'/'.join(parts)}")
        node = node.entries[part]
    return node


def answer(node: Node) -> Leaf:
    """What a guest is sent: a directory as its listing."""
    return node if isinstance(node, Leaf) else text(node.listing())


def leaves(node: Node, path: str) -> Iterator[tuple[str, Leaf]]:
    """Every leaf at or below `path`, by its full path."""
    if isinstance(node, Leaf):
        yield path, node
        return
    for name, child in node.entries.items():
        yield from leaves(child, f"{path}/{name}")


def _entry(name: str, node: Node) -> str:
    if isinstance(node, Leaf):
        return name
    return f"{name}={node.label}" if node.label else f"{name}/"
