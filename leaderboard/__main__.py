"""`python -m leaderboard COMMAND`: from measurements to the README's table and picture, a CSV file, a page."""

# What needs PyTorch is imported where it is used: it takes seconds, and a wrong word is answered at once.
from __future__ import annotations

import argparse
import contextlib
import functools
import glob
import inspect
import sys
import tempfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from export.commands import PRECISIONS, settings
from zoo.errors import CommandParser, ZooError, count, one_of, run_command
from zoo.files import atomic_write, check_writable, locked, user_path, write_json
from zoo.names import BUILTIN, BUNDLED, FORMS, MEASURED, check_dataset, check_source
from zoo.plugins import add_plugin_option, plugin_files

if TYPE_CHECKING:
    from .board import Board

_HERE = Path(__file__).resolve().parent
_STORE = _HERE / "results"
_EXAMPLES = """\
examples:
  python -m leaderboard measure runs/a                    accuracy, spikes, operations, latency: measured/*/*.json
  python -m leaderboard add measured/cifar10/*.json       check a record, copy it to its folder, render
  python -m leaderboard verify sresnet19_w16.t2_cifar10   measure a row again, and compare
  python -m leaderboard check                             is everything in order, and rendered?
  python -m leaderboard render                            render what is in leaderboard/results
  python -m leaderboard site                              build the page that shows all of it
  python -m leaderboard serve                             build it, and show it to this machine until Ctrl-C
  python -m leaderboard render --out board --readme none  try it without touching the checkout

python -m leaderboard COMMAND --help says more of each; leaderboard/README.md tells what a result file holds, what a
row must carry and how to submit one. Exit status: 0 done, 1 `check` found what is stale or `verify`
a number that is off, 2 bad input.
"""


def _measure(options: argparse.Namespace) -> None:
    """Measure checkpoints: accuracy, spikes, operations, energy in PyTorch, then as graphs in ONNX Runtime.

    Each gives one record, DIR/<dataset>/<name>_<weights>_<forms>.json, for `add`; a later one of the same forms takes
    its place. Data set and images are those of its training by default. Latency is of batch 1 on one thread: measure on
    a machine that does nothing else. With --ray each checkpoint is measured alone on a node, of those with most cores;
    its output is in DIR/<checkpoint>.log.
    """
    from .measure import measure, record_name, record_pattern, table
    from .store import form_of, name_of

    sources = options.sources + (sorted(folder.name for folder in BUNDLED.glob("*.*/")) if options.all else [])
    check_writable(options.out / "dataset" / "record.json")
    if options.ray:
        options.out = options.out.absolute()  # the nodes' own working directory is another
    networks = [source for source in sources if not source.endswith(".onnx")]
    records = {source: record_pattern(source, options.dataset, options.out, options.precision) for source in networks}
    for source in networks if options.resume else []:
        if before := glob.glob(records[source]):
            print(f"measured before: {before[0]}", file=sys.stderr, flush=True)
            sources.remove(source)
    if options.ray:
        _measure_on_nodes(options, records, sources)
        return
    for place, source in enumerate(sources, 1):
        print(f"[{place}/{len(sources)}] {source}", file=sys.stderr, flush=True)
        result = measure(
            source, options.dataset, options.data_dir, precisions=options.precision, limit=options.limit,
            runs=options.runs, batch_size=options.batch_size, device=options.device,
        )  # fmt: skip
        forms = [*map(form_of, result["parts"]), *(["part"] if result["partial"] else [])]  # a trial replaces no record
        name = record_name(name_of(result), result["weights_sha256"], forms)
        file = write_json(options.out / result["dataset"] / name, result)
        print(f"{table(result)}\n-> {file}", flush=True)


def _measure_on_nodes(options: argparse.Namespace, records: dict[str, str], sources: list[str]) -> None:
    from recipes.on_ray import cluster

    start = cluster(options.ray, whole_nodes=True)
    keys = ("dataset", "data_dir", "limit", "runs", "batch_size", "device", "out")
    given = {key: str(value) for key in keys if (value := vars(options)[key])}
    same = [word for key, value in given.items() for word in ("--" + key.replace("_", "-"), value)]
    same += [word for file in plugin_files() for word in ("--plugin", file)] + ["--precision", *options.precision]
    measure = [sys.executable, "-m", "leaderboard", "measure"]
    logs = {source: options.out / f"{Path(source).name}.log" for source in sources}
    kept = {source: [records[source], records[source].removesuffix(".json") + "_part.json"] for source in sources}
    tasks = {source: start([*measure, source, *same], {}, logs[source], kept[source]) for source in sources}
    failed = []
    for source, task in tqdm(tasks.items(), unit="network"):
        task.wait()
        if task.returncode:
            failed.append(source)
            tqdm.write(f"{source} failed, see {logs[source]}")
    if failed:
        raise ZooError(f"{len(failed)} of {len(sources)} measurements failed: {', '.join(failed)}")


