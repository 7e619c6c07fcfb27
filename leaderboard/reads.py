"""How often a test set was read on the way to a row."""

from collections import defaultdict
from collections.abc import Iterable

from recipes.lineage import known_runs

from .row import Result


class Reads:
    """Who read which test set: the weights of results on a test split, by the comparison that they belong to.

    Args:
        results: as on the board. The runs that come with the code count, too: those of earlier stages may have no
            place there.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self._weights: dict[tuple[str, str], set[str]] = defaultdict(set)  # by data set and comparison
        self._stated: dict[tuple[str, str], int] = defaultdict(int)
        self._comparisons: dict[tuple[str, str], set[str]] = defaultdict(set)  # by data set and weights
        for result in (*results, *(run.result for run in known_runs().values() if run.result)):
            if result["split"] != "test":
                continue
            data, comparison, weights = (result[key] for key in ("dataset", "comparison", "weights_sha256"))
            self._weights[data, comparison].add(weights)
            self._stated[data, comparison] = max(self._stated[data, comparison], result["test_reads"] or 0)
            self._comparisons[data, weights].add(comparison)

    def count(self, dataset: str, weights: Iterable[str]) -> int:
        """The reads of that data set by the comparisons of these weights: as stated, or as many as are here where these
        are more. Of weights that were measured under two names, the comparison with more reads counts.

        Args:
            dataset: its name.
            weights: sha256 of the runs of a row and of all that they started from.
        """
        found = set()
        for sha256 in weights:
            if comparisons := sorted(self._comparisons[dataset, sha256]):
                found.add(max(comparisons, key=lambda comparison: self._reads_by(dataset, comparison)))
        return sum(self._reads_by(dataset, comparison) for comparison in found)

    def _reads_by(self, dataset: str, comparison: str) -> int:
        return max(self._stated[dataset, comparison], len(self._weights[dataset, comparison]))
