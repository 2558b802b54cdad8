"""/openapi.json (3.1), made from the endpoints and the models they use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from launcher import __version__
from launcher.models import Model
from launcher.services.api.endpoint import Endpoint
from launcher.services.api.problems import Problem

_REF = "#/components/schemas/{model}"


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole description; schemas of bodies and answers stand once under components."""
    models: dict[type[Model], str] = {Problem: "serialization"}
    for endpoint in endpoints:
        # A query is told by its fields, but what these refer to has to stand there, too.
        models |= {model: "validation" for model in (endpoint.body, endpoint.query) if model and model.model_fields}
        if isinstance(endpoint.response, type) and issubclass(endpoint.response, Model):
            models[endpoint.response] = "serialization"
    refs, schemas = models_json_schema(list(models.items()), ref_template=_REF)  # type: ignore[arg-type]
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(re.sub(r":[^}]*}", "}", endpoint.path), {})[endpoint.method.lower()] = _operation(
            endpoint, refs
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "launcher", "version": __version__, "summary": "The native API"},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _operation(endpoint: Endpoint, refs: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__.strip("_"),
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_headers(endpoint)],
        "responses": _responses(endpoint, refs),
    }
    if endpoint.public:
        operation["security"] = []
    if endpoint.body:
        schema = refs[(endpoint.body, "validation")]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if endpoint.upload:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(endpoint: Endpoint, refs: Any) -> dict[str, Any]:
    """Every status there is; what is the server's own trouble stands for itself as 5XX."""
    statuses = [endpoint.status, *([endpoint.or_status] if endpoint.or_status else [])]
    answers = {str(status): _answer(endpoint, refs) for status in statuses}
    refusals = {str(status): _problem(HTTPStatus(status).phrase, refs) for status in sorted(_refusals(endpoint))}
    return answers | refusals | {"5XX": _problem("The server cannot do it now", refs)}


def _refusals(endpoint: Endpoint) -> set[int]:
    """What follows from the operation's shape, and what it names itself."""
    found = {400, *(error.status for error in endpoint.raises if error.status < 500)}
    found |= set() if endpoint.public else {401}
    found |= {404} if "{" in endpoint.path else set()
    return found | ({408, 413, 415} if endpoint.body else set())


def _answer(endpoint: Endpoint, refs: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": endpoint.summary}
    if endpoint.response is not None:
        is_model = isinstance(endpoint.response, type) and issubclass(endpoint.response, Model)
        schema = (
            refs[(endpoint.response, "serialization")] if is_model else TypeAdapter(endpoint.response).json_schema()
        )
        answer["content"] = {endpoint.content_type: {"schema": schema}}
    return answer


def _problem(description: str, refs: Any) -> dict[str, Any]:
    schema = refs[(Problem, "serialization")]
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)(?::[^}]*)?}", endpoint.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    query = TypeAdapter(endpoint.query).json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in query.get("required", ()),
            "schema": _inlined(schema, query.get("$defs", {})),
        }
        for name, schema in query.get("properties", {}).items()
    ]


def _inlined(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Without references, which would lead out of the parameter."""
    named = defs[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else {}
    choices = {"anyOf": [_inlined(each, defs) for each in schema["anyOf"]]} if "anyOf" in schema else {}
    return {**named, **{key: value for key, value in schema.items() if key != "$ref"}, **choices}


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [{"name": name, "in": "header", "schema": schema} for name, schema in endpoint.headers.items()]
