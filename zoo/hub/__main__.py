"""`python -m zoo.hub push RUN_DIR` and `pull ORG/NAME`: a trained network to a Hugging Face Hub, and back."""

import argparse
import json

from ..commands import parse_hub
from ..errors import run_command, shown
from .client import plan, pull, push


def run(a: argparse.Namespace) -> None:
    if a.command == "push":
        given = {"license": a.license, "onnx": a.onnx, "results": a.result}
        if a.dry_run:
            planned = plan(a.run, a.repo, **given)
            print(planned.files["README.md"].decode())
            for name, data in sorted(planned.files.items()):
                print(f"{len(data):>12,}  {name}")
            where = f"{planned.repo}, {'private' if a.private else 'public, unless it is there and private'}"
            print(f"would go to {where}; license: {planned.license or 'none stated (--license ID states one)'}")
            return
        done = push(a.run, a.repo, private=a.private, **given)
        what = "commit" if done.changed else "nothing to do, all of it is there as commit"
        print(f"{done.repo}: {what} {done.commit}")
        print(f"for zoo/weights/published.json: {json.dumps(done.published)}")
    else:
        got = pull(a.name, a.directory, revision=a.revision)
        for name in got.left_out:
            print(f"left out, a pickle can run code when loaded: {shown(name)}")
        print(f"{a.name} -> {shown(got.directory)}, commit {got.commit}")


def main(argv: list[str] | None = None) -> None:
    run(parse_hub(argv))


if __name__ == "__main__":
    run_command(main)
