"""Networks, subnets, routers and ports as Neutron shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.floating import FloatingPool
from launcher.models import Instance, Nic
from launcher.networks import Network, NetworkMode
from launcher.services.api.openstack import ids
from launcher.services.api.openstack.frame import Ask, Json
from launcher.services.api.openstack.neutron import moment

PLAIN: Mapping[str, object] = {"description": "", "tags": [], "revision_number": 1}
OWNER = "compute:nova"


def network(ask: Ask, each: Network) -> Json:
    """One that is everybody's is the administrator's, and shared."""
    provider = {
        "provider:network_type": "vlan" if each.mode is NetworkMode.VLAN else "flat",
        "provider:physical_network": each.bridge,
        "provider:segmentation_id": each.segment,
    }
    return {
        **_network(ids.of_network(each), each.name, each.project_id or "admin"),
        "shared": each.project_id is None,
        "router:external": False,
        "subnets": [told["id"] for told in subnets(each)],
        **(provider if ask.ctx.is_admin else {}),
    }


def pool(each: FloatingPool) -> Json:
    """Where floating IPs come from, as Neutron has it: a network outside."""
    return {
        **_network(of_pool(each.name), each.name, "admin"),
        "shared": False,
        "router:external": True,
        "subnets": [ids.uuid_of("pool-subnet", each.name)],
    }


def of_pool(name: str) -> str:
    return ids.uuid_of("pool", name)


def _network(network_id: str, name: str, project_id: str) -> Json:
    return {
        "id": network_id,
        "name": name,
        "tenant_id": project_id,
        "project_id": project_id,
        "admin_state_up": True,
        "status": "ACTIVE",
        "mtu": 1500,
        "availability_zones": [],
        "availability_zone_hints": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "port_security_enabled": True,
        **PLAIN,
    }


def subnets(each: Network) -> list[Json]:
    """Of IPv4, and of IPv6 where there is such a range."""
    pools = [{"start": str(each.first), "end": str(each.last)}]
    found = [_subnet(each, 4, str(each.cidr), str(each.gateway), pools)]
    if each.cidr6 is not None:
        six = _subnet(each, 6, str(each.cidr6), str(each.cidr6[1]), [])
        found.append({**six, "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"})
    return found


def _subnet(each: Network, version: int, cidr: str, gateway: str, pools: list[Json]) -> Json:
    return {
        "id": ids.of_subnet(each, version),
        "name": each.name if version == 4 else f"{each.name}-ipv6",
        "network_id": ids.of_network(each),
        "tenant_id": each.project_id or "admin",
        "project_id": each.project_id or "admin",
        "ip_version": version,
        "cidr": cidr,
        "gateway_ip": gateway,
        "enable_dhcp": True,
        "allocation_pools": pools,
        "dns_nameservers": [str(address) for address in each.dns],
        "host_routes": [],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        **PLAIN,
    }


def pool_subnet(each: FloatingPool) -> Json:
    return {
        "id": ids.uuid_of("pool-subnet", each.name),
        "name": each.name,
        "network_id": of_pool(each.name),
        "tenant_id": "admin",
        "project_id": "admin",
        "ip_version": 4,
        "cidr": str(each.cidr),
        "gateway_ip": None,
        "enable_dhcp": False,
        "allocation_pools": [],
        "dns_nameservers": [],
        "host_routes": [],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        **PLAIN,
    }


def router(each: Network, pools: Sequence[FloatingPool]) -> Json:
    """A network's gateway, which leads out by the host."""
    outside = {"network_id": of_pool(pools[0].name), "enable_snat": True, "external_fixed_ips": []} if pools else None
    return {
        "id": ids.uuid_of("router", each.id),
        "name": each.name,
        "tenant_id": each.project_id or "admin",
        "project_id": each.project_id or "admin",
        "admin_state_up": True,
        "status": "ACTIVE",
        "external_gateway_info": outside,
        "routes": [],
        "availability_zones": [],
        "availability_zone_hints": [],
        **PLAIN,
    }


def port(ask: Ask, instance: Instance, nic: Nic, within: Network, groups: Sequence[str]) -> Json:
    """A NIC of an instance."""
    fixed = [
        {"subnet_id": ids.of_subnet(within, version), "ip_address": str(address)}
        for version, address in ((4, nic.address), (6, nic.address6))
        if address is not None
    ]
    whole = {
        "id": ids.of_port(instance, nic),
        "name": "",
        "network_id": ids.of_network(within),
        "tenant_id": instance.project_id,
        "project_id": instance.project_id,
        "mac_address": nic.mac,
        "admin_state_up": True,
        "status": "ACTIVE" if nic.address else "DOWN",
        "device_id": instance.id,
        "device_owner": OWNER,
        "fixed_ips": fixed,
        "security_groups": list(groups),
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "port_security_enabled": True,
        "binding:vnic_type": "normal",
        "created_at": moment(instance.created_ms),
        "updated_at": moment(instance.state_since_ms),
        **PLAIN,
    }
    return whole | ({"binding:host_id": instance.host or ""} if ask.ctx.is_admin else {})
