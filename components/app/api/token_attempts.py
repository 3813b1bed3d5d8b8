"""Attempts: how often a client may present a wrong token; knows nothing of HTTP.

A client is an address, of IPv6 its first 64 bits, which one subscriber has. Behind a proxy all clients share the proxy's
address, so a client that has presented the right token once is not refused for wrong ones: nobody can lock the others
out. Limit attempts at the proxy then.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_CLIENTS = 10_000  # the least recent ones are forgotten, about 2 MB in all


@dataclass
class _Client:
    n_failures: float = 0.0  # falls by one each interval
    at_s: float = 0.0  # when n_failures was right
    is_trusted: bool = False  # has presented the right token


class Attempts:
    """Counts wrong tokens by client: `burst` at once, then one more each `interval_s`."""

    def __init__(self, *, burst: int, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def refused_for_s(self, address: str) -> float:
        """Seconds in which a client's attempts are refused unread; 0 if they are looked at."""
        client = self._client(address)
        return max(0.0, client.n_failures + 1 - self._burst) * self._interval_s

    def is_trusted(self, address: str) -> bool:
        """Whether the client has presented the right token before."""
        return self._client(address).is_trusted

    def note_failure(self, address: str) -> None:
        """Count a wrong token."""
        self._client(address).n_failures += 1

    def note_success(self, address: str) -> None:
        """Trust a client from now on."""
        self._client(address).is_trusted = True

    def _client(self, address: str) -> _Client:
        key, now_s = _key(address), self._clock()
        client = self._clients.setdefault(key, _Client(at_s=now_s))
        client.n_failures = max(0.0, client.n_failures - (now_s - client.at_s) / self._interval_s)
        client.at_s = now_s
        self._clients.move_to_end(key)
        if len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        return client


def _key(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
