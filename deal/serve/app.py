"""The routes: the page, `POST /enhance` and `POST /preview`, and `GET /health`."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from deal.io.out_of_memory import is_out_of_memory
from deal.io.values import UnusableImage
from deal.serve.body import received
from deal.serve.guard import Guard
from deal.serve.queue import Full, Gone, Queue
from deal.serve.request import Wanted, wanted
from deal.serve.restorer import Restorer, Result, UnknownFormat

TOLD = "Deal-Image"  # the header with what is told of an image, as JSON
METHODS = ["GET", "POST"]  # GET hears that it is the wrong one
CLOSED = 499  # the status for a client that nobody answers any more
Restore = Callable[[bytes, Wanted, threading.Event], Result]


class Limits(NamedTuple):
    """What the server accepts."""

    megabytes: float = 64  # of a file
    waiting: int = 8  # requests beside the one that is computed


def application(
    restorer: Restorer, limits: Limits | None = None, *, names: Collection[str] = ("localhost",),
    about: dict[str, Any] | None = None,
) -> Starlette:  # fmt: skip
    """The server.

    Args:
        restorer: computes the results.
        limits: what is accepted.
        names: the names of this host, beside its addresses.
        about: what `GET /health` tells of the network.
    """
    limits = limits or Limits()
    queue, most = Queue(limits.waiting), int(1e6 * limits.megabytes)

    async def health(request: Request) -> Response:
        known = {"max_bytes": most, "max_queue": limits.waiting, "requests": queue.taken}
        return JSONResponse({"status": "ok", **(about or {}), **known})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        queue.close()

    answer = functools.partial(_answer, queue, most)
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/enhance", functools.partial(answer, restorer.file), methods=METHODS),
            Route("/preview", functools.partial(answer, restorer.preview), methods=METHODS),
            Mount("/", StaticFiles(packages=[("deal.serve", "page")], html=True)),
        ],
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={HTTPException: _refusal},
        lifespan=lifespan,
    )


async def _answer(queue: Queue, most: int, restore: Restore, request: Request) -> Response:
    if request.method != "POST":
        raise HTTPException(405, "post the bytes of an image here", {"Allow": "POST"})
    try:
        settings = wanted(dict(request.query_params))
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    try:
        with queue.place():
            content = await received(request, most)
            result = await queue.run(functools.partial(restore, content, settings), request.receive())
    except Full as error:
        await received(request, most, kept=False)
        raise HTTPException(503, str(error), {"Retry-After": str(error.seconds)}) from error
    except (ClientDisconnect, Gone):
        return Response(status_code=CLOSED)
    except (ModuleNotFoundError, UnknownFormat) as error:  # a package that reads the format
        raise HTTPException(415, str(error)) from error
    except UnusableImage as error:
        raise HTTPException(422, " ".join(str(error).split())) from error
    except HTTPException:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise HTTPException(422, "the image needs more memory than there is") from error
        logging.getLogger("deal.serve").exception("%s failed", request.url.path)
        raise HTTPException(500, "the server failed at this image; its log says why") from error
    return Response(result.content, media_type=result.media_type, headers={TOLD: json.dumps(result.told)})


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return JSONResponse({"error": f"there is nothing at {request.url.path}"}, 404)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
