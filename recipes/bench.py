"""`python -m recipes.bench`: the door to studies/speed."""

from zoo.errors import run_command

from .studies.speed.bench import main

if __name__ == "__main__":
    run_command(main)
