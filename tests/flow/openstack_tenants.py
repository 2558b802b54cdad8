"""Every verb of OpenStack's door, for `tenants.py`."""

from __future__ import annotations

import re

from tests.flow.house import House, Json
from tests.flow.tenants import ADMIN, MEMBER, Dialect, Verb, ask


def _openstack_served(house: House) -> set[str]:
    return {
        f"{each.method} {service.prefix}{each.path}"
        for service in house.api.openstack.services
        for each in service.operations
        if not each.public
    }


KEYSTONE, NOVA, GLANCE = "/identity/v3", "/compute/v2.1", "/image/v2"
USERS, PROJECTS = f"{KEYSTONE}/users", f"{KEYSTONE}/projects"
HELD = f"{PROJECTS}/{{project}}/users/{{user}}/roles"
HELD_BY_ALICE = f"{PROJECTS}/{{pid}}/users/{{uid}}/roles"
APPLICATIONS = f"{USERS}/{{user}}/application_credentials"
SERVER = {"server": {"name": "another", "imageRef": "{image_id}", "flavorRef": "m1.tiny", "key_name": "{key}"}}
SUBJECT = {"X-Subject-Token": "lt_nobodys"}
APPLICATION = {"application_credential": {"name": "app"}}
CHANGED_PASSWORD = {"user": {"original_password": "not it", "password": "new"}}


def no(route: str, path: str = "", *, status: int = 501, version: str = "2.79") -> Verb:
    """What is refused, whoever asks."""
    headers = {"OpenStack-API-Version": f"compute {version}"}
    where = re.sub(r"{\w+}", "x", path or route.partition(" ")[2])
    return Verb(route, where, foreign=status, works=(status,), headers=headers)


NEW = {"OpenStack-API-Version": "compute 2.79"}
ONE, ITS = f"{NOVA}/servers/{{id}}", f"{NOVA}/servers/{{instance}}"
SETS, ITS_SET = f"{NOVA}/os-quota-sets/{{project}}", f"{NOVA}/os-quota-sets/{{pid}}"
FLAVOR, TINY = f"{NOVA}/flavors/{{id}}", f"{NOVA}/flavors/m1.tiny"
ATTACHED = f"{ONE}/os-volume_attachments"
ATTACH = {"volumeAttachment": {"volumeId": "{volume}"}}
ACTIONS: tuple[Json, ...] = (
    {"addSecurityGroup": {"name": "{group}"}},
    {"removeSecurityGroup": {"name": "{group}"}},
    {"lock": None},
    {"unlock": None},
    {"os-getConsoleOutput": {}},
    {"createImage": {"name": "alphas-copy"}},
    {"reboot": {"type": "HARD"}},
    {"pause": None},
    {"unpause": None},
    {"suspend": None},
    {"resume": None},
    {"rebuild": {"imageRef": "{image_id}"}},
    {"rescue": None},
    {"unrescue": None},
    {"os-stop": None},
    {"os-start": None},
    {"resize": {"flavorRef": "m1.small"}},
    {"confirmResize": None},
    {"addFloatingIp": {"address": "{address}"}},
    {"removeFloatingIp": {"address": "{address}"}},
    {"forceDelete": None},
)


def compute() -> list[Verb]:
    return [*_compute_reads(), *_compute_refused(), *_compute_changes()]