def _add(options: argparse.Namespace) -> None:
    """Check result files, copy them to where they belong in the store, render.

    All of them or none: a file that is refused, with the reason, leaves everything as it was.
    """
    board = _board(options)
    with locked(board.results):  # two who check against the store, then write, would not see what the other one adds
        board.add(options.files)


def _verify(options: argparse.Namespace) -> None:
    """Measure a row again, and compare.

    Top-1 must be within 0.1 points, spikes, operations and energy within 0.1 %; of an int8 file 0.5 points and 1 %, of
    an int16 file 0.15 points and 0.5 %, as weights are rounded otherwise on another processor: which files are others
    is said. Exits with 1 if a number is further off. Latency is told, not judged. A row is named as on the board,
    <dataset>/<model>.<tag>, or <model>.<tag>.
    """
    from .verify import table, verify

    lines, others = verify(_board(options).load(), options)
    print("\n".join([table(lines), *others]))
    if missed := [line.number for line in lines if line.verdict == "MISS"]:
        print(f"not as on the board: {', '.join(missed)}", file=sys.stderr)
        sys.exit(1)


def _check(options: argparse.Namespace) -> None:
    """Is everything in the store in order, and everything rendered? What the tests run over the committed store.

    Writes nothing; exits with 1 and names what is stale if a rendered file is not current.
    """
    board = _board(options)
    if stale := board.stale(board.load()):
        print(f"stale: {', '.join(stale)}; run python -m leaderboard render", file=sys.stderr)
        sys.exit(1)


def _render(options: argparse.Namespace) -> None:
    """Render the README's table, two pictures, leaderboard.csv, comparisons.md, and what `list` says, from the store.

    The README needs the lines <!-- leaderboard:start --> and <!-- leaderboard:end -->; what is between them is
    replaced. Bad input leaves every file as it was. Pictures, accuracy_spikes.svg and, of event-driven files,
    latency_spikes.svg, need the extra: pip install -e '.[site]'.
    """
    board = _board(options)
    with locked(board.results):
        board.write(board.load())


def _site(options: argparse.Namespace) -> None:
    """Build the page of the board: one file that opens in a browser and needs no network.

    Tables to sort, pictures of what accuracy costs, what others published. Needs the extra: pip install -e '.[site]'.
    """
    print(atomic_write(options.out / "index.html", _page(options)))


