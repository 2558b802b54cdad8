"""Clients of EC2 with parsers of their own."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flow.house import ADMIN, House

PERL = """
use strict; use JSON::PP; use Net::Amazon::EC2;
my ($url, $key, $secret, $signature, $version) = @ARGV;
my $ec2 = Net::Amazon::EC2->new(
    AWSAccessKeyId => $key, SecretAccessKey => $secret, base_url => $url, region => 'RegionOne',
    signature_version => $signature, version => $version, return_errors => 1,
);
sub ok { my ($got) = @_; die $got->errors->[0]->code . "\\n" if ref $got eq 'Net::Amazon::EC2::Errors'; return $got }
sub refused { my ($got) = @_; return $got->errors->[0]->code }
my $key_pair = ok($ec2->create_key_pair(KeyName => 'perl'));
ok($ec2->create_security_group(GroupName => 'perl', GroupDescription => 'of perl'));
ok($ec2->authorize_security_group_ingress(
    GroupName => 'perl', IpProtocol => 'tcp', FromPort => 22, ToPort => 22, CidrIp => '0.0.0.0/0'));
my $made = ok($ec2->run_instances(
    ImageId => 'ami-tiny', MinCount => 1, MaxCount => 1, InstanceType => 'm1.tiny', KeyName => 'perl'));
my $name = $made->instances_set->[0]->instance_id;
ok($ec2->run_instances(ImageId => 'ami-tiny', MinCount => 1, MaxCount => 1, InstanceType => 'm1.tiny'));
my $found = ok($ec2->describe_instances(InstanceId => $name));
my $groups = ok($ec2->describe_security_groups(GroupName => 'perl'));
my $ended = ok($ec2->terminate_instances(InstanceId => $name));
print encode_json({
    made => $name, reservations => scalar(@$found), found => $found->[0]->instances_set->[0]->instance_id,
    state => $found->[0]->instances_set->[0]->instance_state->name,
    port => $groups->[0]->ip_permissions->[0]->from_port + 0,
    pem => $key_pair->key_material, ended => $ended->[0]->current_state->name,
    refused => refused($ec2->describe_instances(InstanceId => 'i-00000077')),
});
"""


def perls_story(url: str, signature: int, version: str) -> dict[str, Any]:
    words = ["perl", "-e", PERL, url, ADMIN.access_key, ADMIN.secret_key, str(signature), version]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(("signature", "version"), [(4, "2014-06-15"), (2, "2012-08-15")])
async def test_perls_client_reads_what_is_told(house: House, signature: int, version: str) -> None:
    """It names one thing without a number, and signs a host without its port."""
    if not list(Path("/usr/share/perl5/Net/Amazon").glob("EC2.pm")):
        pytest.skip("ANOTHER EC2 CLIENT NOT RUN: Debian's libnet-amazon-ec2-perl is not installed")
    said = await asyncio.to_thread(perls_story, house.url, signature, version)
    assert said["pem"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert (said["made"], said["found"], said["reservations"], said["port"]) == ("i-00000001", "i-00000001", 1, 22)
    assert said["state"] in ("pending", "running")
    assert (said["ended"], said["refused"]) == ("shutting-down", "InvalidInstanceID.NotFound")