def _compute_reads() -> list[Verb]:
    plain = ["flavors", "flavors/detail", "os-keypairs", "os-availability-zone", "extensions", "servers", "limits"]
    plain += ["servers/detail", "os-server-groups", "os-migrations", "os-aggregates"]
    hosts = ("os-hypervisors", "os-hypervisors/detail", "os-hypervisors/statistics", "os-services")
    below = ("", "/metadata", "/ips", "/os-security-groups", "/os-instance-actions", "/os-interface")
    return [
        *(Verb(f"GET {NOVA}/{path}", foreign=200) for path in plain),
        *(Verb(f"GET {NOVA}/{path}", needs=ADMIN, foreign=403) for path in hosts),
        Verb(f"GET {NOVA}/os-hypervisors/{{id}}", f"{NOVA}/os-hypervisors/1", needs=ADMIN, foreign=403),
        Verb(f"GET {NOVA}/os-availability-zone/detail", needs=ADMIN, foreign=403),
        Verb(f"GET {FLAVOR}", TINY, foreign=200),
        Verb(f"GET {FLAVOR}/os-extra_specs", f"{TINY}/os-extra_specs", foreign=200),
        Verb(f"GET {FLAVOR}/os-flavor-access", f"{TINY}/os-flavor-access", works=(404,)),
        *(Verb(f"GET {ONE}{path}", f"{ITS}{path}") for path in below),
        *(Verb(f"GET {ONE}{path}", f"{ITS}{path}", headers=NEW) for path in ("/tags", "/migrations")),
        Verb(f"GET {ONE}/metadata/{{key}}", f"{ITS}/metadata/x", works=(404,)),
        Verb(f"GET {ONE}/tags/{{tag}}", f"{ITS}/tags/x", works=(404,), headers=NEW),
        Verb(f"GET {ONE}/ips/{{network}}", f"{ITS}/ips/default"),
        Verb(f"GET {ONE}/os-instance-actions/{{request}}", f"{ITS}/os-instance-actions/req-x", works=(404,)),
        Verb(f"GET {ONE}/os-interface/{{port}}", f"{ITS}/os-interface/x", works=(404,)),
        Verb(f"GET {ONE}/diagnostics", f"{ITS}/diagnostics", needs=ADMIN, foreign=403),
        Verb(f"GET {ATTACHED}", f"{ITS}/os-volume_attachments"),
        Verb(f"GET {ATTACHED}/{{volume}}", f"{ITS}/os-volume_attachments/x", works=(404,)),
        Verb(f"GET {NOVA}/os-keypairs/{{name}}", f"{NOVA}/os-keypairs/{{key}}"),
        *(Verb(f"GET {SETS}{path}", f"{ITS_SET}{path}") for path in ("", "/detail", "/defaults")),
    ]


def _compute_refused() -> list[Verb]:
    return [
        no(f"GET {ONE}/topology"),
        no(f"GET {ONE}/os-server-password"),
        no(f"POST {ONE}/remote-consoles"),
        no(f"POST {ONE}/os-interface"),
        no(f"DELETE {ONE}/os-interface/{{port}}"),
        no(f"PUT {ATTACHED}/{{volume}}"),
        no(f"PUT {NOVA}/os-services/{{id}}"),
        no(f"DELETE {NOVA}/os-services/{{id}}"),
        no(f"POST {NOVA}/os-aggregates"),
        no(f"POST {NOVA}/os-server-groups", status=403),
        no(f"POST {NOVA}/flavors", status=403),
        *(no(f"{method} {FLAVOR}", status=403) for method in ("PUT", "DELETE")),
        *(no(f"POST {FLAVOR}/{path}", status=403) for path in ("os-extra_specs", "action")),
    ]


def _compute_changes() -> list[Verb]:
    metadata, tags = {"metadata": {"a": "b"}}, {"tags": ["a"]}
    return [
        Verb(f"POST {NOVA}/servers", body=SERVER, needs=MEMBER, foreign=400),
        Verb(f"PUT {ONE}", ITS, body={"server": {"name": "alphas-machine"}}, needs=MEMBER),
        *(Verb(f"{each} {ONE}/metadata", f"{ITS}/metadata", body=metadata, needs=MEMBER) for each in ("POST", "PUT")),
        Verb(f"PUT {ONE}/metadata/{{key}}", f"{ITS}/metadata/a", body={"meta": {"a": "c"}}, needs=MEMBER),
        Verb(f"DELETE {ONE}/metadata/{{key}}", f"{ITS}/metadata/a", needs=MEMBER, works=(204, 404)),
        Verb(f"PUT {ONE}/tags", f"{ITS}/tags", body=tags, needs=MEMBER, headers=NEW),
        Verb(f"PUT {ONE}/tags/{{tag}}", f"{ITS}/tags/b", needs=MEMBER, headers=NEW),
        Verb(f"DELETE {ONE}/tags/{{tag}}", f"{ITS}/tags/b", needs=MEMBER, headers=NEW, works=(204, 404)),
        Verb(f"DELETE {ONE}/tags", f"{ITS}/tags", needs=MEMBER, headers=NEW),
        Verb(f"POST {ATTACHED}", f"{ITS}/os-volume_attachments", body=ATTACH, needs=MEMBER, works=(200, 409)),
        Verb(f"DELETE {ATTACHED}/{{volume}}", f"{ITS}/os-volume_attachments/x", needs=MEMBER, works=(404,)),
        *(
            Verb(f"POST {ONE}/action", f"{ITS}/action", body=body, needs=MEMBER, works=(200, 202, 409))
            for body in ACTIONS
        ),
        Verb(f"DELETE {ONE}", ITS, needs=MEMBER, works=(204, 404)),
        Verb(f"POST {NOVA}/os-keypairs", body={"keypair": {"name": "another"}}, needs=MEMBER, foreign=200),
        Verb(f"DELETE {NOVA}/os-keypairs/{{name}}", f"{NOVA}/os-keypairs/{{key}}", needs=MEMBER),
        Verb(f"PUT {SETS}", ITS_SET, body={"quota_set": {"instances": 1}}, needs=ADMIN, foreign=403),
        Verb(f"DELETE {SETS}", ITS_SET, needs=ADMIN, foreign=403),
    ]


