"""The page as a folder, and a server for it: `python -m export.demo OUT [NETWORK ...] [--serve]`."""

import argparse
import contextlib
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from zoo.errors import run_command

from ..commands import parse_demo
from .folder import build


def run(args: argparse.Namespace) -> None:
    """Builds and serves what a command line says."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=args.out)
    server = ThreadingHTTPServer(("127.0.0.1", args.port), handler) if args.serve else None  # first, as it may fail
    build(args.out, args.networks, verify=args.verify)
    if server is None:
        print(f"{args.out} is ready for any file server: python -m http.server -d {args.out}")
        return
    print(f"http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_demo(argv))


if __name__ == "__main__":
    run_command(main)
