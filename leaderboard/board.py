"""The board as files: the store of results that it is made from, and what is rendered from it."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import TEXT_LIMIT, atomic_write, check_writable, create_file, locked, read_bytes, read_text, user_path
from zoo.plugins import add_plugin_option
from zoo.result import read

from .comparison import comparisons_page
from .log import extended
from .references import published
from .render import insert_table, render
from .results import Result, Results, file_name, folder_of, load_results, parts
from .row import Row
from .rows import rows
from .scatter import without_drawings

LOG = "CHANGES.md"
_LARGEST_PAGE = 2**28
_HERE = Path(__file__).resolve().parent


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that says which results it reads."""
    text = "folder with <dataset>/<model>.<tag>/*.json (default: leaderboard/results of this checkout)"
    parser.add_argument("--results", metavar="DIR", type=user_path, help=text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that say which board it is about."""
    add_results_option(parser)
    text = "where the rendered files go (default: leaderboard/ of this checkout)"
    parser.add_argument("--out", metavar="DIR", type=user_path, default=_HERE, help=text)
    text = "Markdown file that holds the table between its markers; 'none' leaves it out (default: README.md of this "
    parser.add_argument("--readme", metavar="FILE", help=f"{text}checkout, if there is one)")
    add_plugin_option(parser)


@dataclass(frozen=True)
class Board:
    """Where a board's results are, and where what is rendered from them goes."""

    results: Path
    out: Path
    readme: Path | None

    @classmethod
    def of(cls, options: argparse.Namespace, *, must_exist: bool = True) -> "Board":
        """The board that `add_options` asked for.

        Raises:
            ZooError: its folder of results is named, and does not exist.
        """
        # Git keeps no empty folder, so our own may be absent; one that the user names and that is absent is a typo.
        if options.results and not options.results.is_dir() and must_exist:
            raise ZooError(f"no such folder: {options.results}")
        readme: Path | None = user_path(options.readme or _HERE.parent / "README.md")
        if options.readme == "none" or not (options.readme or (readme and readme.is_file())):
            readme = None
        return cls(options.results or _HERE / "results", options.out, readme)

    def load(self) -> dict[str, Result]:
        """Every result of the store, checked; see `load_results`."""
        return load_results(self.results)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads to write, or writes, inside the block: not another process either.

        Each file is written whole or not at all without this; but two who check against the store, then write to it,
        would not see what the other one adds.
        """
        with locked(self.results):
            yield

    def rendered(self, table: list[Row]) -> dict[Path, str]:
        """The files that rows render to, and what they hold; "" for what rows give no file of."""
        pages = render([*table, *published()])
        outputs = {self.out / "leaderboard.csv": pages.csv, self.out / "accuracy_spikes.svg": pages.svg}
        outputs[self.out / "comparisons.md"] = comparisons_page(table)
        if self.readme:
            outputs[self.readme] = insert_table(read_text(self.readme), pages.markdown)
        log = self.out / LOG
        outputs[log] = extended(read_text(log) if log.exists() else "", table, datetime.now(UTC).date())
        return outputs

    def stale(self, results: Results) -> list[str]:
        """The files that are not as results render to."""
        outputs = self.rendered(rows(results))
        current = {path: without_drawings(read_text(path, _LARGEST_PAGE)) for path in outputs if path.exists()}
        return [str(path) for path, text in outputs.items() if current.get(path, "") != without_drawings(text)]

    def write(self, results: Results) -> None:
        """Render results, then write every file."""
        table = rows(results)
        self._write(self.rendered(table), f"{_count(table, 'row')} from {_count(results, 'result file')}")

    def add(self, files: Sequence[Path]) -> None:
        """Check result files, each against the store and the others, then copy them into it, and render.

        Raises:
            ZooError: one is refused, with the reason; nothing was written then.
        """
        results, new = self.load(), {}
        for file in files:
            result, raw = read(file), read_bytes(file, TEXT_LIMIT)
            if any(result == other for other in results.values()):
                continue
            _check_whole(result, str(file))
            place = f"{folder_of(result)}/{file_name(result, raw)}"
            results[place], new[place] = result, raw
        table = rows(results)
        outputs = self.rendered(table)
        for path in (*outputs, *(self.results / place for place in new)):
            check_writable(path)
        for place, raw in new.items():
            if create_file(self.results / place, raw):
                print(f"added {self.results / place}")
        self._write(outputs, f"{_count(table, 'row')} from {_count(results, 'result file')}")

    def _write(self, outputs: dict[Path, str], said: str) -> None:
        for path, text in outputs.items():
            if text:
                atomic_write(path, text)
            else:
                path.unlink(missing_ok=True)
        print(f"{said}: {self.out}/leaderboard.csv")


def _check_whole(result: Result, origin: str) -> None:
    """Raises ZooError, with the reason, for a result that is of a part of a test set, or does not say what it is of."""
    if result.get("partial"):
        raise ZooError(f"{origin}: {result['images']} images are a part of the test set: measure without --limit")
    for place, part in {origin: result, **parts(origin, result)}.items():
        for key in ("commit", *(["data_sha256"] if part["kind"] == "accuracy" else [])):
            if not part[key]:
                raise ZooError(f"{place}: without evidence: {key} is {part[key]!r}; measure in a checkout of the zoo")


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
