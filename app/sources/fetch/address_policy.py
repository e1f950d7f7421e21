"""Which addresses the server may connect to: public ones, and those that the operator names."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The registries of special addresses (RFC 6890 and after). `ipaddress.is_global` of Python 3.11 lacks some of them.
# https://www.iana.org/assignments/iana-ipv4-special-registry
NOT_PUBLIC = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]
GLOBAL_UNICAST = ip_network("2000::/3")  # all other IPv6 is loopback, local, multicast or unassigned
NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


class AddressPolicy:
    """Permits public addresses and those within `also`: addresses or networks, such as `10.1.2.0/24`.

    Raises ValueError for text that is neither.
    """

    def __init__(self, also: Iterable[str] = ()) -> None:
        self._also: list[Network] = [ip_network(text.strip()) for text in also]

    def permits(self, text: str) -> bool:
        """Whether the server may connect to this address, as a resolver writes it; False for any other text."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._also) or is_public(address)


def is_public(address: Address) -> bool:
    """Whether an address is public; an IPv6 address that stands for an IPv4 address is judged as that."""
    if isinstance(address, IPv6Address):
        inner = embedded_ipv4(address)
        if inner is not None:
            return is_public(inner)
        if address not in GLOBAL_UNICAST:
            return False
    return not any(address in network for network in NOT_PUBLIC if network.version == address.version)


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible, or through NAT64."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if int(address) >> 32 == 0 or any(address in network for network in NAT64):
        return last
    return None
