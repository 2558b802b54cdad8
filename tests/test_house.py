"""The house rules that no linter knows: sizes, names, and documents that tell the truth."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from launcher import auditing, errors, messages
from launcher.messaging import Message
from launcher.models import Model

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "launcher").rglob("*.py"))
FILE_LINES = 400
FUNCTION_LINES = 60
BANNED_FILES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
BANNED_NAMES = re.compile(r"(Manager|Handler|Helper|Impl|Abstract)")


def functions(source: Path) -> list[tuple[str, int]]:
    tree = ast.parse(source.read_text())
    return [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_file_fits_a_sitting_and_its_name_says_what_it_is(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= FILE_LINES
    assert source.stem not in BANNED_FILES
    assert not [f"{name}: {lines}" for name, lines in functions(source) if lines > FUNCTION_LINES]


def test_most_functions_fit_a_glance() -> None:
    sizes = sorted(lines for source in SOURCES for _, lines in functions(source))
    assert sizes[len(sizes) * 95 // 100] <= 25
    assert sizes[len(sizes) // 2] <= 10


def test_no_class_is_named_for_nothing() -> None:
    classes = [
        node.name
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name in classes if BANNED_NAMES.search(name)] == []


def test_every_public_module_and_class_says_what_it_is() -> None:
    silent = [
        source.name for source in SOURCES if source.read_text() and not ast.get_docstring(ast.parse(source.read_text()))
    ]
    assert silent == []


def test_the_error_tree_at_the_head_of_its_file_is_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d+) (?:\w+)", errors.__doc__ or ""))
    real = {kind.__name__: str(kind.status) for kind in errors.LauncherError.registry.values()}
    real.pop("HttpError", None)
    assert drawn == real


def test_every_message_is_sent_and_answered_somewhere() -> None:
    declared = {source for source in SOURCES if source.parent.name == "messages" or source.name == "auditing.py"}
    text = {source: source.read_text() for source in SOURCES if source not in declared}
    modules = [
        auditing,
        *(import_module(f"{messages.__name__}.{found.name}") for found in iter_modules(messages.__path__)),
    ]
    kinds = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and "topic" in vars(value)
    ]
    assert len(kinds) > 30
    for kind in kinds:
        routed = [source for source, code in text.items() if f"{kind.__name__}.to(" in code]
        sent = [source for source, code in text.items() if re.search(rf"\b{kind.__name__}\(", code)]
        assert routed, kind
        assert sent, kind


def test_every_wire_model_refuses_unknown_fields() -> None:
    def below(kind: type[Model]) -> list[type[Model]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    assert [kind for kind in below(Model) if kind.model_config.get("extra") != "forbid"] == []


def test_only_one_module_starts_programs_and_only_db_speaks_sql() -> None:
    for source in SOURCES:
        code = source.read_text()
        where = source.relative_to(ROOT / "src" / "launcher").as_posix()
        if re.search(r"create_subprocess|subprocess\.(run|Popen)", code):
            assert where in {"drivers/process.py", "sandbox.py", "outside.py"} or where.startswith("cli/"), where
        if re.search(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", code):
            assert where.startswith("db/"), where


def test_the_documents_name_files_that_exist() -> None:
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"):
        for path in re.findall(r"`((?:src|tests|docs|scripts|bench)/[\w/.-]+)`", (ROOT / name).read_text()):
            assert (ROOT / path).exists(), f"{name}: {path}"
