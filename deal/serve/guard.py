"""Keeps other sites in the user's browser from using the server."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page shows images that it has in memory, which have addresses of the scheme blob.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Guard:
    """Refuses requests for hosts of other names, and what pages of other origins post.

    A site can give its own name the address of this machine, and its pages then count as being of the same origin
    (DNS rebinding). Their requests name the site as their host. A host that is an address cannot be such a site.

    Args:
        names: the names of this host, beside its addresses.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self.names = app, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            response = JSONResponse({"error": f"there is no host {host!r} here: use localhost or an address"}, 400)
            await response(scope, receive, send_guarded)
        elif scope["method"] not in ("GET", "HEAD") and _is_foreign(headers, host):
            response = JSONResponse({"error": "requests from pages of other origins are refused"}, 403)
            await response(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that the request comes from a page of another origin. Programs say nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    return "origin" in headers and urlsplit(headers["origin"]).netloc != host
