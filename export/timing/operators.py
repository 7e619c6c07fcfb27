"""Where the time of a graph goes: ONNX Runtime's profile of it, a line for each kind of operator."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from ..session import bind, create_session
from .subjects import Graph

_WARM_UP = 3
_AROUND = {"If", "Loop", "Scan"}
"""Of files from elsewhere: their time is that of the nodes inside, which are counted themselves."""


def operators(graph: Graph, batch: int, threads: int, runs: int) -> list[dict[str, Any]]:
    """Operators as ONNX Runtime runs them, after it fused some: operator, nodes, ms (of a run), share (of all nodes).

    The profile costs time itself, above all where nodes are small: shares are to be read, not sums. On a GPU it is the
    time of the launches.
    """
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"provider": graph.provider, "optimization": graph.optimization, "threads": threads}
        session = create_session(graph.data, **how, profile=Path(folder) / "profile")
        run = bind(session, graph.outputs, graph.feeds(batch))  # one run of the warm-up
        for _ in range(_WARM_UP - 1 + runs):
            run()
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    since = starts[_WARM_UP]
    times: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= since:
            if (kind := event["args"]["op_name"]) in _AROUND:
                continue
            times[kind] += event["dur"] / 1000 / runs
            nodes[kind].add(event["name"])
    total = sum(times.values()) or 1.0
    found = sorted(times.items(), key=lambda item: -item[1])
    return [
        {"operator": kind, "nodes": len(nodes[kind]), "ms": round(ms, 6), "share": ms / total} for kind, ms in found
    ]
