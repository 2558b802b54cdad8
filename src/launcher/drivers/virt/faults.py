"""What libvirt's errors mean to us.

Its codes are ambiguous: 38 is a lost connection or a missing file, 1 is a closed socket or a QEMU that died. The
pair of code and error domain decides, never the text (pairs seen on libvirt 9.0, embedded and with a daemon).
"""

from __future__ import annotations

import libvirt

from launcher.errors import (
    DomainConflict,
    DriverError,
    HypervisorBusy,
    HypervisorUnavailable,
    InvalidDomainConfig,
    LauncherError,
    NotFound,
)

BY_PAIR: dict[tuple[int, int], type[LauncherError]] = {
    # the name is taken under another uuid, or the uuid under another name
    (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_DOMAIN): DomainConflict,
}

BY_CODE: dict[int, type[LauncherError]] = {
    libvirt.VIR_ERR_INVALID_CONN: HypervisorUnavailable,
    libvirt.VIR_ERR_NO_DOMAIN: NotFound,
    libvirt.VIR_ERR_DOM_EXIST: DomainConflict,
    libvirt.VIR_ERR_XML_ERROR: InvalidDomainConfig,
    libvirt.VIR_ERR_XML_DETAIL: InvalidDomainConfig,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: InvalidDomainConfig,
    libvirt.VIR_ERR_OPERATION_INVALID: HypervisorBusy,  # already active, or not active any more: look
    libvirt.VIR_ERR_OPERATION_TIMEOUT: HypervisorBusy,
    libvirt.VIR_ERR_OPERATION_ABORTED: HypervisorBusy,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: HypervisorBusy,
    libvirt.VIR_ERR_RESOURCE_BUSY: HypervisorBusy,
}


def named(code: int | None, domain: int | None, otherwise: type[DriverError]) -> type[LauncherError]:
    """The class of an error; `otherwise` is what a failure of the verb is called when libvirt has no better word."""
    if code is None or domain is None:
        return otherwise
    if domain == libvirt.VIR_FROM_RPC:  # the way to the daemon broke: nobody knows what was done
        return HypervisorUnavailable
    return BY_PAIR.get((code, domain)) or BY_CODE.get(code, otherwise)


def translate(error: libvirt.libvirtError, what: str, otherwise: type[DriverError] = DriverError) -> LauncherError:
    """`error` as one of ours; its message is "`what`: libvirt's words"."""
    fault = named(error.get_error_code(), error.get_error_domain(), otherwise)
    words = " ".join((error.get_error_message() or str(error)).split())
    return fault(f"{what}: {words}")
