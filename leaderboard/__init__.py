"""What was measured: result files, checked (collect.py) and rendered (render.py); `python -m leaderboard` does it.

And the command `snn-zoo` (command.py), which stands above all others. Nothing is imported here, so that it is quick.
"""
