"""The catalogue: which services there are, and where. The region is the settings'."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from launcher.services.api.openstack.frame import Json, Service

INTERFACES = ("public", "internal", "admin")


class Catalogue:
    """Of the services that are served here."""

    def __init__(self, *, region: str, services: Sequence[Service]) -> None:
        self.region, self.listed = region, services

    def tokens(self, base: str) -> list[Json]:
        """As a token carries it."""
        return [
            {
                "id": _id(service.type),
                "type": service.type,
                "name": service.name,
                "endpoints": [_short(each) for each in self.endpoints(base) if each["service_id"] == _id(service.type)],
            }
            for service in self.listed
        ]

    def services(self, base: str) -> list[Json]:
        return [
            {
                "id": _id(service.type),
                "type": service.type,
                "name": service.name,
                "enabled": True,
                "links": {"self": f"{base}/identity/v3/services/{_id(service.type)}"},
            }
            for service in self.listed
        ]

    def endpoints(self, base: str) -> list[Json]:
        return [
            {
                "id": _id(service.type, interface),
                "interface": interface,
                "region": self.region,
                "region_id": self.region,
                "service_id": _id(service.type),
                "url": f"{base}{service.endpoint}",
                "enabled": True,
                "links": {"self": f"{base}/identity/v3/endpoints/{_id(service.type, interface)}"},
            }
            for service in self.listed
            for interface in INTERFACES
        ]

    def regions(self, base: str) -> list[Json]:
        links = {"self": f"{base}/identity/v3/regions/{self.region}"}
        return [{"id": self.region, "description": "", "parent_region_id": None, "links": links}]


def _id(*words: str) -> str:
    """The same at every start."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:32]


def _short(endpoint: Json) -> Json:
    return {name: endpoint[name] for name in ("id", "interface", "region", "region_id", "url")}
