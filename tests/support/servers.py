"""Servers of tests: started as processes, waited for and stopped; and PostgreSQL in a temporary folder."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_START_S = 300  # then the test fails; the time itself is never asserted
PATIENCE_MS = 120_000  # with a page; beside other tests on slow cores, it takes more than 30 s to load


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready, process, log):
    deadline = time.monotonic() + _START_S
    while not ready():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@contextlib.contextmanager
def running(command, log, *, stop=signal.SIGTERM, **options):
    """A process in a separate group, which is stopped as a whole."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def postgresql_binaries():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        message = "no PostgreSQL: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found[-1].parent


def _unchanged(*words):
    return list(words)


@contextlib.contextmanager
def postgresql(port, password, *, within=_unchanged):
    """A server on 127.0.0.1 with the user and database mlflow; yields its address.

    PostgreSQL refuses root, so that it runs as Debian's user postgres then. within(*words) is the command line that runs
    words in another network.
    """
    binaries = postgresql_binaries()
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="finder-postgresql-"))
    try:
        (folder / "password").write_text(password)
        if as_user:
            owner = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        initdb = [binaries / "initdb", "--pgdata", folder / "data", "--username", "mlflow", "--auth", "scram-sha-256"]
        initdb += ["--pwfile", folder / "password", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        made = subprocess.run([*as_user, *map(str, initdb)], cwd=folder, capture_output=True, check=False)
        assert made.returncode == 0, made.stderr.decode()
        log = folder / "log"
        command = [*as_user, binaries / "postgres", "-D", folder / "data", "-k", folder, "-p", port]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with running(within(*command), log, stop=signal.SIGINT, cwd=folder) as process:
            client = ["-h", "127.0.0.1", "-p", port, "-U", "mlflow"]
            ready = [*map(str, within(binaries / "pg_isready", *client, "-d", "postgres"))]
            wait_until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, process, log)
            create = [*map(str, within(binaries / "createdb", *client, "mlflow"))]
            subprocess.run(create, env={**os.environ, "PGPASSWORD": password}, check=True, capture_output=True)
            yield f"postgresql://mlflow:{password}@127.0.0.1:{port}/mlflow"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
