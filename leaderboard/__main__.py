"""`python -m leaderboard`: from result files to the README's table and picture, a CSV file, one HTML page."""

import argparse
import sys
from pathlib import Path

from zoo.errors import CommandParser, ZooError, run_command
from zoo.files import atomic_write, read_text
from zoo.plugins import add_plugin_option

from .collect import load_results, read_additions, rows
from .render import insert_table, render
from .scatter import without_drawings

_LARGEST_PAGE = 2**28
_HERE = Path(__file__).resolve().parent

_EXAMPLES = """\
examples:
  python -m leaderboard                             render what is in leaderboard/results
  python -m leaderboard --add runs/a/result.json    check a result file, copy it to its folder, render
  python -m leaderboard --check                     is everything rendered? (for continuous integration)
  python -m leaderboard --out board --readme none   try it without touching the checkout

Result files are written by recipes.train, recipes.validate and export.bench_ort; leaderboard/README.md tells their
keys and units. The README needs the lines <!-- leaderboard:start --> and <!-- leaderboard:end -->; what is between
them is replaced. Exit status: 0 done, 1 --check found a stale file, 2 bad input.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, see `python -m leaderboard --help`."""
    parser = CommandParser(
        prog="python -m leaderboard",
        description="Render the README table, accuracy_spikes.svg, leaderboard.csv, leaderboard.html from JSON files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "folder with <dataset>/<model>.<tag>/*.json (default: leaderboard/results of this checkout)"
    parser.add_argument("--results", metavar="DIR", type=Path, help=text)
    text = "where the CSV, HTML and SVG files go (default: leaderboard/ of this checkout)"
    parser.add_argument("--out", metavar="DIR", type=Path, default=_HERE, help=text)
    text = "Markdown file that holds the table between its markers; 'none' leaves it out (default: README.md of this "
    parser.add_argument("--readme", metavar="FILE", help=f"{text}checkout, if there is one)")
    action = parser.add_mutually_exclusive_group()
    text = "copy result files to where they belong, first"
    action.add_argument("--add", metavar="FILE", nargs="+", type=Path, default=[], help=text)
    action.add_argument("--check", action="store_true", help="write nothing; exit 1 if a rendered file is not current")
    add_plugin_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Read and check everything, render everything, then write: bad input leaves every file as it was."""
    arguments = parse(argv)
    # Git keeps no empty folder, so our own may be absent; one that the user names and that is absent is a typo.
    if arguments.results and not arguments.results.is_dir() and not arguments.add:
        raise ZooError(f"no such folder: {arguments.results}")
    folder = arguments.results or _HERE / "results"
    results = load_results(folder)
    additions = read_additions(arguments.add, folder)
    table = rows(results | {name: result for name, (result, _) in additions.items()})
    pages = render(table)
    page = arguments.out / "leaderboard.html"
    outputs = {arguments.out / "leaderboard.csv": pages.csv, page: pages.html}
    if pages.svg:
        outputs[arguments.out / "accuracy_spikes.svg"] = pages.svg
    readme = Path(arguments.readme or _HERE.parent / "README.md")
    if arguments.readme != "none" and (arguments.readme or readme.is_file()):
        outputs[readme] = insert_table(read_text(readme), pages.markdown)

    if arguments.check:
        current = {path: without_drawings(read_text(path, _LARGEST_PAGE)) for path in outputs if path.exists()}
        stale = [str(path) for path, text in outputs.items() if current.get(path) != without_drawings(text)]
        if stale:
            print(f"stale: {', '.join(stale)}; run python -m leaderboard", file=sys.stderr)
            sys.exit(1)
        return
    for name, (_, raw) in additions.items():
        print(f"added {atomic_write(folder / name, raw)}")
    for path, text in outputs.items():
        atomic_write(path, text)
    print(f"{len(table)} row{'s' if len(table) != 1 else ''} from {len(results) + len(additions)} result files: {page}")


if __name__ == "__main__":
    run_command(main)
