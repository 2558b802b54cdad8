"""Reads the metadata service as cloud-init does, by its own code, and prints what it found as JSON.

    /usr/bin/python3 tests/host/crawl.py CLOUD_INIT (aws|unknown|openstack) MAC

CLOUD_INIT is where the Debian package is unpacked (scripts/setup does so; it is never installed). `aws` is what
cloud-init does in a guest whose firmware says Amazon: session tokens always; `unknown` is its Ec2 source elsewhere.
Whatever cloud-init warns of goes to stderr: it takes most failures for an empty answer.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

ADDRESS = "http://169.254.169.254"


def by_ec2(cloud: str, mac: str) -> Any:
    from cloudinit import util
    from cloudinit.helpers import Paths
    from cloudinit.sources import DataSourceEc2 as ec2  # noqa: N813

    util.is_resolvable_url = lambda url: True  # it asks name servers, which a guest of the test has not
    source = ec2.DataSourceEc2({"datasource": {"Ec2": {"max_wait": 10, "timeout": 5}}}, None, Paths({}))
    source.metadata_urls, source._cloud_name = [ADDRESS], cloud
    found = source.crawl_metadata()
    found["version"] = source.get_metadata_api_version()
    found["network-config"] = ec2.convert_ec2_metadata_network_config(found["meta-data"]["network"], {mac: "eth0"})
    found["device"] = found["meta-data"]["block-device-mapping"]["ami"]
    return found


def by_openstack(mac: str) -> Any:
    from cloudinit.sources.helpers import openstack

    found = openstack.MetadataReader(ADDRESS, timeout=5, retries=1).read_v2()
    found["network-config"] = openstack.convert_net_json(found["networkdata"], {mac: "eth0"})
    return found


def main(cloud_init: str, cloud: str, mac: str) -> None:
    sys.path.insert(0, cloud_init)
    logging.basicConfig(level=logging.WARNING)
    found = by_openstack(mac) if cloud == "openstack" else by_ec2(cloud, mac)
    sys.stdout.write(json.dumps(found, default=lambda value: {"hex": value.hex()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
