"""Enhance images and clips in the browser, and over HTTP.

Only this machine reaches the page, unless --host names another address. Nothing is stored: files are forgotten when
their result is sent. Programs post a file to /enhance and get the result.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = ("host", "port", "model", "max_megabytes", "max_queue", "device", "threads")
GRACE = 3  # seconds that answers may take after Ctrl-C


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", metavar="ADDRESS",
        help="address or name to listen at; 0.0.0.0 lets the whole network in, without a password",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes any that is free")
    parser.add_argument(
        "-m", "--model", type=str | None, default=None, metavar="FILE",
        help="weights, or the name of bundled ones, such as deal-u-small; the default is the bundled deal-u",
    )  # fmt: skip
    parser.add_argument(
        "--max-megabytes", type=float, default=64.0, metavar="NUMBER", help="size of the largest file that is taken"
    )
    parser.add_argument(
        "--max-queue", type=int, default=8, metavar="N",
        help="files that may wait while one is computed; others are asked to come again",
    )  # fmt: skip
    options.add_machine(parser, quiet=False)


def run(parsed: Namespace) -> int:
    if parsed.max_megabytes <= 0 or parsed.max_queue < 0:
        raise ValueError(
            "max-megabytes must be more than 0 and max-queue at least 0; "
            f"got {parsed.max_megabytes:g} and {parsed.max_queue}"
        )
    os.environ.setdefault("DEAL_KERNELS_KEEP_MB", "1024")
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        message = "the page is served by the packages starlette and uvicorn: pip install 'deal-kernels[app]'"
        raise ModuleNotFoundError(message) from error
    from deal.cli import info
    from deal.model.pretrained import bundled_weights, load
    from deal.serve.app import Limits, application
    from deal.serve.restorer import Remembering, Restorer

    options.set_threads(parsed.threads)
    with _listening(parsed.host, parsed.port) as listener:
        enhancer = Remembering(load(parsed.model), device=parsed.device)
        name = os.path.basename(parsed.model or str(bundled_weights())).removesuffix(".safetensors")
        about = {"model": name, "device": str(enhancer.device), "version": info.version()}
        limits = Limits(parsed.max_megabytes, parsed.max_queue)
        app = application(Restorer(enhancer), limits, names=("localhost", parsed.host), about=about)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", http="h11", ws="none", server_header=False, timeout_graceful_shutdown=GRACE
            )
        )  # fmt: skip
        print(f"{_address(listener)}: {name} on {enhancer.device}; Ctrl-C ends it", flush=True)
        # The server ends at either signal and raises it again. As KeyboardInterrupt, it leaves no temporary folder.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535; got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = "the port is in use: --port takes another" if error.errno == errno.EADDRINUSE else error.strerror
        raise ValueError(f"cannot listen at {host}, port {port}: {reason}") from error


def _address(listener: socket.socket) -> str:
    """The address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
