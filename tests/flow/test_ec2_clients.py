"""Clients of EC2 with parsers of their own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flow.house import ADMIN, House
from tests.serving import ROOT

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


def told_by(words: list[str], cwd: Path | None = None) -> dict[str, Any]:
    """What a client's program says it has seen."""
    done = subprocess.run(words, cwd=cwd, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(("signature", "version"), [(4, "2014-06-15"), (2, "2012-08-15")])
async def test_perls_client_reads_what_is_told(house: House, signature: int, version: str) -> None:
    """It names one thing without a number, and signs a host without its port."""
    if not list(Path("/usr/share/perl5/Net/Amazon").glob("EC2.pm")):
        pytest.skip("ANOTHER EC2 CLIENT NOT RUN: Debian's libnet-amazon-ec2-perl is not installed")
    words = ["perl", "-e", PERL, house.url, ADMIN.access_key, ADMIN.secret_key, str(signature), version]
    said = await asyncio.to_thread(told_by, words)
    assert said["pem"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert (said["made"], said["found"], said["reservations"], said["port"]) == ("i-00000001", "i-00000001", 1, 22)
    assert said["state"] in ("pending", "running")
    assert (said["ended"], said["refused"]) == ("shutting-down", "InvalidInstanceID.NotFound")


JAVASCRIPT = """
import * as sdk from '@aws-sdk/client-ec2';
const [endpoint, accessKeyId, secretAccessKey] = process.argv.slice(1);
const ec2 = new sdk.EC2({endpoint, region: 'RegionOne', credentials: {accessKeyId, secretAccessKey}, maxAttempts: 1});
const soon = {client: ec2, minDelay: 0.05, maxDelay: 0.1, maxWaitTime: 20};
const key = await ec2.createKeyPair({KeyName: 'js', KeyType: 'ed25519'});
const run = await ec2.runInstances({
  ImageId: 'ami-tiny', InstanceType: 'm1.tiny', MinCount: 1, MaxCount: 1, KeyName: 'js',
  TagSpecifications: [{ResourceType: 'instance', Tags: [{Key: 'Name', Value: 'js & <co>'}]}],
});
const InstanceId = run.Instances[0].InstanceId, InstanceIds = [InstanceId];
await sdk.waitUntilInstanceRunning(soon, {InstanceIds});
const {VolumeId} = await ec2.createVolume({AvailabilityZone: 'nova', Size: 1});
await sdk.waitUntilVolumeAvailable(soon, {VolumeIds: [VolumeId]});
await ec2.attachVolume({InstanceId, VolumeId, Device: '/dev/sdf'});
await sdk.waitUntilVolumeInUse(soon, {VolumeIds: [VolumeId]});
const {SnapshotId} = await ec2.createSnapshot({VolumeId, Description: 'of js'});
await sdk.waitUntilSnapshotCompleted(soon, {SnapshotIds: [SnapshotId]});
const names = [];
for await (const page of sdk.paginateDescribeInstances({client: ec2, pageSize: 5}, {}))
  for (const reservation of page.Reservations) for (const each of reservation.Instances) names.push(each);
const refused = await ec2.describeInstances({InstanceIds: ['i-00000077']}).catch(error => error.name);
const dry = await ec2.terminateInstances({InstanceIds, DryRun: true}).catch(error => error.name);
await ec2.terminateInstances({InstanceIds});
await sdk.waitUntilInstanceTerminated(soon, {InstanceIds});
await sdk.waitUntilVolumeAvailable(soon, {VolumeIds: [VolumeId]});
await ec2.deleteVolume({VolumeId});
await sdk.waitUntilVolumeDeleted(soon, {VolumeIds: [VolumeId]});
console.log(JSON.stringify({
  pem: key.KeyMaterial, name: names[0].Tags[0].Value, state: names[0].State, born: names[0].LaunchTime instanceof Date,
  disks: names[0].BlockDeviceMappings.map(each => [each.DeviceName, each.Ebs.Status]), refused, dry,
}));
"""


async def test_javascripts_sdk_waits_pages_and_reads(house: House) -> None:
    there = ROOT / ".cache" / "node"
    if not (there / "node_modules").is_dir():
        pytest.skip("ANOTHER EC2 CLIENT NOT RUN: npm, which brings JavaScript's SDK, is not installed")
    words = ["node", "--input-type=module", "-e", JAVASCRIPT, house.url, ADMIN.access_key, ADMIN.secret_key]
    said = await asyncio.to_thread(told_by, words, there)
    assert said.pop("pem").startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert said == {
        **{"name": "js & <co>", "state": {"Code": 16, "Name": "running"}, "born": True},
        **{"disks": [["/dev/vdf", "attached"]], "refused": "InvalidInstanceID.NotFound", "dry": "DryRunOperation"},
    }


BOTO_2 = """
import json, sys
from boto.ec2.connection import EC2Connection
from boto.regioninfo import RegionInfo
host, port, key, secret = sys.argv[1:]
region = RegionInfo(name='eucalyptus', endpoint=host)
ec2 = EC2Connection(key, secret, is_secure=False, region=region, port=int(port), path='/services/Cloud')
def until(thing, state):
    for _ in range(1000):
        if thing.update() == state:
            return
    raise AssertionError(f'{thing} is not {state}')
pem = ec2.create_key_pair('test').material  # euca-add-keypair test
# euca-run-instances -k test -t m1.tiny ami-tiny
(instance,) = ec2.run_instances('ami-tiny', key_name='test', instance_type='m1.tiny').instances
volume = ec2.create_volume(1, 'nova')  # euca-create-volume -s 1 -z nova
until(instance, 'running')
until(volume, 'available')
volume.attach(instance.id, '/dev/sdf')  # euca-attach-volume -i ID -d /dev/sdf VOLUME
until(volume, 'in-use')
(found,) = ec2.get_all_instances([instance.id])[0].instances  # euca-describe-instances ID
ec2.create_tags([instance.id], {'Name': '123'})  # euca-create-tags --tag Name=123 ID
print(json.dumps({
    'pem': pem, 'id': instance.id, 'address': found.private_ip_address, 'key': found.key_name,
    'disks': list(found.block_device_mapping), 'zones': [each.name for each in ec2.get_all_zones()],
    'console': ec2.get_console_output(instance.id).instance_id,  # euca-get-console-output ID
    'tags': [(each.res_id, each.name, each.value) for each in ec2.get_all_tags()],
}))
volume.detach()  # euca-detach-volume VOLUME
ec2.terminate_instances([instance.id])  # euca-terminate-instances ID
"""


async def test_boto_2_under_the_commands_of_euca2ools(house: House) -> None:
    """It takes its scope from the host's name, service `127` in region `0`, and sends one id as a list."""
    where = house.url.removeprefix("http://").split(":")
    words = [sys.executable, "-W", "ignore", "-c", BOTO_2, *where, ADMIN.access_key, ADMIN.secret_key]
    said = await asyncio.to_thread(told_by, words)
    assert said.pop("pem").startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert said == {
        **{"id": "i-00000001", "address": "10.0.0.2", "key": "test", "disks": ["/dev/vdf"], "zones": ["nova"]},
        **{"console": "i-00000001", "tags": [["i-00000001", "Name", "123"]]},
    }
