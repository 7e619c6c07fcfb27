"""Who imports whom: no circle of modules, arrows that point one way, and a zoo of few files at its root."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import ROOT

# A package, and the others that it may look at. Export takes of recipes how peers are built and processes start.
ALLOWED = {
    "zoo": set(),
    "recipes": {"zoo"},
    "export": {"zoo", "recipes"},
    "leaderboard": {"zoo", "recipes", "export"},
}


def modules(root: Path) -> dict[str, Path]:
    """Every module of our packages, by its dotted name."""
    files = [file.relative_to(root) for package in ALLOWED for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): root / file for file in files}


def imports(root: Path) -> dict[str, set[str]]:
    """The modules of ours that each imports by name, at its top or inside a function.

    A package counts as what its __init__ imports. Python runs that __init__ before a submodule, too, but a submodule
    that finds its package half made is not a circle that a reader meets.
    """
    known, found = modules(root), {}
    for name, file in known.items():
        package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                names = (f"{base}.{alias.name}" for alias in node.names)
                targets = [name if name in known else base for name in names]  # a module, or a name inside one
            else:
                continue
            found[name] |= known.keys() & set(targets)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One way round each circle that a search from every module comes upon."""
    found, done = [], set()

    def follow(path: list[str]) -> None:
        for module in sorted(graph[path[-1]]):
            if module in path:
                found.append([*path[path.index(module) :], module])
            elif module not in done:
                follow([*path, module])
        done.add(path[-1])

    for module in graph:
        if module not in done:
            follow([module])
    return found


def test_no_circle_of_imports():
    assert circles(imports(ROOT)) == []


def test_arrows_point_one_way():
    graph = imports(ROOT)
    assert "zoo.errors" in graph["leaderboard.__main__"]
    against = [
        (module, other)
        for module, others in graph.items()
        for other in sorted(others)
        if other.split(".")[0] not in ALLOWED[module.split(".")[0]] | {module.split(".")[0]}
    ]
    assert against == []


def test_the_root_of_the_zoo_is_small():
    files = [path.name for path in (ROOT / "zoo").iterdir() if path.is_file()]
    assert len(files) <= 18, sorted(files)
