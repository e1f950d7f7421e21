"""Which addresses a URL may lead to: the shapes in which internal ones have been smuggled past others."""

from __future__ import annotations

import csv
import random
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.sources.fetch.address_policy import (
    SPECIAL_ADDRESSES,
    AddressPolicy,
    Network,
    embedded_ipv4,
    merge_networks,
    read_networks,
)

ROOT = Path(__file__).parents[4]

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "::10.1.2.3",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:53aa:64c::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2002:5db8:d822::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd20:ce::254",
    "2620:4f:8000::1",
    "3ffe::1",
    "::808:808",
    "::ffff:0:8.8.8.8",
    "64:ff9b:1:a00:0:100:808:808",
    "64:ff9b:1::808:808",
    "64:ff9b::a83f:8110",
    "::ffff:168.63.129.16",
    "2a00:1450::5efe:a00:1",
    "2a00:1450::200:5efe:808:808",
    "2a00:1450::100:5efe:808:808",
    "localhost",
    "127.1",
    "0x7f000001",
    "2130706433",
    "",
]
PERMITTED = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "168.63.129.15",
    "168.63.129.17",
    "2001:200::1",
    "2a00:1450::15:5efe:808:808",
    "2a00:1450:5efe:808:808::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
]


ROWS = read_networks()
UNICAST = ip_network("2000::/3")


@pytest.mark.parametrize("network", ROWS, ids=str)
def test_every_row_of_the_registries_is_refused_at_both_edges_and_between(network: Network) -> None:
    chance = random.Random(str(network))
    within = [network[0], network[-1], *(network[chance.randrange(network.num_addresses)] for _ in range(8))]
    for address in within:
        inner = embedded_ipv4(address) if address.version == 6 else None
        if inner is None:
            assert not AddressPolicy().permits(str(address)), address
            if address.version == 4:
                assert not AddressPolicy().permits(f"::ffff:{address}")
                assert not AddressPolicy().permits(f"64:ff9b::{address}")
        else:
            assert AddressPolicy().permits(str(address)) == AddressPolicy().permits(str(inner))


@pytest.mark.parametrize("network", merge_networks(ROWS), ids=str)
def test_the_neighbours_of_what_is_refused_are_permitted(network: Network) -> None:
    """Both sides of each range that the rows cover together, but where another begins or IPv6 has nothing public."""
    tried = 0
    for number in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= number < 2**network.max_prefixlen:
            address = type(network[0])(number)
            has_row = any(address in other for other in ROWS if other.version == address.version)
            expected = not has_row and (address.version == 4 or address in UNICAST)
            assert AddressPolicy().permits(str(address)) == expected, address
            tried += 1
    assert tried


def test_the_list_has_the_rows_of_both_registries_and_every_cloud() -> None:
    assert len(ROWS) == len(set(ROWS)) >= 67
    with open(SPECIAL_ADDRESSES, encoding="utf-8") as lines:
        text = list(lines)
    assert sum(line.startswith("ipv4,") for line in text) == 26
    assert sum(line.startswith("ipv6,") for line in text) == 25


def test_the_list_is_compared_with_the_files_of_iana(tmp_path: Path) -> None:
    with open(SPECIAL_ADDRESSES, encoding="utf-8") as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    files = [tmp_path / "4.csv", tmp_path / "6.csv"]
    for file, version in zip(files, ("ipv4", "ipv6"), strict=True):
        with open(file, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["Address Block", "Name", "RFC", "Globally Reachable"])
            for row in rows:
                if row["list"] == version and row["network"] != "192.0.0.171/32":
                    block = row["network"].replace("192.0.0.170/32", "192.0.0.170/32, 192.0.0.171/32")
                    writer.writerow([f"{block} [2]", row["name"], "[RFC1]", "False [1]"])
    compare = ["scripts/addresses", *map(str, files)]
    same = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True)
    assert (same.returncode, same.stdout) == (0, "")
    files[1].write_text(files[1].read_text("utf-8").replace("3fff::/20", "4000::/20"), encoding="utf-8")
    compared = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True)
    assert compared.returncode == 1
    assert compared.stdout.splitlines() == ["3fff::/20 is in our list only", "4000::/20 is in IANA's registry only"]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize("address", PERMITTED)
def test_what_is_public_is_permitted(address: str) -> None:
    assert AddressPolicy().permits(address)


def test_the_operator_may_name_more() -> None:
    policy = AddressPolicy(["10.1.2.0/24", " fd00::7 "])
    assert [policy.permits(each) for each in ("10.1.2.9", "fd00::7", "1.1.1.1")] == [True] * 3
    assert [policy.permits(each) for each in ("10.1.3.9", "fd00::8", "127.0.0.1")] == [False] * 3


@pytest.mark.parametrize("text", ["10.0.0.0/99", "intranet", "10.0.0.1/8", ""])
def test_what_the_operator_names_must_be_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AddressPolicy([text])
