"""The command lines of push and pull: read and checked before PyTorch is loaded."""

import argparse

from .errors import CommandParser, ZooError
from .files import user_path
from .plugins import add_plugin_option

ORGANISATION = "snn-zoo"
"""Where the zoo's own checkpoints are published, each as ORGANISATION/architecture.tag."""


def parse_hub(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        prog="python -m zoo.hub",
        description="Publish trained networks on a Hugging Face Hub, and get them back.",
        epilog="HF_TOKEN or `hf auth login` gives the token, HF_ENDPOINT another Hub than the public one.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="push|pull")
    sub = commands.add_parser("push", help="publish a run directory", description="Publish a run as one commit.")
    sub.add_argument("run", metavar="RUN_DIR", help="a finished run of recipes.train")
    sub.add_argument("--repo", metavar="ORG/NAME", help=f"default: {ORGANISATION}/architecture.tag")
    sub.add_argument("--private", action="store_true", help="in a private repository")
    sub.add_argument("--license", metavar="ID", help="what the model card says (by default config.json's, or none)")
    sub.add_argument("--onnx", metavar="FILE", nargs="+", action="extend", default=[], help="files of python -m export")
    results = "of python -m recipes.validate, export.bench_ort"
    sub.add_argument("--result", metavar="FILE", nargs="+", action="extend", default=[], help=results)
    sub.add_argument("--dry-run", action="store_true", help="show what would be published, and send nothing")
    sub = commands.add_parser("pull", help="get a published checkpoint", description="Copy a repository's files here.")
    sub.add_argument("name", metavar="ORG/NAME[@REVISION]", help="the repository")
    sub.add_argument("--revision", help="a branch, a tag or a commit (default: main)")
    sub.add_argument("-o", dest="directory", metavar="DIR", help="a new directory (default: NAME)")
    for command in commands.choices.values():
        add_plugin_option(command)
    args = parser.parse_args(argv)
    if args.command == "push" and not user_path(args.run).is_dir():
        raise ZooError(f"no run directory {args.run}: `python -m recipes.train` makes one")
    return args
