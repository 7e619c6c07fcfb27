"""The names of the zoo's own architectures, of all that timm knows."""

from __future__ import annotations

OWN: set[str] = set()
"""Filled by `zoo.register_model`."""