def _serve(options: argparse.Namespace) -> None:
    """Build the page of the board, and show it to this machine until Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "index.html").write_text(_page(options), encoding="utf-8")
        handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
            print(f"http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


def _page(options: argparse.Namespace) -> str:
    from .references import published
    from .rows import rows

    table = [*rows(_board(options).load()), *published()]
    try:
        from .page import page  # its libraries are an extra
    except ModuleNotFoundError as error:
        raise ZooError(f"the page needs {error.name}: pip install -e '.[site]' in the checkout") from error
    return page(table, options.demo)


def _board(options: argparse.Namespace) -> Board:
    from .board import Board

    readme: Path | None = user_path(options.readme or _HERE.parent / "README.md")
    if options.readme == "none" or not (options.readme or (readme and readme.is_file())):
        readme = None
    checkpoints = MEASURED if options.out == _HERE else None
    return Board(options.results or _STORE, options.out, readme, checkpoints)


def _option(name: str, text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return name, {"help": text, **more}


_HOW = [
    _option("--dataset", f"{', '.join([*BUILTIN, *FORMS])} (that of the training)"),
    _option("--data-dir", "folder with torchvision's CIFAR files (SNNZOO_DATA)", metavar="DIR"),
    _option("--runs", "timed runs of a graph (50)", type=int, default=50, metavar="N"),
    _option("--batch-size", "images at a time in PyTorch (256)", type=count, default=256, metavar="N"),
    _option("--device", "of PyTorch: cuda if there", default="auto", choices=["auto", "cpu", "cuda"]),
]
_FOLDER = {"metavar": "DIR", "type": user_path}
_RESULTS = _option(
    "--results", "folder with <dataset>/<model>.<tag>/*.json (default: leaderboard/results of this checkout)", **_FOLDER
)
_DEMO = _option("--demo", "address of a page of `python -m export.demo`, which rows link to", metavar="URL")
_BOARD = [
    _RESULTS,
    _option("--out", "where the rendered files go (default: leaderboard/ of this checkout)", default=_HERE, **_FOLDER),
    _option("--readme", "Markdown file that holds the table between its markers; 'none' leaves it out (default: "
            "README.md of this checkout, if there is one)", metavar="FILE", default=None),
]  # fmt: skip
_OPTIONS = {
    _measure: [
        _option("sources", "a pretrained model's name, a run directory, hf-hub:ORG/NAME, or an .onnx file of "
                "`python -m export`", metavar="NAME|RUN|ONNX", nargs="*"),
        _option("--all", "every checkpoint that comes with the zoo", action="store_true"),
        *_HOW,
        _option("--precision", "of the graphs, fp32, fp16, int8 or int16 (fp32 int8 int16); none without", nargs="*",
                default=["fp32", "int8", "int16"], metavar="P"),
        _option("--resume", "leave out checkpoints of which DIR has a record in these forms", action="store_true"),
        _option("--limit", "only the first N test images (all): to try it, as the board takes no part of a test set",
                type=count, metavar="N"),
        _option("--out", "where records go (measured)", default=Path("measured"), **_FOLDER),
        _option("--ray", "on the nodes of a Ray cluster, 'auto' for the one that this machine is in (extra: ray)",
                metavar="ADDRESS"),
    ],
    _add: [_option("files", "result files", metavar="FILE", nargs="+", type=Path), *_BOARD],
    _verify: [
        _option("row", "of the board", metavar="ROW"),
        _option("--checkpoint", "where its weights are: a run directory or hf-hub:ORG/NAME (default: the pretrained "
                "model of its name)", metavar="RUN"),
        _option("--json", "write the new measurement here", metavar="FILE", type=Path),
        *_HOW,
        _RESULTS,
    ],
    _check: _BOARD,
    _render: _BOARD,
    _site: [_RESULTS, _DEMO, _option("--out", "the page is DIR/index.html (default: site, in the working directory)",
                              default=Path("site"), **_FOLDER)],
    _serve: [_RESULTS, _DEMO, _option("--port", "0 takes a free one (8000)", type=int, default=8000)],
}  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line, see `python -m leaderboard --help`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = CommandParser(
        prog="python -m leaderboard",
        description="Measure networks, keep the measurements, and render tables and pages from them.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, arguments in _OPTIONS.items():
        text = inspect.cleandoc(command.__doc__ or "")
        name, short = command.__name__.strip("_"), text.partition("\n")[0].rstrip(".")
        own = commands.add_parser(name, help=short, description=text, formatter_class=raw)
        own.set_defaults(run=command, out=None, readme="none")
        for argument, how in arguments:
            own.add_argument(argument, **how)
        add_plugin_option(own)
    options = parser.parse_args(argv)
    _check_words(options)
    return options


def _check_words(options: argparse.Namespace) -> None:
    """Raises ZooError for what a command cannot do, as far as names and places tell."""
    given = vars(options)
    if options.run is _measure:
        # First, as the option may have taken a name for its own.
        for precision in options.precision:
            if precision not in PRECISIONS:
                raise one_of("precision", precision, PRECISIONS)
        if len(set(options.precision)) < len(options.precision):
            raise ZooError(f"a record has one graph of each precision, not of {' '.join(options.precision)}")
        if not options.sources and not options.all:
            raise ZooError("nothing to measure: name a checkpoint, a run directory or an .onnx file, or give --all")
        if options.ray and any(source.endswith(".onnx") for source in options.sources):
            raise ZooError("--ray measures checkpoints, and no .onnx files: leave it out for these")
    if "runs" in given:
        settings(runs=options.runs)
    if not 0 <= given.get("port", 0) < 2**16:
        raise ZooError(f"--port must be from 0 to 65535, not {options.port}")
    if given.get("results") and options.run is not _add and not options.results.is_dir():
        raise ZooError(f"no such folder: {options.results}")
    if "results" in given and not _STORE.is_dir():
        here = {"--results": not options.results, "--out": options.out == _HERE}
        if missing := [option for option, is_here in here.items() if is_here]:
            raise ZooError(f"the board is part of a checkout, not of an installation: give {' and '.join(missing)}")
    sources = [*given.get("sources", []), *filter(None, [given.get("checkpoint")])]
    if (given.get("checkpoint") or "").endswith(".onnx"):
        raise ZooError(f"a row is measured again from its weights, and {options.checkpoint} is a graph: see --help")
    graphs = [source for source in sources if source.endswith(".onnx")]
    for file in [*given.get("files", []), *graphs]:
        if not user_path(file).is_file():
            raise ZooError(f"no such file: {file}")
    for source in sources:
        if source not in graphs:
            check_source(source)
    if given.get("dataset"):
        check_dataset(options.dataset, options.data_dir)
    if options.run is _verify:
        known = sorted(f"{place.parent.name}/{place.name}" for place in (options.results or _STORE).glob("*/*"))
        if not [path for path in known if options.row in (path, path.partition("/")[2])]:
            raise one_of("row", options.row, known)


def run(options: argparse.Namespace) -> None:
    """Does what a command line says."""
    options.run(options)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse(argv))


if __name__ == "__main__":
    run_command(main)
