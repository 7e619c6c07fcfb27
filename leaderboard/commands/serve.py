"""Build the page of the board and show it on this machine alone, until Ctrl-C."""

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from zoo.errors import ZooError
from zoo.plugins import add_plugin_option

from ..board import add_results_option
from .site import build


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_results_option(parser)
    parser.set_defaults(readme="none", out=None)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    add_plugin_option(parser)


def run(options: argparse.Namespace) -> None:
    """Build, then serve."""
    with server(build(options), options.port) as serving:
        print(f"http://localhost:{serving.server_port}/ (Ctrl-C ends it)", flush=True)
        serving.serve_forever()


def server(page: str, port: int) -> ThreadingHTTPServer:
    """A server of one page, that only this machine can ask.

    Raises:
        ZooError: the port is taken, or none.
    """
    content = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ZooError(f"cannot serve on port {port}: {error}; --port takes another one, 0 a free one") from error
