"""What was measured: result files, checked and rendered. `python -m leaderboard` writes tables, picture and page."""

from zoo.record import check as validate

from .collect import Row, load_results, rows
from .render import Pages, insert_table, render

__all__ = ["Pages", "Row", "insert_table", "load_results", "render", "rows", "validate"]
