"""The board as one page that opens from a file: `python -m leaderboard site` writes it, `serve` shows it.

    page.py       all of it, from rows: a table of networks, a page each, plots, ablations, published results
    trade_off.py  accuracy against what it costs, with the Pareto front
    network.py    one network: where its spikes are, how it was trained, how to get and to cite it
    scaling.py    the ablations of gradient scaling
    figures.py    how charts look, and labels that cover nothing
    scripts.py    the libraries that the page carries: Vega for charts, DataTables for the table

They are an extra: `pip install -e '.[site]'` in the checkout.
"""
