"""Errors: a failure becomes a status and {"error": {"code", "message", "request_id"}}."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from image_finder.components.app.api.response_models import ErrorAnswer
from image_finder.components.configs import fault_message
from image_finder.components.errors import FinderError, ImageError, QueryError

logger = logging.getLogger(__name__)
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "not_an_image"}
_CLIENT_GONE = 499  # for log and metrics only


class Fault(Exception):  # noqa: N818 - an answer, not a failure of the program
    """An error answer. headers: added to the answer, e.g. Retry-After."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        """message: shown to users; must not contain paths of the server."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def fault_response(scope: Scope, fault: Fault) -> Response:
    request_id = scope.get("state", {}).get("request_id", "")
    content = {"error": {"code": fault.code, "message": fault.message, "request_id": request_id}}
    return JSONResponse(content, fault.status, headers=fault.headers)


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
            return Fault(422, "bad_request", first_fault_of(error))
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            return Fault(error.status_code, code, str(error.detail), headers=error.headers)
        case ClientDisconnect():
            return Fault(_CLIENT_GONE, "client_gone", "the client disconnected")
    return Fault(500, "internal", "internal error; see the server log")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


def add_fault_handlers(app: FastAPI) -> None:
    """Convert every exception of a route to an error answer; log tracebacks of unexpected ones."""

    async def answer(request: Request, error: Exception) -> Response:
        fault = fault_of(error)
        if fault.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("unexpected %s", type(error).__name__, exc_info=error)
        return fault_response(request.scope, fault)

    for kind in (Fault, FinderError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, answer)


def first_fault_of(error: RequestValidationError | ValidationError) -> str:
    faults = error.errors()
    where = ".".join(str(part) for part in faults[0]["loc"] if part not in ("query", "body", "path")) or "request"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {fault_message(faults[0])}{more}"
