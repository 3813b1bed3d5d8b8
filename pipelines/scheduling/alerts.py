"""Alerts: reports to people how an unattended run ended; knows nothing of pipelines.

IMAGE_FINDER_ALERTS contains Apprise addresses (Slack, webhook, e-mail and others), separated by blanks. They may contain
passwords and tokens, so only their kind and host are ever shown. An alert that cannot be delivered is a warning; a
receiver that is down or slow neither fails nor delays a run.
"""

import logging
import os
import re
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
AlertKind = Literal["success", "warning", "failure"]  # warning: the run finished, but a person should check it

_DEADLINE_S = 20.0
_LONGEST_TEXT = 3000  # characters; Slack's limit for a text block
_HIDDEN = "****"
_HOST_IS_NO_SECRET = {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "http", "https"}
_SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)
_LOGIN = re.compile(r"://[^\s/@]*@")
_SHORTEST_SECRET = 4  # characters; shorter values also occur in ordinary words
_SHORTEST_TAIL = 10  # characters of a path; shorter ones also occur in other paths
_TOKEN = re.compile(r"(?=.*[0-9])[\w%.~+-]{8,}", re.ASCII)

_THREAD = "alert"

logger = logging.getLogger(__name__)


class Alert(NamedTuple):
    title: str
    text: str
    kind: AlertKind


class Delivery(NamedTuple):
    address: str  # without secrets
    reason: str  # why it was not delivered; "" if it was


class AlertSettings(NamedTuple):
    addresses: tuple[str, ...]
    occasions: Occasions

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "AlertSettings":
        """Read both variables (default: failure). Raises ConfigError."""
        occasions = environment.get(OCCASIONS_VARIABLE, "").strip() or "failure"
        if occasions not in get_args(Occasions):
            known = ", ".join(get_args(Occasions))
            raise ConfigError(f"{OCCASIONS_VARIABLE} is '{occasions[:40]}': expected one of {known}")
        return cls(tuple(environment.get(ADDRESSES_VARIABLE, "").split()), cast("Occasions", occasions))

    def require_known(self) -> None:
        """Raise ConfigError if Apprise does not support an address."""
        for number, address in enumerate(self.addresses, 1):
            if _service(address) is None:
                raise ConfigError(
                    f"{ADDRESSES_VARIABLE}: Apprise does not support address {number}, {shown(address)}; examples: "
                    "https://hooks.slack.com/services/A/B/C, jsons://host/path, mailtos://user:password@host"
                )

    def include(self, alert: Alert) -> bool:
        return self.occasions == "always" or alert.kind in {"warning", self.occasions}


def notify(alert: Alert, environment: Mapping[str, str] | None = None) -> None:
    """Send an alert if the settings include it. Never raises; failures are logged as warnings."""
    environment = os.environ if environment is None else environment
    try:
        settings = _settings(environment)
        if not settings.addresses or not settings.include(alert):
            return
        for delivery in deliver(alert, settings.addresses, environment=environment):
            if delivery.reason:
                logger.warning("the alert to %s was not delivered: %s", *delivery)
    except Exception as error:  # noqa: BLE001 - an alert must not make the run fail
        logger.warning("no alert was sent: %s", type(error).__name__)


def deliver(
    alert: Alert,
    addresses: Sequence[str],
    *,
    environment: Mapping[str, str],
    deadline_s: float = _DEADLINE_S,
) -> list[Delivery]:
    """Send an alert, without secrets, to all addresses in parallel; wait at most deadline_s.

    Each address has a daemon thread, so a receiver that hangs delays neither this call nor the end of the process.
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
    """An address without secrets: its kind, and its host unless that is a token."""
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
    """Remove logins in URLs, and the values of variables whose names suggest a secret."""
    secrets = {value for name, value in environment.items() if _SECRET_NAMES.search(name)}
    for address in environment.get(ADDRESSES_VARIABLE, "").split():
        secrets.update(_secrets_in(address))
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _LOGIN.sub(f"://{_HIDDEN}@", text)


def run_failed(exception: BaseException) -> None:
    """Failure hook for pipelines started by an orchestrator: reports step and reason."""
    _notify_from_step("failed", str(exception) or type(exception).__name__, "failure")


def run_succeeded() -> None:
    """Success hook for the last step of a pipeline started by an orchestrator."""
    _notify_from_step("succeeded", "", "success")


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
        logger.warning("%s; using always", error)
        return AlertSettings.of({**environment, OCCASIONS_VARIABLE: "always"})


def _not_from_alert(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(_THREAD)


class _Reasons(logging.Handler):
    """Collects Apprise's warnings by thread: it reports the reason of a failure only in its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.of_thread: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.of_thread[threading.get_ident()] = one_line(record.getMessage())


_reasons = _Reasons()


def _service(address: str) -> "NotifyBase | None":
    from apprise import Apprise, AppriseAsset, PersistentStoreMode

    log = logging.getLogger("apprise")
    log.propagate = False  # or it would write addresses to the run's log
    log.addHandler(_reasons)  # adding it again has no effect
    logging.getLogger("urllib3.connectionpool").addFilter(_not_from_alert)
    # No Apprise logo, and no files in the user's folders.
    asset = AppriseAsset(app_id="image-finder", image_url_mask=None, storage_mode=PersistentStoreMode.MEMORY)
    return Apprise.instantiate(address, asset=asset)


def _send(alert: Alert, address: str) -> str:
    """Return why the alert was not delivered, or "".

    Calls the service directly: Apprise.notify() uses a thread pool that delays the end of the process.
    """
    from apprise import NotifyFormat, NotifyType

    try:
        service = _service(address)
        if service is None:
            return "Apprise does not support this address"
        kind = NotifyType(alert.kind)
        sent = service.notify(alert.text or alert.title, alert.title, kind, body_format=NotifyFormat.TEXT)
    except Exception as error:  # noqa: BLE001 - plugins raise anything; the text may contain the address
        return type(error).__name__
    return "" if sent else _reasons.of_thread.get(threading.get_ident(), "refused")


def _secrets_in(address: str) -> set[str]:
    """The address and its secret parts: password, path, tokens, and the host of unknown kinds.

    Parts that look like words are not secret: an alert may mention the name of its channel.
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
