"""What was measured: `python -m leaderboard` measures, keeps, checks and renders it.

    measure, verify          a checkpoint becomes a record; a row is measured again
    store, rows, row         from result files to rows: one recipe each, with all that it started from
    references, comparison   what others published; networks that one recipe trained, side by side
    board                    the store, and the files that are rendered from it
    tables, charts, page     columns, Markdown and CSV; accuracy against what it costs; the page

Nothing is imported here, so that it is quick.
"""
