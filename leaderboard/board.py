"""The board as files: the store of results that it is made from, and what is rendered from it."""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.files import atomic_write, read_text
from zoo.plugins import add_plugin_option

from .collect import Results, load_results, read_additions, rows
from .references import published
from .render import insert_table, render
from .scatter import without_drawings

_LARGEST_PAGE = 2**28
_HERE = Path(__file__).resolve().parent


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that says which results it reads."""
    text = "folder with <dataset>/<model>.<tag>/*.json (default: leaderboard/results of this checkout)"
    parser.add_argument("--results", metavar="DIR", type=Path, help=text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that say which board it is about."""
    add_results_option(parser)
    text = "where the rendered files go (default: leaderboard/ of this checkout)"
    parser.add_argument("--out", metavar="DIR", type=Path, default=_HERE, help=text)
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
        readme: Path | None = Path(options.readme or _HERE.parent / "README.md")
        if options.readme == "none" or not (options.readme or (readme and readme.is_file())):
            readme = None
        return cls(options.results or _HERE / "results", options.out, readme)

    def load(self) -> dict[str, dict[str, object]]:
        """Every result of the store, checked; see `load_results`."""
        return load_results(self.results)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads to write, or writes, inside the block: not another process either.

        Each file is written whole or not at all without this; but two who check against the store, then write to it,
        would not see what the other one adds.
        """
        import fcntl

        self.results.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.results, os.O_RDONLY)
        try:
            fcntl.flock(
                folder, fcntl.LOCK_EX
            )  # of the folder itself: no file is left behind, a killed process frees it
            yield
        finally:
            os.close(folder)

    def rendered(self, results: Results) -> dict[Path, str]:
        """The files that results render to, and what they hold."""
        pages = render([*rows(results), *published()])
        outputs = {self.out / "leaderboard.csv": pages.csv}
        if pages.svg:
            outputs[self.out / "accuracy_spikes.svg"] = pages.svg
        if self.readme:
            outputs[self.readme] = insert_table(read_text(self.readme), pages.markdown)
        return outputs

    def stale(self, results: Results) -> list[str]:
        """The files that are not as results render to."""
        outputs = self.rendered(results)
        current = {path: without_drawings(read_text(path, _LARGEST_PAGE)) for path in outputs if path.exists()}
        return [str(path) for path, text in outputs.items() if current.get(path) != without_drawings(text)]

    def write(self, results: Results) -> None:
        """Render results, then write every file."""
        for path, text in self.rendered(results).items():
            atomic_write(path, text)
        count = len(rows(results))
        print(f"{count} row{'s' if count != 1 else ''} from {len(results)} result files: {self.out}/leaderboard.csv")

    def add(self, files: Sequence[Path]) -> None:
        """Check files against the store, copy them into it, and render."""
        results = self.load()
        additions = read_additions(files, self.results)
        results |= {name: result for name, (result, _) in additions.items()}
        outputs = self.rendered(results)
        for name, (_, raw) in additions.items():
            print(f"added {atomic_write(self.results / name, raw)}")
        for path, text in outputs.items():
            atomic_write(path, text)
