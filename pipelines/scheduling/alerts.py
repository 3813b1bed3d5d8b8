"""Alerts: tells people how an unattended run ended; knows nothing of what ran.

Addresses are Apprise's (Slack, webhook, e-mail and others) and stand in IMAGE_FINDER_ALERTS, separated by blanks. They
hold passwords and tokens: only their kind and host are ever shown. An alert that cannot be delivered is a warning; a
receiver that is down or slow neither fails nor holds up a run.
"""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args
from urllib.parse import unquote, urlsplit

from image_finder.components.errors import ConfigError
from image_finder.components.text import one_line

if TYPE_CHECKING:
    from apprise import NotifyBase

ADDRESSES_VARIABLE = "IMAGE_FINDER_ALERTS"
OCCASIONS_VARIABLE = "IMAGE_FINDER_ALERTS_ON"
Occasions = Literal["failure", "success", "always"]
AlertKind = Literal["success", "warning", "failure"]  # a warning: it came to its end, and somebody should look

_DEADLINE_S = 20.0
_LONGEST_TEXT = 3000  # characters; Slack cuts a text block off there
_HIDDEN = "****"
_HOST_IS_NO_SECRET = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "http", "https"}
_SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_LOGIN = re.compile(r"://[^\s/@]*@")
_SHORTEST_SECRET = 4  # characters; hiding each "a" would leave no text
_SHORTEST_TAIL = 10  # characters of a path; /finder stands in other paths too
_TOKEN = re.compile(r"(?=.*[0-9])[\w%.~+-]{8,}", re.ASCII)

_THREAD = "alert"

logger = logging.getLogger(__name__)


class Alert(NamedTuple):
    """What happened, in a line and in some more."""

    title: str
    text: str
    kind: AlertKind


class Delivery(NamedTuple):
    """What became of an alert at one address. reason: "" when it was delivered."""

    address: str  # as it may be shown
    reason: str


class AlertSettings(NamedTuple):
    """To whom alerts go, and when."""

    addresses: tuple[str, ...]
    occasions: Occasions

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "AlertSettings":
        """From IMAGE_FINDER_ALERTS and IMAGE_FINDER_ALERTS_ON (failure, success or always; by default failure).

        Raises ConfigError for another word.
        """
        occasions = environment.get(OCCASIONS_VARIABLE, "").strip() or "failure"
        if occasions not in get_args(Occasions):
            known = ", ".join(get_args(Occasions))
            raise ConfigError(f"{OCCASIONS_VARIABLE} is '{occasions[:40]}': expected one of {known}")
        return cls(tuple(environment.get(ADDRESSES_VARIABLE, "").split()), cast("Occasions", occasions))

    def require_known(self) -> None:
        """Refuse an address that Apprise cannot read. Raises ConfigError."""
        for number, address in enumerate(self.addresses, 1):
            if _service(address) is None:
                raise ConfigError(
                    f"{ADDRESSES_VARIABLE}: address {number}, {shown(address)}, is not one that Apprise knows; examples "
                    "are https://hooks.slack.com/services/A/B/C, jsons://host/path and mailtos://user:password@host"
                )

    def wants(self, alert: Alert) -> bool:
        """Whether the alert is to be sent; a warning is of interest to those who wait for a failure or for a success."""
        return self.occasions == "always" or alert.kind in {"warning", self.occasions}


def notify(alert: Alert, environment: Mapping[str, str] | None = None) -> None:
    """Send an alert if it is wanted. Never raises; what cannot be delivered is a warning in the log."""
    environment = os.environ if environment is None else environment
    try:
        settings = _settings(environment)
        if not settings.addresses or not settings.wants(alert):
            return
        for delivery in deliver(alert, settings.addresses, environment=environment):
            if delivery.reason:
                logger.warning("the alert to %s was not delivered: %s", *delivery)
    except Exception as error:  # noqa: BLE001 - a fault of an alert must not become a fault of the run
        logger.warning("no alert was sent: %s", type(error).__name__)


def deliver(
    alert: Alert,
    addresses: Sequence[str],
    *,
    environment: Mapping[str, str],
    deadline_s: float = _DEADLINE_S,
) -> list[Delivery]:
    """Send an alert to all addresses at once and wait for them, deadline_s at the longest; secrets are taken out of it.

    Each has a daemon thread: one that hangs is left behind, and neither the wait nor the process's end waits for it.
    """
    hidden = alert._replace(title=scrub(alert.title, environment), text=scrub(alert.text, environment)[:_LONGEST_TEXT])
    reasons = dict.fromkeys(range(len(addresses)), f"no answer within {deadline_s:g} s")

    def send(number: int) -> None:
        reason = _send(hidden, addresses[number])
        reasons[number] = scrub(reason, environment)

    threads = [threading.Thread(target=send, args=(number,), name=_THREAD, daemon=True) for number in reasons]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return [Delivery(shown(address), reasons[number]) for number, address in enumerate(addresses)]


