"""Errors: every failure becomes a status and a problem document (RFC 9457, application/problem+json)."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from image_finder.components.app.api.response_models import FieldError, Problem
from image_finder.components.app.api.settings import REFERENCE
from image_finder.components.configs import fault_message
from image_finder.components.errors import FinderError, ImageError, QueryError
from image_finder.components.text import shortened

logger = logging.getLogger(__name__)
PROBLEM_JSON = "application/problem+json"
# Every code of an error, and its title.
TITLES = {
    "bad_http": "The bytes are not an HTTP request",
    "bad_query": "The query cannot be answered",
    "bad_request": "The request does not match its description",
    "busy": "The server is busy",
    "client_gone": "The client disconnected",
    "cross_origin": "Cross-origin request refused",
    "gone": "The image file is missing or has changed",
    "internal": "Internal error",
    "method_not_allowed": "The address does not accept this method",
    "not_an_image": "The upload is not a readable image",
    "not_found": "No such image or address",
    "not_ready": "No images are indexed yet",
    "refused": "Request refused",
    "too_large": "The body or image is too large",
    "too_many_attempts": "Too many wrong tokens",
    "too_slow": "The body arrived too slowly",
    "unauthorized": "An access token is required",
    "unknown_host": "Unknown Host header",
    "unsupported_media_type": "Unsupported type of body",
}
_OF_STATUS = {
    404: ("not_found", "no such address; the API reference (docs) lists all of them"),
    405: ("method_not_allowed", "the header Allow lists the methods of this address"),
}
_CLIENT_GONE = 499  # for log and metrics only
_MOST_ERRORS = 20  # of fields in one answer
_SHOWN_CHARACTERS = 100  # of a location, which may be a key of the client


class Fault(Exception):  # noqa: N818 - an answer, not a failure of the program
    """An error answer. headers: added to the answer, e.g. Retry-After. errors: of single fields."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        """code: one of TITLES. message: shown to users; must not contain paths of the server."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.errors = list(errors)


def problem_of(scope: Scope, fault: Fault) -> dict[str, Any]:
    """The problem document of a fault. scope: of the request, for its id and the path prefix of the server."""
    prefix = scope.get("app_root_path", scope.get("root_path", ""))
    problem = Problem(
        type=f"{prefix}{REFERENCE}#{fault.code}",
        title=TITLES[fault.code],
        status=fault.status,
        detail=fault.message,
        code=fault.code,
        request_id=scope.get("state", {}).get("request_id", ""),
        errors=fault.errors,
    )
    return problem.model_dump(exclude=None if fault.errors else {"errors"})


def fault_response(scope: Scope, fault: Fault) -> Response:
    return JSONResponse(problem_of(scope, fault), fault.status, headers=fault.headers, media_type=PROBLEM_JSON)


def fault_of(error: Exception) -> Fault:
    """The fault for an exception; unexpected ones become a 500 without details."""
    match error:
        case Fault():
            return error
        case ImageError():  # of an upload; indexed images are handled where they are opened
            return Fault(415, "not_an_image", str(error))
        case QueryError():
            return Fault(400, "bad_query", str(error))
        case RequestValidationError():
            return invalid(error)
        case HTTPException():
            code, message = _OF_STATUS.get(error.status_code, ("refused", str(error.detail)))
            return Fault(error.status_code, code, message, headers=error.headers)
        case ClientDisconnect():
            return Fault(_CLIENT_GONE, "client_gone", "the client disconnected")
    return Fault(500, "internal", "internal error; see the server log")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def add_fault_handlers(app: FastAPI) -> None:
    """Convert every exception of a route to an error answer; log tracebacks of unexpected ones."""

    async def answer(request: Request, error: Exception) -> Response:
        fault = fault_of(error)
        if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("unexpected %s", type(error).__name__, exc_info=error)
        return fault_response(request.scope, fault)

    for kind in (Fault, FinderError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, answer)


def invalid(error: RequestValidationError | ValidationError) -> Fault:
    """Fault 422 that names each invalid parameter, or each invalid value of a body if error is a ValidationError."""
    in_body = isinstance(error, ValidationError)
    faults = error.errors()
    found = [FieldError(location=_location(each["loc"], in_body), message=fault_message(each)) for each in faults]
    where = ".".join(map(str, faults[0]["loc"] if in_body else faults[0]["loc"][1:])) or "request"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    message = f"{shortened(where, _SHOWN_CHARACTERS)}: {found[0].message}{more}"
    return Fault(422, "bad_request", message, errors=found[:_MOST_ERRORS])


def _location(parts: Sequence[int | str], in_body: bool) -> str:
    if in_body:
        path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
    else:
        path = ".".join(map(str, parts))
    return shortened(path, _SHOWN_CHARACTERS)