NEUTRON = "/network/v2.0"


def network() -> list[Verb]:
    read = ("networks", "subnets", "routers", "ports", "security-groups", "security-group-rules", "floatingips")
    about = ("extensions", "agents", "availability_zones", "subnetpools", "address-groups")
    one = ("networks", "subnets", "routers", "ports", "security-groups", "security-group-rules", "floatingips")
    pairs = [
        "POST networks",
        "PUT networks/{id}",
        "POST subnets",
        "PUT subnets/{id}",
        "DELETE subnets/{id}",
        "POST routers",
        "PUT routers/{id}",
        "DELETE routers/{id}",
        "PUT routers/{id}/add_router_interface",
        "PUT routers/{id}/remove_router_interface",
        "POST ports",
        "DELETE ports/{id}",
        "PUT security-groups/{id}",
    ]
    quota = "quotas/{project}"
    return [
        *(Verb(f"GET {NEUTRON}/{path}", foreign=200) for path in (*read, *about)),
        *(Verb(f"GET {NEUTRON}/{path}/{{id}}", f"{NEUTRON}/{path}/x", works=(404,)) for path in one),
        Verb(f"GET {NEUTRON}/extensions/{{alias}}", f"{NEUTRON}/extensions/router", foreign=200),
        *(
            Verb(f"GET {NEUTRON}/{quota}{path}", f"{NEUTRON}/quotas/{{pid}}{path}")
            for path in ("", "/default", "/details", "/details.json")
        ),
        *(no(f"{word.partition(' ')[0]} {NEUTRON}/{word.partition(' ')[2]}") for word in pairs),
        no(f"DELETE {NEUTRON}/{quota}"),
        Verb(f"PUT {NEUTRON}/{quota}", f"{NEUTRON}/quotas/{{pid}}", body={"quota": {}}, needs=ADMIN, foreign=403),
        Verb(f"PUT {NEUTRON}/ports/{{id}}", f"{NEUTRON}/ports/{{nic}}", body={"port": {}}, needs=MEMBER),
    ]


def network_changes() -> list[Verb]:
    rule = {"security_group_rule": {"security_group_id": "x", "direction": "ingress"}}
    floating = {"floatingip": {"floating_network_id": "x"}}
    return [
        Verb(f"DELETE {NEUTRON}/networks/{{id}}", f"{NEUTRON}/networks/{{net}}", needs=ADMIN, foreign=403),
        Verb(f"POST {NEUTRON}/security-groups", body={"security_group": {"name": "n"}}, needs=MEMBER, foreign=201),
        Verb(f"POST {NEUTRON}/security-group-rules", body=rule, needs=MEMBER, works=(404,)),
        Verb(f"POST {NEUTRON}/floatingips", body=floating, needs=MEMBER, works=(400,), foreign=400),
        Verb(
            f"PUT {NEUTRON}/floatingips/{{id}}", f"{NEUTRON}/floatingips/{{fip}}", body={"floatingip": {}}, needs=MEMBER
        ),
        Verb(f"DELETE {NEUTRON}/floatingips/{{id}}", f"{NEUTRON}/floatingips/{{fip}}", needs=MEMBER),
        Verb(
            f"DELETE {NEUTRON}/security-group-rules/{{id}}",
            f"{NEUTRON}/security-group-rules/{{rid}}",
            needs=MEMBER,
            works=(204, 404),
        ),
        Verb(
            f"DELETE {NEUTRON}/security-groups/{{id}}",
            f"{NEUTRON}/security-groups/{{gid}}",
            needs=MEMBER,
            works=(204, 409),
        ),
    ]


ITS_IMAGE = f"{GLANCE}/images/{{disk}}"
RENAMED = [{"op": "replace", "path": "/name", "value": "alphas-image"}]


