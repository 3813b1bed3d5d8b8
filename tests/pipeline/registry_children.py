"""Processes that promote, race and die: registry_children.py ADDRESS SCENARIO [...], results as JSON on stdout.

One process imports MLflow and opens no store; every scenario runs in forks of it, each of which opens its own.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, cast

import mlflow

from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import Event, title
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.registry_lock import StoreLock

WRITES = {
    "create_run", "set_terminated", "set_tag", "create_experiment", "create_registered_model",
    "set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag",
}  # fmt: skip


class Dying:
    """A client whose process is killed instead of its n-th write."""

    def __init__(self, client, n):
        self._client, self._left = client, n

    def __getattr__(self, name):
        if name in WRITES:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self._client, name)


def fork(work):
    """Run work in a child process; it gets a function that sends a value to this process."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as stream:
                work(lambda value: print(json.dumps(value), file=stream, flush=True))
            os._exit(0)
        except Exception:  # noqa: BLE001 - the child must never run the code of its parent
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    return child, read


def ended(child, read):
    """Exit code of a child and the last value that it sent."""
    with os.fdopen(read) as stream:
        lines = stream.read().splitlines()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(lines[-1]) if lines else None


def run(work):
    return ended(*fork(work))


def with_versions(uri, model, n):
    """The promotions of a model with n versions that have no files."""
    registry = Registry(uri)
    registry.ensure_model(model)
    for _ in range(n):
        registry.client.create_model_version(model, "file:///nowhere", tags={names.DATA_VERSION: "d" * 12})
    return Promotions(registry, actor="ann@lab")


def seen(promotions, model):
    found = promotions.history(model)
    aliases = promotions.registry.aliases(model)
    return {
        "aliases": {name: aliases.get(name) for name in (names.CHAMPION, names.PREVIOUS, names.CHALLENGER)},
        "story": [title(entry) for entry in found.entries],
        "faults": [fault.text for fault in found.faults],
        "notes": list(found.notes),
        "last": found.entries[-1].model_dump(mode="json") if found.entries else None,
    }


def crash(uri):
    """Kill a promotion of 3 over 2 before each write; the state before and after reconciling."""
    model, outcomes = "crash", []

    def promote(send, n):
        promotions = Promotions(Registry(uri), actor="cleo@lab")
        if n == 1:
            with_versions(uri, model, 3)
        else:
            before = seen(promotions, model)
            promotions.reconcile(model)
            send({"before": before, "after": seen(promotions, model)})
        for version in ("1", "2"):
            promotions.move_champion(model, version, reason="better")
        registry = Registry(uri)
        registry.client = cast("Any", Dying(registry.client, n))
        Promotions(registry, actor="bob@lab").move_champion(model, "3", reason="best")

    for n in range(1, 40):
        code, looked = run(lambda send, n=n: promote(send, n))
        if looked is not None:
            outcomes[-1].update(looked)
        outcomes.append({"ended": code})
        if code != -signal.SIGKILL:
            break
    return outcomes


def race(uri):
    """Two processes that finish together; each compares with the champion and promotes."""
    run(lambda _: with_versions(uri, "race", 3).move_champion("race", "1", reason="first"))
    start = time.monotonic() + 1.5

    def promote(send, version):
        promotions = Promotions(Registry(uri), actor=f"run of {version}")
        time.sleep(max(0.0, start - time.monotonic()))
        with promotions.exclusive("race", wait_s=60):
            champion = promotions.champion("race").version
            time.sleep(0.3)  # the time of a comparison: without the lock both would read version 1
            promotions.record("race", Event(kind="decision", from_version=champion, to_version=version))
            promotions.move_champion("race", version, reason="better")
        send(champion)

    children = [fork(lambda send, version=version: promote(send, version)) for version in ("2", "3")]
    compared = [ended(*child) for child in children]
    _, state = run(lambda send: send(seen(Promotions(Registry(uri)), "race")))
    return {"compared": compared, **state}


def stale(uri):
    """A holder of a store's lock is killed; two waiters get it one after the other."""
    read, write = os.pipe()

    def hold(_):
        with StoreLock(Registry(uri).client, "stale", beat_s=0.1, stale_s=5).held(5):
            os.write(write, b"x")
            time.sleep(60)

    def take(send):
        registry = Registry(uri)
        with StoreLock(registry.client, "stale", beat_s=0.1, stale_s=5).held(60) as lock:
            entered = time.monotonic()
            lock.check()
            time.sleep(0.5)
            lock.check()
            send([entered, time.monotonic()])

    child, _ = fork(hold)
    os.read(read, 1)
    children = [fork(take) for _ in range(2)]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    held = [ended(*each) for each in children]
    _, left = run(
        lambda send: send([model.name for model in Registry(uri).client.search_registered_models("name LIKE 'stale%'")])
    )
    return {"held": held, "left": left}


if __name__ == "__main__":
    mlflow.set_tracking_uri("")
    address, *scenarios = sys.argv[1:]
    os.chdir(Path(address.removeprefix("sqlite:///")).parent)
    sys.stdout.write(
        json.dumps({name: {"crash": crash, "race": race, "stale": stale}[name](address) for name in scenarios})
    )
