"""The addresses of this host, by which machines reach the receiver."""
import contextlib
import ipaddress
import socket
import struct

SIOCGIFADDR = 0x8915  # asks Linux for the IPv4 address of an interface
IF_INET6 = "/proc/net/if_inet6"  # where Linux lists the IPv6 addresses
GLOBAL = "00"  # the scope there of those that others can reach without a zone


def own_addresses(family):
    """Return addresses of this host that others can reach, the usual one first.

    Of IPv4 the main address of each interface. family: AF_INET, or AF_INET6 for both
    kinds. Elsewhere than on Linux only the usual ones.
    """
    found = [*_usual_addresses(family), *_ipv4_addresses()]
    if family == socket.AF_INET6:
        found += _ipv6_addresses()
    return [address for address in dict.fromkeys(found)
            if not ipaddress.ip_address(address.partition("%")[0]).is_loopback]


def _usual_addresses(family):
    # No packet is sent: the kernel tells from which address it would send one there.
    for kind, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as probe:
            if kind in (family, socket.AF_INET):
                probe.connect((address, 9))
                yield probe.getsockname()[0]


def _ipv4_addresses():
    with contextlib.suppress(ImportError, OSError):
        import fcntl  # not in every system
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # it has none
                    answer = fcntl.ioctl(probe, SIOCGIFADDR,
                                         struct.pack("256s", name.encode()))
                    yield socket.inet_ntoa(answer[20:24])


def _ipv6_addresses():
    with contextlib.suppress(OSError), open(IF_INET6, encoding="ascii") as file:
        for line in file:
            digits, _, _, scope, *_ = line.split()
            if scope == GLOBAL:
                yield str(ipaddress.IPv6Address(int(digits, 16)))
