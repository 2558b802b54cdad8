"""Every error that has a name, in one tree.

    LauncherError                      500 internal
    ├── BadRequest                     400 bad_request
    ├── Unauthorized                   401 unauthorized
    ├── Forbidden                      403 forbidden
    │   └── QuotaExceeded              403 quota_exceeded
    ├── NotFound                       404 not_found
    ├── Conflict                       409 conflict
    │   ├── StaleGeneration            409 stale_generation      the instance has moved on; drop the work
    │   ├── WrongState                 409 wrong_state           not in this state, or while that is under way
    │   ├── Locked                     409 locked                only an administrator may, until it is unlocked
    │   └── Protected                  409 protected             from being deleted
    ├── TooManyRequests                429 too_many_requests
    ├── NoValidHost                    503 no_valid_host
    │   └── NoHostYet                  503 no_host_yet           no host has reported; worth waiting
    ├── NoMoreFixedIps                 503 no_more_fixed_ips
    ├── NoMoreFloatingIps              503 no_more_floating_ips
    ├── InsufficientSpace              507 insufficient_space
    ├── StoreUnavailable               503 store_unavailable     the database file cannot be used now
    ├── Unreachable                    502 unreachable           the guest does not answer
    ├── BadImage                       422 bad_image
    ├── DownloadFailed                 502 download_failed       an image's source gives up, or what it gives is wrong
    ├── BusError                       503 bus_error
    │   ├── NoRoute                    503 no_route              nobody is bound to the topic
    │   ├── BusUnavailable             503 bus_unavailable       the message may or may not have left
    │   ├── RpcTimeout                 504 rpc_timeout           no answer in time; outcome unknown
    │   ├── UnknownMethod              501 unknown_method
    │   └── BadMessage                 400 bad_message           refused by the message's model
    ├── RemoteError                    500 remote_error          a fault without a name, at the other end
    └── DriverError                    500 driver_error
        ├── ProgramFailed              500 program_failed
        ├── HypervisorUnavailable      503 hypervisor_unavailable   outcome unknown: look again
        ├── HypervisorBusy             503 hypervisor_busy
        ├── SpawnFailed                500 spawn_failed
        ├── InvalidDomainConfig        500 invalid_domain_config
        ├── DomainConflict             409 domain_conflict       the name or uuid is somebody else's
        ├── HostResourceMissing        500 host_resource_missing
        ├── InjectionFailed            500 injection_failed
        ├── FirewallFailed             500 firewall_failed
        ├── NetworkFailed              500 network_failed
        ├── VolumeFailed               500 volume_failed
        └── DiskHeld                   409 disk_held             the guest does not let go of it

`code` crosses the bus and the HTTP API; the receiver raises the same class again. `retriable` says
that the same work may succeed if it is simply tried again. `hint` is the next thing to try.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class LauncherError(Exception):
    """The root. The message names the object, what was expected and what was found."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retriable: ClassVar[bool] = False
    registry: ClassVar[dict[str, type[LauncherError]]] = {}

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__ or cls.code in LauncherError.registry:
            raise TypeError(f"{cls.__name__} needs a wire code of its own")
        LauncherError.registry[cls.code] = cls

    @staticmethod
    def named(error: Exception) -> LauncherError | None:
        """The error itself where it has a name; a full disk gets one, whoever ran into it."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename2 or error.filename or "a file system of this host"
            return InsufficientSpace(f"no space left: {where}", hint="free space there")
        return error if isinstance(error, LauncherError) else None

    @staticmethod
    def told(error: Exception) -> LauncherError:
        """The error as a fault tells it; the words of one that has no name stay in the server's log."""
        return LauncherError.named(error) or LauncherError(f"unexpected {type(error).__name__}; see the server's log")

    @staticmethod
    def from_wire(code: str, message: str, *, hint: str = "", field: str = "") -> LauncherError:
        """The error a peer sent, as the class it was there; an unknown code gives RemoteError."""
        known = LauncherError.registry.get(code)
        if known is None:
            return RemoteError(f"{code}: {message}", hint=hint, field=field)
        return known(message, hint=hint, field=field)


class BadRequest(LauncherError):
    code, status = "bad_request", 400


class Unauthorized(LauncherError):
    code, status = "unauthorized", 401


class Forbidden(LauncherError):
    code, status = "forbidden", 403


class QuotaExceeded(Forbidden):
    code = "quota_exceeded"


class NotFound(LauncherError):
    code, status = "not_found", 404


class Conflict(LauncherError):
    code, status = "conflict", 409


class StaleGeneration(Conflict):
    code = "stale_generation"


class WrongState(Conflict):
    code = "wrong_state"


class Locked(Conflict):
    code = "locked"


class Protected(Conflict):
    code = "protected"


class TooManyRequests(LauncherError):
    code, status, retriable = "too_many_requests", 429, True


class NoValidHost(LauncherError):
    code, status = "no_valid_host", 503


class NoHostYet(NoValidHost):
    code, retriable = "no_host_yet", True


class NoMoreFixedIps(LauncherError):
    code, status = "no_more_fixed_ips", 503


class NoMoreFloatingIps(LauncherError):
    code, status = "no_more_floating_ips", 503


class InsufficientSpace(LauncherError):
    code, status = "insufficient_space", 507


class StoreUnavailable(LauncherError):
    code, status, retriable = "store_unavailable", 503, True


class Unreachable(LauncherError):
    code, status, retriable = "unreachable", 502, True


class BadImage(LauncherError):
    code, status = "bad_image", 422


class DownloadFailed(LauncherError):
    code, status = "download_failed", 502


class BusError(LauncherError):
    code, status, retriable = "bus_error", 503, True


class NoRoute(BusError):
    code = "no_route"


class BusUnavailable(BusError):
    code = "bus_unavailable"


class RpcTimeout(BusError):
    code, status = "rpc_timeout", 504


class UnknownMethod(BusError):
    code, status, retriable = "unknown_method", 501, False


class BadMessage(BusError):
    code, status, retriable = "bad_message", 400, False


class RemoteError(LauncherError):
    code = "remote_error"


class DriverError(LauncherError):
    code = "driver_error"


class ProgramFailed(DriverError):
    code = "program_failed"


class HypervisorUnavailable(DriverError):
    code, status, retriable = "hypervisor_unavailable", 503, True


class HypervisorBusy(DriverError):
    code, status, retriable = "hypervisor_busy", 503, True


class SpawnFailed(DriverError):
    code, retriable = "spawn_failed", True


class InvalidDomainConfig(DriverError):
    code = "invalid_domain_config"


class DomainConflict(DriverError):
    code, status = "domain_conflict", 409


class HostResourceMissing(DriverError):
    code, retriable = "host_resource_missing", True


class InjectionFailed(DriverError):
    code = "injection_failed"


class FirewallFailed(DriverError):
    code = "firewall_failed"


class NetworkFailed(DriverError):
    code = "network_failed"


class VolumeFailed(DriverError):
    code, retriable = "volume_failed", True


class DiskHeld(DriverError):
    code, status, retriable = "disk_held", 409, True
