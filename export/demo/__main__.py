"""The page as a folder, and a server for it: `python -m export.demo OUT [NETWORK ...] [--serve]`."""

import contextlib
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from zoo.errors import CommandParser, run_command

from .folder import NETWORKS, build


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="python -m export.demo", description="Make a page on which people see networks spike.")
    parser.add_argument("out", metavar="OUT", help="the folder, which any file server can serve")
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=list(NETWORKS), help="names, run directories")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare graphs with PyTorch")
    parser.add_argument("--serve", action="store_true", help="serve it to this machine until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="for --serve (default: 8000; 0: any that is free)")
    args = parser.parse_args(argv)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=args.out)
    server = ThreadingHTTPServer(("127.0.0.1", args.port), handler) if args.serve else None  # first, as it may fail
    build(args.out, args.networks, verify=args.verify)
    if server is None:
        print(f"{args.out} is ready for any file server: python -m http.server -d {args.out}")
        return
    print(f"http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    run_command(main)
