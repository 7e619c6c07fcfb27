"""Checkpoints on a Hugging Face Hub: `push` publishes a run, `pull` copies a repository, `python -m zoo.hub` does both.

A release is a run directory whose files all speak of the same weights, with a card made of them (release.py). What
comes from a Hub is checked file by file before it is used; a failure is one sentence that says what to do (client.py).
"""

from .client import ORGANISATION, Plan, Pulled, Pushed, plan, pull, push

__all__ = ["ORGANISATION", "Plan", "Pulled", "Pushed", "plan", "pull", "push"]
