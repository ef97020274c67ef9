"""Asks the kernel whether an address belongs to this host.

The routing table knows: it has every address of every interface, also secondary ones, and ranges
that are local as a whole (rtnetlink(7)). A question does not wait: the kernel answers at once.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

from states.egress import Address

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination's bits, ..., type, flags
_ATTRIBUTE = struct.Struct("=HH")
_GET_ROUTE, _NEW_ROUTE, _ERROR = 26, 24, 2
_REQUEST = 1
_DESTINATION = 1
_SECS = 5.0
# A route's type, where it is not the way to another machine.
_KINDS = {
    2: "an address of this host",
    3: "a broadcast address",
    4: "an address of this host",
    5: "a multicast address",
}

# There is no way to it, or the table forbids it (ip-route(8): unreachable, prohibit, blackhole).
_NO_ROUTE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENOENT}
)


def own_kind(address: Address) -> str:
    """What this is, if it is an address of this host or of all in its network; "" if it is not.

    Raises `OSError` if the kernel cannot be asked.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    packed = address.packed
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    route = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _DESTINATION) + packed
    length = _HEADER.size + len(route) + len(attribute)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        kernel.settimeout(_SECS)
        kernel.bind((0, 0))
        kernel.send(_HEADER.pack(length, _GET_ROUTE, _REQUEST, 1, 0) + route + attribute)
        answer = kernel.recv(1 << 16)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        # A network without a way there: the connection will say so.
        if -number in _NO_ROUTE:
            return ""
        raise OSError(-number, os.strerror(-number))
    if kind != _NEW_ROUTE:
        raise OSError(f"the kernel's answer about {address} has the type {kind}")
    return _KINDS.get(_ROUTE.unpack_from(answer, _HEADER.size)[7], "")
