"""Reads from Linux where processes listen, as `ss -ltnp` shows it."""

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

LISTENING = "0A"


def listening_addresses(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The (address, port) of every TCP socket on which these processes wait for connections."""
    sockets = _sockets(pids)
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in sockets:
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _address(words: str) -> str:
    parts = [bytes.fromhex(words[start : start + 8])[::-1] for start in range(0, len(words), 8)]
    return str(ipaddress.ip_address(b"".join(parts)))


def _sockets(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found |= {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    return found
