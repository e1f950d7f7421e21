"""Which addresses the server may connect to: public ones, and those that the operator names.

`special_addresses.csv` lists what is not public: every row of IANA's registries of special addresses, also those that
IANA calls reachable (anycast services, AS112), because no picture lies there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network
from pathlib import Path

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL_ADDRESSES = Path(__file__).with_name("special_addresses.csv")
GLOBAL_UNICAST = ip_network("2000::/3")  # all other IPv6 is loopback, local, multicast or unassigned
NAT64 = ip_network("64:ff9b::/96")  # of the whole world; the prefix of one network, 64:ff9b:1::/48, has no fixed form
METADATA_SERVICES = frozenset(  # of clouds, where each machine of theirs finds credentials
    map(ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
ISATAP = 0x5EFE  # before the IPv4 address in the last 64 bits, whatever the universal and the group bit say (RFC 5214)


def read_networks(file: Path = SPECIAL_ADDRESSES) -> list[Network]:
    """The networks of the list."""
    with open(file, encoding="utf-8") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return [ip_network(row["network"]) for row in rows]


def merge_networks(networks: Iterable[Network]) -> list[Network]:
    """The fewest networks that cover the same addresses."""
    listed = list(networks)
    v4 = collapse_addresses(one for one in listed if isinstance(one, IPv4Network))
    v6 = collapse_addresses(one for one in listed if isinstance(one, IPv6Network))
    return [*v4, *v6]


NOT_PUBLIC = merge_networks(read_networks())


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


class ChosenServerPolicy:
    """What the URL of a server that the operator chose may lead to: also to loopback and to private networks.

    Link-local addresses and METADATA_SERVICES only if `host` is that address itself: the owner of a name may change
    where it leads.
    """

    def __init__(self, host: str) -> None:
        self._host: Address | None = None
        with suppress(ValueError):
            self._host = ip_address(host.strip("[]"))

    def permits(self, text: str) -> bool:
        """Whether the server may connect to this address, as a resolver writes it; False for any other text."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        inner = (embedded_ipv4(address) if isinstance(address, IPv6Address) else None) or address
        is_wrong = inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in METADATA_SERVICES
        return address == self._host or not is_wrong


def is_public(address: Address) -> bool:
    """Whether an address is public; an IPv6 address that stands for an IPv4 address is judged as that."""
    if isinstance(address, IPv6Address):
        inner = embedded_ipv4(address)
        if inner is not None:
            return is_public(inner)
        if address not in GLOBAL_UNICAST or (int(address) >> 32) & 0xFCFF_FFFF == ISATAP:
            return False
    return not any(address in network for network in NOT_PUBLIC if network.version == address.version)


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address with which a connection to an IPv6 address ends: mapped, or through NAT64."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
