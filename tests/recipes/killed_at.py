"""A training that does not come to its end: `killed_at.py STEP HOW RECIPE [--key value ...]`.

HOW is `exit`, the machine takes the processes away in the middle of a step; or a signal, that only the last one gets.
"""

import os
import signal
import sys

from recipes.guard import FiniteGuard
from recipes.train import main

watch, last, how = FiniteGuard.watch, int(sys.argv[1]), sys.argv[2]


def watch_or_die(guard, step, *args):
    if step == last and how == "exit":
        os._exit(9)
    if step == last and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        os.kill(os.getpid(), getattr(signal, how))
    watch(guard, step, *args)


FiniteGuard.watch = watch_or_die
main(sys.argv[3:])
