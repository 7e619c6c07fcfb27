"""A run that is told to stop ends with a whole step and a training state, not in the middle of one."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from torch import Tensor

from .late import Late
from .outlived import StandardError
from .processes import wait_for_all

# Ctrl-C; what `kill`, batch systems and container engines send first; a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Notes the first of these signals while it is entered; a second one acts at once, as it would without this.

    Of several processes the one that is told tells the others, and all stop after the same step. A second signal does
    nothing there: torchrun kills what has not ended in 30 seconds.

    Args:
        rank, world: which of how many processes this is. A signal that is ignored, as by nohup or a shell script's
            background jobs, stays so.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.noted: signal.Signals | None = None
        self._rank, self._alone = rank, world == 1
        self._told: Late | None = None
        self._heard = False
        ours = threading.current_thread() is threading.main_thread()  # only there Python lets us
        self._signals = [number for number in _SIGNALS if ours and signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is not None:
            return
        self.noted = signal.Signals(number)
        text = f"\n{self.noted.name}: this step is finished and saved first"
        if self._alone:
            self.__exit__()
            text += "; once more stops at once"
        if self._rank == 0:
            with contextlib.suppress(OSError):  # of a terminal that is gone
                os.write(2, f"{text}\n".encode())  # print may be what was interrupted

    def hear(self, told: Tensor) -> None:
        """Learn in each step whether another process was told to stop.

        Args:
            told: over all processes, the mean of 1 for those that have `noted` a signal, and 0; the same in all of
                them. It counts a step later: so nobody waits for a GPU.
        """
        if not self._alone:
            self._heard = self._told is not None and self._told.item() > 0
            self._told = Late(told)

    @property
    def stops(self) -> bool:
        """Whether the run is to end as soon as its state is saved; the same in all processes."""
        return self.noted is not None if self._alone else self._heard

    def obey(self, step: int) -> None:
        """End the run, if it was told to; call it in all processes when the state of `step` is saved.

        Raises:
            SystemExit: with the status of a process that the signal ended.
        """
        if not self.stops:
            return
        wait_for_all()  # when the first one ends, torchrun ends the others, and one of them is saving
        if self._rank == 0:
            print(f"stopped after step {step}; --resume goes on from there", file=StandardError())
        raise SystemExit(128 + (self.noted or signal.SIGTERM))
