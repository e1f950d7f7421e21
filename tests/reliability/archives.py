"""Hostile archives: bombs, traversals, links, lies about sizes, damage. Each with what must come of it."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice

from tests.support.archives import PNG, make_tar, make_zip
from tests.support.sample_pictures import sample

NAMES = ("../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\..\\evil.png", "a/../../evil.png", "/evil.png")
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
BOMB = 48 << 20  # bytes that a bomb expands to; the server of the proof permits half of it


def corpus(share: int = 1) -> Iterator[tuple[str, bytes]]:
    """Names, beginning with `bomb-`, `names-`, `links-`, `lies-` or `damage-`, and bytes; every `share`-th of them."""
    kinds = (bombs(), names(), links(), list_lies(), damage())
    yield from islice((one for kind in kinds for one in kind), 0, None, share)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small archives that expand to more than is permitted."""
    block = PNG + bytes((2 << 20) - len(PNG))
    many = {f"{n}.png": block for n in range(BOMB >> 21)}
    yield "bomb-deflate.zip", make_zip(many)
    yield "bomb-gzip.tar.gz", gzip.compress(make_tar(many))
    yield "bomb-skipped.tar.gz", gzip.compress(make_tar({"a.png": PNG, "skipped.bin": bytes(BOMB)}))
    yield "bomb-hidden.tar.gz", gzip.compress(make_tar({"a.png": PNG, ".hidden": bytes(BOMB)}))
    yield "bomb-members.zip", make_zip({f"{n}.png": b"" for n in range(1_001)})
    yield "bomb-members.tar", make_tar({f"{n}.png": b"" for n in range(1_001)})
    yield "bomb-folders.zip", make_zip({f"{n}/": b"" for n in range(5_000)} | {"a.png": PNG})
    one = make_zip({"000.png": block})
    at, end = one.index(b"PK\1\2"), one.index(b"PK\5\6")
    entry, tail = one[at:end], bytearray(one[end:])
    tail[8:16] = struct.pack("<HHI", 40, 40, len(entry) * 40)
    yield "bomb-overlapping.zip", one[:at] + entry * 40 + bytes(tail)
    tail[8:16] = struct.pack("<HHI", 1, 1, len(entry) * 100_000)
    yield "bomb-directory.zip", one[:at] + entry * 100_000 + bytes(tail)
    nested = make_zip({"a.zip": make_zip({"b.zip": make_zip({"c.png": block})})})
    yield "nested.zip", nested


def names() -> Iterator[tuple[str, bytes]]:
    """Members whose names lead elsewhere."""
    for n, name in enumerate(NAMES):
        yield f"names-{n}.zip", make_zip({name: sample("png", seed=900 + n)})
        yield f"names-{n}.tar", make_tar({name: sample("png", seed=950 + n)})
    odd = {"evil\r\n\x1b[31m.png": PNG, "x" * 60_000 + ".png": sample("png", seed=990)}
    yield "names-odd.zip", make_zip(odd)
    yield "names-odd.tar", make_tar(odd)


def links() -> Iterator[tuple[str, bytes]]:
    """Members that are no files; after a link, one that would be written through it."""
    for kind in LINKS:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc"
        yield f"links-{kind.decode()}.tar", make_tar({"s": info, "link/evil.png": sample("png", seed=970 + int(kind))})
    deep = tarfile.TarInfo("a/" * 60 + "b")
    deep.type, deep.linkname = tarfile.SYMTYPE, "../" * 80 + "etc"
    yield "links-deep.tar", make_tar({"s": deep, "evil.png": sample("png", seed=980)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info_ = zipfile.ZipInfo("link.png")
        info_.create_system, info_.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info_, "/etc/passwd")
    yield "links-symbolic.zip", file.getvalue()


def list_lies() -> Iterator[tuple[str, bytes]]:
    """Sizes, methods and flags that are not so."""
    info = tarfile.TarInfo("sparse.png")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (0, 0)
    head[483:495] = b"\x80\0\0\0" + struct.pack(">Q", 8 << 40)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 256 + sum(head[156:]))
    yield "lies-sparse.tar", bytes(head) + make_tar({"a.png": PNG})
    for claim in (0, 10, 0xFFFFFFF0):
        data = bytearray(make_zip({"a.png": PNG, "liar.png": PNG + bytes(1 << 20)}))
        for magic, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
            at = data.rindex(magic)
            data[at + offset : at + offset + 4] = struct.pack("<I", claim)
        yield f"lies-size-{claim}.zip", bytes(data)
    locked = bytearray(make_zip({"secret.png": PNG}))
    locked[locked.index(b"PK\1\2") + 8] |= 1
    locked[6] |= 1
    yield "lies-encrypted.zip", bytes(locked)


def damage() -> Iterator[tuple[str, bytes]]:
    """Archives that are cut, joined, or made to hang their reader."""
    members = {f"{n}.png": sample("png", seed=n) for n in range(5)}
    for name, whole in (
        ("zip", make_zip(members)),
        ("tar", make_tar(members)),
        ("tar.gz", gzip.compress(make_tar(members))),
    ):
        yield f"damage-cut.{name}", whole[: len(whole) // 2]
    yield "damage-joined.zip", make_zip(members) + make_zip({"z.png": PNG})
    digits = b"1" * 2_000_000
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(digits)
    hang = info.tobuf(tarfile.USTAR_FORMAT) + digits + bytes(-len(digits) % 512) + make_tar({"a.png": PNG})
    yield "damage-hang.tar", hang
    yield "damage-hang.tar.gz", gzip.compress(hang)
