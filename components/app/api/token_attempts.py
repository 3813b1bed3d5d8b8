"""Token attempts: limits wrong tokens per client; knows nothing of HTTP.

A client is an IPv4 address or the first 64 bits of an IPv6 address, which identify a subscriber. Behind a proxy all
clients share its address. Hence an address that has sent the right token is not locked out by wrong ones; limit attempts
at the proxy instead.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_CLIENTS = 10_000  # least recently used, about 2 MB in all


@dataclass
class _Client:
    n_failures: float = 0.0  # decreases by one per interval
    at_s: float = 0.0  # time of n_failures
    is_trusted: bool = False  # has sent the right token


class Attempts:
    """Counts wrong tokens per client: allows `burst` at once, then one per `interval_s`."""

    def __init__(self, *, burst: int, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def refused_for_s(self, address: str) -> float:
        """Seconds until the client may try again; 0 if it may now."""
        client = self._client(address)
        return max(0.0, client.n_failures + 1 - self._burst) * self._interval_s

    def is_trusted(self, address: str) -> bool:
        return self._client(address).is_trusted

    def note_failure(self, address: str) -> None:
        self._client(address).n_failures += 1

    def note_success(self, address: str) -> None:
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
