"""Security: access token, allowed hosts and origins, and security headers."""

import hashlib
import hmac
import math
import re
import time
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image_finder.components.app.api.error_responses import Fault, fault_response
from image_finder.components.app.api.path_prefix import path_below
from image_finder.components.app.api.settings import REFERENCE, Settings, is_loopback
from image_finder.components.app.api.token_attempts import Attempts
from image_finder.components.text import counted

COOKIE = "image_finder_session"
# These reveal nothing about the images.
_OPEN_PATHS = {"/", "/favicon.ico", "/openapi.json", REFERENCE, "/health/live", "/health/ready"}
_OPEN_FOLDER = "/static/"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class SafeHeaders:
    """Middleware that adds security headers; outermost, so that errors have them, too."""

    def __init__(self, app: ASGIApp, *, varies: bool = False) -> None:
        """varies: whether answers depend on the origin, which caches must know."""
        self._app = app
        self._varies = varies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self._varies and "vary" not in headers:
                    headers["Vary"] = "Origin"
            await send(message)

        await self._app(scope, receive, send_with_headers)


class CrossOrigin(CORSMiddleware):
    """Middleware that lets pages of some origins call the API; others are treated as without it.

    Cookies are never accepted from them (no Access-Control-Allow-Credentials): they send the token. Preflight requests carry no
    token, so this comes before Security.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        super().__init__(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type", "If-None-Match", "X-Request-ID"),
            expose_headers=("Content-Disposition", "ETag", "Retry-After", "X-Peak-Contribution", "X-Request-ID"),
            allow_private_network=True,  # a public page that calls a server on this machine
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_allowed = scope["type"] == "http" and self.is_allowed_origin(Headers(scope=scope).get("origin", ""))
        await (super().__call__ if is_allowed else self.app)(scope, receive, send)


class Security:
    """Middleware that checks Host header, origin and token."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        self._hosts = _allowed_hosts(settings)
        self._origins = set(settings.cors_origins)
        self._attempts = Attempts(burst=settings.token_attempts, interval_s=settings.token_attempt_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except Fault as fault:
                await fault_response(scope, fault)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises Fault 400 (unknown host: DNS rebinding), 403 (cross-origin), 401, 429 (token)."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise Fault(400, "unknown_host", "unknown Host header; allow it with --allow-host")
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.partition("://")[2] != host and origin not in self._origins
        if is_foreign and scope["method"] not in _SAFE_METHODS:
            raise Fault(403, "cross_origin", "cross-origin request refused")
        path = path_below(scope)
        if self._token is None or path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        address = scope["client"][0] if scope.get("client") else ""
        if _has_session(headers, self._token):
            self._attempts.note_success(address)
        else:
            self._require_token(headers, self._token, address)

    def _require_token(self, headers: Headers, token: str, address: str) -> None:
        """Raises Fault 401 without the right token, 429 after too many wrong ones."""
        refused_for_s = self._attempts.refused_for_s(address)
        if _bears(headers, token) and (not refused_for_s or self._attempts.is_trusted(address)):
            self._attempts.note_success(address)
            return
        if "authorization" not in headers:  # the page before sign-in or after its session ended
            raise _unauthorized()
        if refused_for_s:
            seconds = math.ceil(refused_for_s)
            message = f"too many wrong tokens from this address; retry in {counted(seconds, 'second')}"
            raise Fault(429, "too_many_attempts", message, headers={"Retry-After": str(seconds)})
        self._attempts.note_failure(address)
        raise _unauthorized()


def _unauthorized() -> Fault:
    challenge = {"WWW-Authenticate": 'Bearer realm="image-finder"'}
    return Fault(401, "unauthorized", "this server requires an access token", headers=challenge)


def session_value(token: str, *, expires: int) -> str:
    """Value of the session cookie: expiry (seconds since 1970), signed with the token."""
    return f"{expires}.{_signature(token, expires)}"


def _has_session(headers: Headers, token: str) -> bool:
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return False
    value = cookies[COOKIE].value if COOKIE in cookies else ""
    expires, _, signature = value.partition(".")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12 and signature.isascii()):
        return False
    return hmac.compare_digest(signature, _signature(token, int(expires))) and time.time() < int(expires)


def _bears(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _signature(token: str, expires: int) -> str:
    return hmac.new(token.encode(), f"image-finder session {expires}".encode(), hashlib.sha256).hexdigest()


def _allowed_hosts(settings: Settings) -> set[str] | None:
    """Allowed Host headers; None: any, as a DNS-rebinding page does not have the token."""
    named = {name.lower() for name in settings.allowed_hosts}
    if not named and not is_loopback(settings.host):
        return None
    return {*_LOOPBACK_NAMES, settings.host.strip("[]"), *named}


def _name(host: str) -> str:
    found = _HOST.fullmatch(host)
    return found["name"].strip("[]").lower() if found else ""