def shown(address: str) -> str:
    """An address as it may be shown: its kind, and its host where that is no token."""
    kind, separator, _ = address.partition("://")
    kind = kind.lower()
    if not separator or not re.fullmatch(r"[a-z0-9]{1,20}", kind):
        return f"'{_HIDDEN}'"
    if kind not in _HOST_IS_NO_SECRET:
        return f"{kind}://{_HIDDEN}"
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
        return f"{kind}://{parts.hostname or _HIDDEN}{port}"
    except ValueError:
        return f"{kind}://{_HIDDEN}"


def scrub(text: str, environment: Mapping[str, str]) -> str:
    """A text without logins in addresses and without what the environment holds in variables named as secrets."""
    secrets = {value for name, value in environment.items() if _SECRET_NAMES.search(name)}
    for address in environment.get(ADDRESSES_VARIABLE, "").split():
        secrets.update(_secrets_in(address))
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _LOGIN.sub(f"://{_HIDDEN}@", text)


def run_failed(exception: BaseException) -> None:
    """Failure hook for a ZenML pipeline that an orchestrator starts: says which step failed, and why."""
    _notify_from_step("failed", str(exception) or type(exception).__name__, "failure")


def run_succeeded() -> None:
    """Success hook for the last step of a ZenML pipeline that an orchestrator starts."""
    _notify_from_step("succeeded", "", "success")


def machine() -> str:
    """The name of this machine."""
    return socket.gethostname()


def _notify_from_step(verb: str, reason: str, kind: AlertKind) -> None:
    from zenml import get_step_context

    context = get_step_context()
    where = "" if kind == "success" else f" at step {context.step_run.name}"
    lines = [f"run {context.pipeline_run.name}", *([reason] if reason else [])]
    notify(Alert(f"image-finder: {context.pipeline.name} {verb}{where}", "\n".join(lines), kind))


def _settings(environment: Mapping[str, str]) -> AlertSettings:
    try:
        return AlertSettings.of(environment)
    except ConfigError as error:
        logger.warning("%s; alerts are sent always", error)
        return AlertSettings.of({**environment, OCCASIONS_VARIABLE: "always"})


def _not_of_an_alert(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(_THREAD)


class _Reasons(logging.Handler):
    """Keeps what Apprise warns about, by thread: it tells the reason of a failure in its log only."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.of_thread: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.of_thread[threading.get_ident()] = one_line(record.getMessage())


_reasons = _Reasons()


def _service(address: str) -> "NotifyBase | None":
    from apprise import Apprise, AppriseAsset, PersistentStoreMode

    log = logging.getLogger("apprise")
    log.propagate = False  # it would write addresses to the run's log
    log.addHandler(_reasons)  # once, however often
    logging.getLogger("urllib3.connectionpool").addFilter(_not_of_an_alert)
    # Without an image of Apprise's, and without files in the user's folders.
    asset = AppriseAsset(app_id="image-finder", image_url_mask=None, storage_mode=PersistentStoreMode.MEMORY)
    return Apprise.instantiate(address, asset=asset)


def _send(alert: Alert, address: str) -> str:
    """Why the alert was not delivered, "" if it was.

    The service is called itself: Apprise's own notify() uses a pool of threads that a process joins when it ends.
    """
    from apprise import NotifyFormat, NotifyType

    try:
        service = _service(address)
        if service is None:
            return "Apprise does not know this address"
        kind = NotifyType(alert.kind)
        sent = service.notify(alert.text or alert.title, alert.title, kind, body_format=NotifyFormat.TEXT)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises; its text may hold the address
        return type(error).__name__
    return "" if sent else _reasons.of_thread.get(threading.get_ident(), "refused")


def _secrets_in(address: str) -> set[str]:
    """The address and its parts that may be secret: password, path with query, tokens therein; of unknown kinds the host.

    Parts that look like words are none: an alert about the finder may well hold the name of its own channel.
    """
    parts = urlsplit(address.replace("[", "").replace("]", ""))
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    found = {address, password or user}
    tail = f"{parts.path}?{parts.query}" if parts.query else parts.path
    found.update(each for each in (tail, parts.path) if len(each) >= _SHORTEST_TAIL)
    found.update(each for each in re.split(r"[/?&;=]", tail) if _TOKEN.fullmatch(each))
    if parts.scheme.lower() not in _HOST_IS_NO_SECRET:
        found.add(host)
    return found | {unquote(each) for each in found}
