"""A training that does not come to its end: `killed_at.py STEP HOW RECIPE [--key value ...]`.

HOW is `exit`, the machine takes the processes away in the middle of a step; or a signal, that only the last one gets.
"""

import os
import signal
import sys

from recipes.train import Trainer, main

check, last, how = Trainer._check_finite, int(sys.argv[1]), sys.argv[2]


def check_or_die(trainer, loss=None, **how_far):
    if loss is not None and trainer.state.step == last:
        if how == "exit":
            os._exit(9)
        if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
            os.kill(os.getpid(), getattr(signal, how))
    check(trainer, loss, **how_far)


Trainer._check_finite = check_or_die
main(sys.argv[3:])
