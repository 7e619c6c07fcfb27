"""`python -m recipes.health`: the door to studies/health."""

from zoo.errors import run_command

from .studies.health.health import main

if __name__ == "__main__":
    run_command(main)
