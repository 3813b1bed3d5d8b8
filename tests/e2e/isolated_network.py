"""A network namespace without outside access that records all lookups and connection attempts.

As a program this file is the keeper of the namespace: it answers each line on its standard input with what was
attempted since the line before, as a JSON list.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_ETHERTYPES = socket.htons(3)  # ETH_P_ALL of if_ether.h
_NO_SUCH_NAME = b"\x81\x83"
# Programs may send less telemetry when they detect a test or CI, so such variables are removed.
_PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PYTHONPATH", "VIRTUAL_ENV")


class IsolatedNetwork:
    """The namespace and an empty home directory."""

    def __init__(self, keeper: "subprocess.Popen[str]", user_home: Path) -> None:
        """Use `isolated`."""
        self._keeper = keeper
        self.user_home = user_home
        self.environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self.environment |= {"HOME": str(user_home), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}

    def words(self, *command: object, cwd: Path | str = "/") -> list[str]:
        """The command line that runs a command in the namespace."""
        # Not nsenter's --wd: it opens the directory outside the namespace; renaming across mounts would fail.
        target = [f"--target={self._keeper.pid}", "--net", "--mount"]
        return ["nsenter", *target, "--", "env", f"--chdir={cwd}", *map(str, command)]

    def attempted(self) -> list[str]:
        """Names looked up and hosts contacted since the last call."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        print(file=self._keeper.stdin, flush=True)
        found: list[str] = json.loads(self._keeper.stdout.readline())
        return found

    def files(self) -> list[str]:
        """Files that programs left in the home directory."""
        return sorted(str(p.relative_to(self.user_home)) for p in self.user_home.rglob("*") if not p.is_dir())


@contextlib.contextmanager
def isolated(folder: Path) -> Iterator[IsolatedNetwork | None]:
    """Context with a namespace, its files in folder; None where the kernel does not permit one."""
    files, user_home = folder / "network", folder / "user"
    files.mkdir()
    user_home.mkdir()
    (files / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (files / "nsswitch.conf").write_text("hosts: files dns\n")
    command = ["unshare", "--net", "--mount", sys.executable, __file__, str(files)]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        yield None
        return
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        ready = keeper.stdout.readline() == "ready\n"
        yield IsolatedNetwork(keeper, user_home) if ready else None
        keeper.stdin.close()


def _keep(folder: Path) -> None:
    for name in ("resolv.conf", "nsswitch.conf"):
        subprocess.run(["mount", "--bind", folder / name, f"/etc/{name}"], check=True)
    _route_everything_to_loopback()
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, _ETHERTYPES)
    _answer("ready")
    attempted: list[str] = []
    while True:
        # Earlier packets are queued in the sockets: read until they are empty.
        ready, _, _ = select.select([names, packets, sys.stdin], [], [])
        if names in ready:
            attempted.append(f"looked up {_refuse(names)}")
        elif packets in ready:
            data = packets.recv(65535)
            if data[0] >> 4 == 4 and data[16] != 127:  # IPv4, to an address outside 127.0.0.0/8
                attempted.append(f"called {socket.inet_ntoa(data[16:20])}")
        elif sys.stdin.readline():
            _answer(json.dumps(attempted))
            attempted = []
        else:
            return


def _answer(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _refuse(names: socket.socket) -> str:
    """Answer a DNS query with "no such name"; returns the name."""
    data, peer = names.recvfrom(4096)
    at, labels = 12, []
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    names.sendto(data[:2] + _NO_SUCH_NAME + data[4:6] + bytes(6) + data[12:], peer)
    return ".".join(labels)


def _route_everything_to_loopback() -> None:
    """Add a default route, so that packets to numeric addresses are recorded, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        loopback = b"lo".ljust(16, b"\0")
        flags = struct.unpack("16sh", fcntl.ioctl(control, 0x8913, loopback + bytes(16))[:18])[1]  # SIOCGIFFLAGS
        fcntl.ioctl(control, 0x8914, loopback + struct.pack("h", flags | 1) + bytes(14))  # SIOCSIFFLAGS, IFF_UP
        device = ctypes.create_string_buffer(b"lo")
        anywhere = struct.pack("H14x", socket.AF_INET)
        fields = struct.pack("@HhQB7xh6xQ", 1, 0, 0, 0, 0, ctypes.addressof(device))  # RTF_UP, rt_dev of struct rtentry
        fcntl.ioctl(control, 0x890B, bytes(8) + 3 * anywhere + fields + bytes(24))  # SIOCADDRT


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
