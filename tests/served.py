"""Servers for tests: the command `deal serve`, and an application in a thread of this process."""

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]


def missing(reason):
    """Skips, or fails where nothing may be missing."""
    if os.environ.get("DEAL_TEST_DATA_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def imported(name):
    """A module of the packages that the tests of the page need."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return missing(f"{name} is not there: pip install -e '.[test]'")


@contextlib.contextmanager
def command(folder, *options, end=signal.SIGTERM):
    """Runs `deal serve`, with an empty current folder and an empty one for temporary files.

    Yields the address of the page. At the end, the command gets a signal, and ends well.
    """
    for name in ("current", "temporary"):
        (folder / name).mkdir(parents=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "TMPDIR": str(folder / "temporary"), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    line = [sys.executable, "-m", "deal", "serve", "--port", "0", "-m", "deal-u-small", "--threads", "1", *options]
    with open(folder / "log", "w+") as log, subprocess.Popen(
        line, cwd=folder / "current", env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:  # fmt: skip
        try:
            said = process.stdout.readline()
            assert said.startswith("http://"), f"{said}{(folder / 'log').read_text()}"
            yield said.partition(": ")[0]
        finally:
            process.send_signal(end)
            assert process.wait(60) == 0


def written(folder):
    """The files that the command has left in its folders."""
    return [str(path) for name in ("current", "temporary") for path in (folder / name).rglob("*")]


@contextlib.contextmanager
def in_thread(app):
    """Runs an application. Yields the address of its page."""
    uvicorn = imported("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", http="h11", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(60)


def said_to(address, *sent):
    """What the server answers to these bytes on one connection, up to the end of the connection or 10 s."""
    host = urlsplit(address)
    with socket.create_connection((host.hostname, host.port), timeout=10) as connection:
        for each in sent:
            connection.sendall(each)
        found = b""
        while b"\r\n\r\n" not in found or b"}" not in found:
            chunk = connection.recv(65536)
            if not chunk:
                break
            found += chunk
        return found.decode("latin-1")
