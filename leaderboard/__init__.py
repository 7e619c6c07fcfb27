"""What was measured: `python -m leaderboard` measures, keeps, checks and renders it.

    measure, verify        a checkpoint becomes a record; a row is measured again
    evidence               what a record must carry, and why one is refused
    collect, row           from records to rows: one recipe each, with all that it started from
    references             what others published, beside the rows
    board, log             the store, the files that are rendered from it, the dated log of what changed
    render, scatter, site  table and CSV, picture, page
    commands               a file for each command

And the command `snn-zoo` (command.py), which stands above all others. Nothing is imported here, so that it is quick.
"""
