"""Publish a trained network on a Hugging Face Hub, and get it back.

    python -m zoo.hub push RUN_DIR --repo ORG/NAME [--private] [--license ID] [--onnx FILE ...] [--result FILE ...]
    python -m zoo.hub pull ORG/NAME[@REVISION] [-o DIR]

Which Hub and which token are huggingface_hub's affair: HF_ENDPOINT, HF_TOKEN, `hf auth login`.
"""

import json

from ..errors import CommandParser, run_command, shown
from ..plugins import add_plugin_option
from .client import ORGANISATION, pull, push
from .release import LICENSE


def main(argv: list[str] | None = None) -> None:
    """The command line."""
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
    sub.add_argument("--license", metavar="ID", help=f"what the model card says (config.json's, or {LICENSE})")
    sub.add_argument("--onnx", metavar="FILE", nargs="+", default=[], help="files of python -m export")
    results = "of python -m recipes.validate, export.bench_ort"
    sub.add_argument("--result", metavar="FILE", nargs="+", default=[], help=results)
    sub = commands.add_parser("pull", help="get a published checkpoint", description="Copy a repository's files here.")
    sub.add_argument("name", metavar="ORG/NAME[@REVISION]", help="the repository")
    sub.add_argument("--revision", help="a branch, a tag or a commit (default: main)")
    sub.add_argument("-o", dest="directory", metavar="DIR", help="a new directory (default: NAME)")
    for command in commands.choices.values():
        add_plugin_option(command)
    a = parser.parse_args(argv)
    if a.command == "push":
        done = push(a.run, a.repo, private=a.private, license=a.license, onnx=a.onnx, results=a.result)
        what = "commit" if done.changed else "nothing to do, all of it is there as commit"
        print(f"{done.repo}: {what} {done.commit}")
        print(f"for zoo/weights/published.json: {json.dumps(done.published)}")
    else:
        got = pull(a.name, a.directory, revision=a.revision)
        for name in got.left_out:
            print(f"left out, a pickle can run code when loaded: {shown(name)}")
        print(f"{a.name} -> {shown(got.directory)}, commit {got.commit}")


if __name__ == "__main__":
    run_command(main)
