"""The body of a request, held to a size and a time."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request

LONGEST = 60.0  # seconds
PATIENCE = 2  # times the size limit, which are received of a body that is refused, so that its sender hears why


async def received(request: Request, most: int, *, kept: bool = True) -> bytes:
    """The body.

    Args:
        request: the request.
        most: bytes. A larger body is refused as soon as its header says so, or as it has arrived.
        kept: whether the body is needed. Otherwise it is received, and dropped.
    """
    too_large = HTTPException(413, f"the file is larger than {most / 1e6:g} MB, which is the limit here")
    claimed = request.headers.get("content-length", "0")
    if not claimed.isdecimal() or int(claimed) > PATIENCE * most:
        raise too_large
    try:
        size, content = await asyncio.wait_for(_received(request, most, kept), LONGEST)
    except asyncio.TimeoutError as error:
        raise HTTPException(408, f"the file did not arrive within {LONGEST:g} s") from error
    if size > most:
        raise too_large
    return content


async def _received(request: Request, most: int, kept: bool) -> tuple[int, bytes]:
    size, content = 0, bytearray()
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            content.clear()
        elif kept:
            content += chunk
        if size > PATIENCE * most:
            break
    return size, bytes(content)
