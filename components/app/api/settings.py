"""Server settings: address, token and limits."""

import ipaddress
import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from image_finder.components.configs import Config, first_fault
from image_finder.components.errors import ConfigError

PREFIX = "/api/v1"
REFERENCE = "/docs"  # path of the API reference
_SHORTEST_TOKEN = 16
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class Settings(Config):
    """Settings of one server. Build them with Settings.parse."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    token: SecretStr | None = Field(None, description="bearer token that requests must carry; None: no token")
    folder_key: SecretStr | None = Field(
        None, description="key that requests to add a folder must carry; None: none can be added"
    )
    allowed_hosts: tuple[str, ...] = Field((), description="Host headers to accept, in addition to host")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path below which a reverse proxy serves this server, for example /images",
    )
    cors_origins: tuple[str, ...] = Field((), description="origins whose pages may call the API from a browser")
    show_paths: bool = Field(False, description="include file paths in answers")
    library_path: Path | None = Field(None, description="library whose updates are reported; None: of an index alone")
    thumbnails_path: Path | None = Field(None, description="cache folder for thumbnails; None: no cache")

    max_upload_bytes: int = Field(20_000_000, ge=1, description="largest request body, bytes")
    max_uploads_bytes: int = Field(
        256_000_000, ge=1, description="all uploads in memory together, bytes; more are refused"
    )
    max_upload_pixels: int = Field(50_000_000, ge=1, description="largest width x height of an uploaded image")
    max_original_bytes: int = Field(200_000_000, ge=1, description="largest image file that is decoded, bytes")

    searches: int = Field(1, ge=1, le=64, description="simultaneous passes over the index")
    batch: int = Field(32, ge=1, le=1024, description="most searches per pass")
    images: int = Field(2, ge=1, le=64, description="images decoded or encoded simultaneously")
    waiting: int = Field(256, ge=0, le=100_000, description="queued requests for each of these; more are refused")
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest time to an answer")
    upload_timeout_s: float = Field(30.0, gt=0, le=600, description="longest time for a request body to arrive")
    upload_grace_s: float = Field(5.0, gt=0, le=600, description="time before min_upload_bytes_per_s applies")
    min_upload_bytes_per_s: int = Field(
        16_000, ge=1, description="lowest average rate of a request body after upload_grace_s"
    )
    max_connections: int = Field(1000, ge=1, description="open connections; more are refused")
    refresh_s: float = Field(0.5, gt=0, le=3600, description="interval of checks for a new index")
    token_attempts: int = Field(10, ge=1, description="wrong tokens allowed per address in a burst")
    token_attempt_s: float = Field(6.0, gt=0, le=3600, description="time per further wrong token of an address")
    session_s: int = Field(12 * 3600, ge=60, description="duration of a browser's session")
    log_queries: bool = Field(False, description="write search texts to the log")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values. Raises ConfigError, which names options, not this class."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(first_fault(error)) from error

    @model_validator(mode="after")
    def _one_upload_fits(self) -> Self:
        if self.max_upload_bytes > self.max_uploads_bytes:
            raise ValueError(
                f"max_upload_bytes ({self.max_upload_bytes}) must not be above max_uploads_bytes ({self.max_uploads_bytes})"
            )
        return self

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"--cors-origin {origin} is not an origin; give scheme, host and port as browsers send them, e.g. "
                    "https://app.example.org or http://localhost:3000"
                )
        return origins

    @model_validator(mode="after")
    def _folders_are_added_locally(self) -> Self:
        if self.folder_key is not None and (self.library_path is None or not is_loopback(self.host)):
            raise ValueError("folder_key needs a library and an address of this machine only")
        return self

    @model_validator(mode="after")
    def _others_need_a_token(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"--host {self.host} is reachable from other machines, so a token is required: use --token-file FILE "
                "or IMAGE_FINDER_TOKEN (create one with: openssl rand -hex 24)"
            )
        if self.token is not None and len(self.token.get_secret_value()) < _SHORTEST_TOKEN:
            raise ValueError(
                f"token is shorter than {_SHORTEST_TOKEN} characters; create one with: openssl rand -hex 24"
            )
        if self.token is not None and not self.token.get_secret_value().isascii():
            raise ValueError("token must be ASCII, as HTTP headers are")
        return self


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
