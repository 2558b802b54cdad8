"""The command `env`: what awscli, boto3, euca2ools and OpenStack's clients need, as variables for a shell."""

from __future__ import annotations

import argparse
import json

from launcher.cli import output
from launcher.cli.client import Endpoint, Exit, Failure, Json, find_state

DOMAIN = "Default"


def add_env(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'use it as eval "$(launcher env)"; other users: `launcher credentials create --env`'
    parser.set_defaults(run=show_environment)


def show_environment(args: argparse.Namespace) -> int:
    """All that the first administrator needs; `admin.json` has it."""
    path = find_state(args.state) / "admin.json"
    try:
        admin: Json = json.loads(path.read_text())
        found = _all(admin)
    except OSError as error:
        raise Failure(
            "the server's secrets cannot be read", detail=f"{path}: {error.strerror}", hint="name it with --state DIR"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Failure(
            "the server's secrets are not there", detail=f"{path} is not what `launcher serve` writes"
        ) from None
    if args.json:
        output.print_json(found)
    else:
        output.print_exports(found)
    return Exit.OK


def _all(admin: Json) -> dict[str, str]:
    endpoint = Endpoint(str(admin["url"]).rstrip("/"), str(admin["token"]), "", str(admin.get("region", "RegionOne")))
    return {
        "LAUNCHER_URL": endpoint.url,
        "LAUNCHER_TOKEN": endpoint.token,
        **_ec2(endpoint, str(admin["access_key"]), str(admin["secret_key"])),
        **_openstack(endpoint),
        "OS_AUTH_TYPE": "password",
        "OS_USERNAME": str(admin["user_id"]),
        "OS_PASSWORD": str(admin["password"]),
        "OS_PROJECT_NAME": str(admin["project_id"]),
        "OS_USER_DOMAIN_NAME": DOMAIN,
        "OS_PROJECT_DOMAIN_NAME": DOMAIN,
    }


def of_credential(endpoint: Endpoint, made: Json) -> dict[str, str]:
    """What a credential just made is good for."""
    if made["kind"] == "access-key":
        return _ec2(endpoint, made["id"], made["secret"])
    if made["kind"] == "token":
        return {"LAUNCHER_URL": endpoint.url, "LAUNCHER_TOKEN": made["secret"]}
    return {
        **_openstack(endpoint),
        "OS_AUTH_TYPE": "v3applicationcredential",
        "OS_APPLICATION_CREDENTIAL_ID": made["id"],
        "OS_APPLICATION_CREDENTIAL_SECRET": made["secret"],
    }


def _ec2(endpoint: Endpoint, access_key: str, secret_key: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_ENDPOINT_URL_EC2": endpoint.url,
        "EC2_URL": f"{endpoint.url}/services/Cloud",
        "EC2_ACCESS_KEY": access_key,
        "EC2_SECRET_KEY": secret_key,
    }


def _openstack(endpoint: Endpoint) -> dict[str, str]:
    return {
        "OS_AUTH_URL": f"{endpoint.url}/identity/v3",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_REGION_NAME": endpoint.region,
        "OS_INTERFACE": "public",
    }
