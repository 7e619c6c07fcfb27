"""A row of the board: one recipe on one data set, or one published claim."""

from dataclasses import dataclass

from recipes.lineage import Ancestor

from .store import Result


@dataclass(frozen=True)
class Graph:
    """An exported graph in ONNX Runtime: the best-known measurement of its precision and layout.

    Accuracy and spikes are those of as many images as the row's, or None: a part of a test set is never beside a whole.
    """

    precision: str  # fp32, fp16, int8, int16 (event-driven)
    layout: str  # flat, function, step, loop
    top1: float | None  # percent
    spikes_per_image: float | None
    bytes: int
    p50_ms: float | None  # batch 1, one CPU thread
    cpu: str | None  # on which p50_ms was taken, with its instruction set where that is known
    sha256: str  # of the file


@dataclass(frozen=True)
class Reproduction:
    """A published number, measured again by somebody who is neither its author nor us."""

    top1: float
    citation: str


@dataclass(frozen=True)
class Row:
    """One recipe on one data set: the mean over its seeds. None where nothing was measured."""

    dataset: str
    model: str
    tag: str  # of a published row, the method
    tier: str  # measured, checkpoint or published, see README.md
    top1: float  # percent, mean over runs; as claimed in a published row
    runs: int = 0  # seeds
    images: int | None = None  # test images
    top1_std: float | None = None  # points, sample standard deviation over runs; None for a single run
    timesteps: int | None = None
    params: int | None = None
    scaling: str | None = None  # gradient-scaling rule
    comparison: str | None = None  # the name of what its training was part of
    test_reads: int | None = None  # by its comparison, and by those of what it started from; see `rows`

    # The training, with everything that it started from.
    recipe_sha256: str | None = None  # see recipes.lineage
    recipe: Result | None = None  # its keys, where they are known
    started_from: tuple[Ancestor, ...] = ()  # nearest first
    epochs: int | None = None  # of the whole chain
    train_seconds: float | None = None  # of the whole chain; median over runs

    # What a forward pass does and costs, means per image; see leaderboard/README.md.
    spikes_per_image: float | None = None  # all spikes of all layers and time steps
    least_firing_rate: float | None = None  # of the layer of neurons that fires least, per neuron and time step
    effective_acs: float | None = None
    effective_macs: float | None = None
    dense: float | None = None
    energy_uj: float | None = None
    activation_sparsity: float | None = None
    membrane_updates: float | None = None
    footprint_bytes: float | None = None
    connection_sparsity: float | None = None
    graphs: tuple[Graph, ...] = ()  # fp32 first, flat first

    # Evidence.
    commits: tuple[str, ...] = ()
    dirty: bool = False  # measured with code that no commit holds
    evidence: tuple[tuple[str, Result], ...] = ()  # (file, content): all files of its runs, then ONNX measurements

    # Of others.
    published_top1: float | None = None  # percent; a published number for this very network, never ours
    published_spikes_per_image: float | None = None
    published_citation: str | None = None  # of a published row, of its claim
    reproductions: tuple[Reproduction, ...] = ()  # of a published row

    @property
    def name(self) -> str:
        """`<model>.<tag>`, as in the recipe, the folder and the Hub repository."""
        return f"{self.model}.{self.tag}" if self.tag else self.model

    @property
    def path(self) -> str:
        """`<dataset>/<name>`: its folder below the results, and its place in the page."""
        return f"{self.dataset}/{self.name}"

    def graph(self, precision: str = "fp32", layout: str = "flat") -> Graph | None:
        """Returns the graph of a precision and layout, None if there is none."""
        return next((g for g in self.graphs if (g.precision, g.layout) == (precision, layout)), None)

    @property
    def processor(self) -> str | None:
        """The processor on which the flat graphs were timed; several where they were timed on different ones."""
        found = [graph.cpu for graph in self.graphs if graph.layout == "flat" and graph.p50_ms is not None]
        return ", ".join(dict.fromkeys(cpu for cpu in found if cpu)) or None
