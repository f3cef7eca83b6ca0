"""What both services share: an HTTP server that says which release answers, and that ends when it breaks.

It listens on PORT of 127.0.0.1 and reads its release from TIDEGATE_RELEASE: both are set by Tidegate.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

RELEASE = os.environ.get("TIDEGATE_RELEASE", "r0")


class Answer(NamedTuple):
    """What a page answers."""

    body: str
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Server(ThreadingHTTPServer):
    """One thread for each connection."""

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """End on a mistake of ours: a fresh process is worth more than one in an unknown state."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            traceback.print_exc()
            os._exit(1)


def serve(pages: Mapping[str, Callable[[], Answer]]) -> None:
    """Answer GET for these paths, and /healthz, until SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            page = pages.get(self.path, _no_such_page)
            answer = Answer("ok\n") if self.path == "/healthz" else page()
            body = answer.body.encode()
            self.send_response(answer.status)
            named = {"Content-Type": answer.kind, "Content-Length": str(len(body)), "X-Release": RELEASE}
            for name, value in (*named.items(), *answer.headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Nothing: the router counts the requests."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
    print(f"{RELEASE} listens on port {server.server_port}", flush=True)
    server.serve_forever()


def _no_such_page() -> Answer:
    return Answer("No such page.\n", status=404)