def image() -> list[Verb]:
    every, one = f"{GLANCE}/images", f"{GLANCE}/images/{{id}}"
    members, member = f"{one}/members", f"{one}/members/{{member}}"
    return [
        Verb(f"GET {every}", foreign=200),
        Verb(f"GET {one}", f"{GLANCE}/images/{{image_id}}", foreign=200),
        Verb(f"GET {one}", ITS_IMAGE),
        Verb(f"GET {one}/file", f"{ITS_IMAGE}/file"),
        *(Verb(f"GET {GLANCE}/{path}", foreign=200) for path in ("schemas/image", "schemas/images", "info/import")),
        no(f"POST {one}/import"),
        no(f"PUT {one}/stage"),
        *(no(f"POST {one}/actions/{verb}") for verb in ("deactivate", "reactivate")),
        *(no(f"{verb} {one}/tags/{{tag}}") for verb in ("PUT", "DELETE")),
        Verb(f"POST {every}", body={"name": "another"}, needs=MEMBER, foreign=201),
        Verb(f"PATCH {one}", ITS_IMAGE, body=RENAMED, needs=MEMBER),
        Verb(f"PUT {one}/file", f"{ITS_IMAGE}/file", needs=MEMBER, works=(409,)),
        Verb(f"GET {members}", f"{ITS_IMAGE}/members"),
        Verb(f"POST {members}", f"{ITS_IMAGE}/members", body={"member": "{pid}"}, needs=MEMBER),
        Verb(f"GET {member}", f"{ITS_IMAGE}/members/{{pid}}", works=(200, 404)),
        Verb(f"PUT {member}", f"{ITS_IMAGE}/members/{{pid}}", body={"status": "accepted"}, needs=MEMBER),
        Verb(f"DELETE {member}", f"{ITS_IMAGE}/members/{{pid}}", needs=MEMBER),
        Verb(f"DELETE {one}", ITS_IMAGE, needs=MEMBER),
    ]


CINDER = "/volume/v3"
ITS_VOLUME, ITS_SNAPSHOT = f"{CINDER}/volumes/{{volume}}", f"{CINDER}/snapshots/{{snapshot}}"


def volume() -> list[Verb]:
    plain = ("volumes", "volumes/detail", "snapshots", "snapshots/detail", "types", "limits", "os-availability-zone")
    none = ("extensions", "backups", "backups/detail")
    summary = {"OpenStack-API-Version": "volume 3.42"}
    sets, its_set = f"{CINDER}/os-quota-sets/{{project}}", f"{CINDER}/os-quota-sets/{{pid}}"
    types = f"{CINDER}/types"
    return [
        *(Verb(f"GET {CINDER}/{path}", foreign=200) for path in (*plain, *none)),
        Verb(f"GET {CINDER}/volumes/summary", headers=summary, foreign=200),
        Verb(f"GET {CINDER}/os-services", needs=ADMIN, foreign=403),
        Verb(f"GET {types}/{{id}}", f"{types}/default", foreign=200),
        Verb(f"GET {types}/{{id}}/extra_specs", f"{types}/default/extra_specs", foreign=200),
        *(
            no(f"{word} {types}{path}", status=403)
            for word, path in (("POST", ""), ("PUT", "/{id}"), ("DELETE", "/{id}"))
        ),
        *(Verb(f"GET {sets}{path}", f"{its_set}{path}") for path in ("", "/defaults")),
        Verb(f"PUT {sets}", its_set, body={"quota_set": {}}, needs=ADMIN, foreign=403),
        no(f"DELETE {sets}"),
        *(no(f"POST {CINDER}/{path}") for path in ("backups", "attachments", "os-volume-transfer")),
        *_stored("volumes", ITS_VOLUME, {"volume": {"size": 1}}),
        no(f"PUT {CINDER}/volumes/{{id}}"),
        Verb(f"PUT {CINDER}/volumes/{{id}}/metadata", f"{ITS_VOLUME}/metadata", body={"metadata": {}}, needs=MEMBER),
        Verb(
            f"POST {CINDER}/volumes/{{id}}/action",
            f"{ITS_VOLUME}/action",
            body={"os-extend": {"new_size": 2}},
            needs=MEMBER,
            works=(202, 409),
        ),
        *_stored("snapshots", ITS_SNAPSHOT, {"snapshot": {"volume_id": "{volume}"}}, foreign=404),
        no(f"PUT {CINDER}/snapshots/{{id}}"),
        no(f"POST {CINDER}/snapshots/{{id}}/action"),
        Verb(f"DELETE {CINDER}/snapshots/{{id}}", ITS_SNAPSHOT, needs=MEMBER, works=(202, 409)),
        Verb(f"DELETE {CINDER}/volumes/{{id}}", ITS_VOLUME, needs=MEMBER, works=(202, 409)),
    ]


