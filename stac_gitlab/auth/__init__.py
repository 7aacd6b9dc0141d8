"""Origins, and the secrets that are sent to them."""

from stac_gitlab.auth.credentials import (
    HARMLESS_HEADERS,
    TOKEN_VARIABLES,
    URL_VARIABLE,
    Credentials,
)
from stac_gitlab.auth.origins import (
    DEFAULT_PORTS,
    Origin,
    is_signed,
    parse_host,
    parse_hosts,
    path_of_server,
    request_url,
)
from stac_gitlab.auth.tokens import Token, TokenSource, hide_token, hide_tokens

__all__ = [
    "DEFAULT_PORTS",
    "HARMLESS_HEADERS",
    "TOKEN_VARIABLES",
    "URL_VARIABLE",
    "Credentials",
    "Origin",
    "Token",
    "TokenSource",
    "hide_token",
    "hide_tokens",
    "is_signed",
    "parse_host",
    "parse_hosts",
    "path_of_server",
    "request_url",
]
