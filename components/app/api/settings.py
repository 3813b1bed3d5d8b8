"""Settings of the HTTP API: address, token, limits; every number a person may have to change stands here."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from image_finder.components.configs import Config

PREFIX = "/api/v1"
_SHORTEST_TOKEN = 16


class Settings(Config):
    """Frozen settings of one server. Build with Settings.parse, whose ConfigError is fit to be shown."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="0: any free one")
    token: SecretStr | None = Field(None, description="bearer token that every request must carry; None: none needed")
    allowed_hosts: tuple[str, ...] = Field((), description="names in the Host header that are answered, besides host")
    show_paths: bool = Field(False, description="hits carry the path of their file on this machine")
    thumbnails_path: Path | None = Field(None, description="folder that keeps small images; None: made anew each time")

    max_upload_bytes: int = Field(20_000_000, ge=1, description="largest request body")
    max_uploads_bytes: int = Field(
        256_000_000, ge=1, description="uploads in memory at a time, all together, in bytes; more are refused"
    )
    max_upload_pixels: int = Field(50_000_000, ge=1, description="largest width x height of an uploaded image")
    max_original_bytes: int = Field(200_000_000, ge=1, description="largest file of which small images are made")

    searches: int = Field(1, ge=1, le=64, description="passes over the index at a time; one answers all that wait")
    batch: int = Field(32, ge=1, le=1024, description="most searches that one pass answers")
    images: int = Field(2, ge=1, le=64, description="images decoded or encoded at a time")
    waiting: int = Field(
        256, ge=0, le=100_000, description="requests that may wait for each of these; more are refused"
    )
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest wait for an answer")
    upload_timeout_s: float = Field(30.0, gt=0, le=600, description="longest time a request body may take")
    upload_grace_s: float = Field(5.0, gt=0, le=600, description="time in which a request body may arrive at any rate")
    min_upload_bytes_per_s: int = Field(
        16_000, ge=1, description="rate at which a request body must arrive on average, once upload_grace_s are over"
    )
    max_connections: int = Field(1000, ge=1, description="open connections; more are refused")
    refresh_s: float = Field(0.5, gt=0, le=3600, description="how often a newer index is looked for")
    token_attempts: int = Field(10, ge=1, description="wrong tokens that one address may send at once")
    token_attempt_s: float = Field(
        6.0, gt=0, le=3600, description="time after which one address may send one more wrong token"
    )
    session_s: int = Field(12 * 3600, ge=60, description="life of a browser's session")
    log_queries: bool = Field(False, description="write what people search for into the log")

    @model_validator(mode="after")
    def _one_upload_fits(self) -> Self:
        if self.max_upload_bytes > self.max_uploads_bytes:
            raise ValueError(
                f"max_upload_bytes ({self.max_upload_bytes}) must not be above max_uploads_bytes ({self.max_uploads_bytes})"
            )
        return self

    @model_validator(mode="after")
    def _others_need_a_token(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"host ({self.host}) can be reached from other machines, so a token is needed: give --token-file FILE "
                "or IMAGE_FINDER_TOKEN, e.g. made by 'openssl rand -hex 24'"
            )
        if self.token is not None and len(self.token.get_secret_value()) < _SHORTEST_TOKEN:
            raise ValueError(f"token has fewer than {_SHORTEST_TOKEN} characters; make one by 'openssl rand -hex 24'")
        if self.token is not None and not self.token.get_secret_value().isascii():
            raise ValueError("token has characters beyond ASCII, which no HTTP header can carry")
        return self


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