def _stored(kind: str, its: str, body: Json, *, foreign: int = 202) -> list[Verb]:
    """What a volume and a snapshot have in common."""
    one = f"{CINDER}/{kind}/{{id}}"
    return [
        Verb(f"GET {one}", its),
        Verb(f"GET {one}/metadata", f"{its}/metadata"),
        Verb(f"POST {CINDER}/{kind}", body=body, needs=MEMBER, foreign=foreign, works=(202, 409)),
        Verb(f"POST {one}/metadata", f"{its}/metadata", body={"metadata": {"a": "b"}}, needs=MEMBER),
        Verb(f"DELETE {one}/metadata/{{key}}", f"{its}/metadata/a", needs=MEMBER),
    ]


OPENSTACK = Dialect(
    ask=ask,
    served=_openstack_served,
    verbs=[
        Verb(f"GET {KEYSTONE}/auth/tokens", headers=SUBJECT, works=(404,)),
        Verb(f"HEAD {KEYSTONE}/auth/tokens", headers=SUBJECT, works=(404,)),
        Verb(f"DELETE {KEYSTONE}/auth/tokens", headers=SUBJECT, works=(404,)),
        *(
            Verb(f"GET {KEYSTONE}/{path}", foreign=200)
            for path in ("auth/catalog", "auth/projects", "services", "endpoints", "regions", "domains", "roles")
        ),
        Verb(f"GET {KEYSTONE}/domains/{{domain}}", f"{KEYSTONE}/domains/default", foreign=200),
        Verb(f"GET {KEYSTONE}/roles/{{role}}", foreign=200),
        Verb(f"GET {KEYSTONE}/role_assignments", foreign=200),
        Verb(f"GET {PROJECTS}", foreign=200),
        Verb(f"GET {PROJECTS}/{{project}}", f"{PROJECTS}/{{pid}}"),
        Verb(f"GET {USERS}/{{user}}", f"{USERS}/{{uid}}", works=(200, 404)),
        Verb(f"GET {USERS}/{{user}}/projects", f"{USERS}/{{uid}}/projects", works=(200, 404)),
        Verb(f"GET {HELD}", HELD_BY_ALICE, works=(200, 404)),
        Verb(f"HEAD {HELD}/{{role}}", f"{HELD_BY_ALICE}/member", works=(204, 404)),
        Verb(f"GET {USERS}", needs=ADMIN, foreign=403),
        Verb(f"POST {USERS}", body={"user": {"name": "eve"}}, needs=ADMIN, foreign=403),
        Verb(
            f"PATCH {USERS}/{{user}}", f"{USERS}/{{uid}}", body={"user": {"enabled": False}}, needs=ADMIN, foreign=403
        ),
        Verb(f"DELETE {USERS}/{{user}}", f"{USERS}/{{uid}}", needs=ADMIN, foreign=403),
        Verb(f"POST {USERS}/{{user}}/password", f"{USERS}/{{uid}}/password", body=CHANGED_PASSWORD, works=(403, 404)),
        Verb(f"POST {PROJECTS}", body={"project": {"name": "gamma"}}, needs=ADMIN, foreign=403),
        Verb(f"PATCH {PROJECTS}/{{project}}", body={"project": {"enabled": False}}, needs=ADMIN, foreign=403),
        Verb(f"DELETE {PROJECTS}/{{project}}", needs=ADMIN, foreign=403),
        Verb(f"PUT {HELD}/{{role}}", needs=ADMIN, foreign=403),
        Verb(f"DELETE {HELD}/{{role}}", needs=ADMIN, foreign=403),
        Verb(f"GET {APPLICATIONS}", f"{USERS}/{{uid}}/application_credentials", foreign=200),
        Verb(
            f"POST {APPLICATIONS}",
            f"{USERS}/{{uid}}/application_credentials",
            body=APPLICATION,
            foreign=403,
            works=(201, 403),
        ),
        Verb(f"GET {APPLICATIONS}/{{id}}", f"{USERS}/{{uid}}/application_credentials/x", works=(404,)),
        Verb(f"DELETE {APPLICATIONS}/{{id}}", f"{USERS}/{{uid}}/application_credentials/x", works=(404,)),
        *network(),
        *volume(),
        *compute(),
        *image(),
        *network_changes(),
        Verb(f"GET {GLANCE}/images", foreign=200),
        Verb(f"GET {GLANCE}/images/{{id}}", f"{GLANCE}/images/{{image_id}}", foreign=200),
    ],
)
