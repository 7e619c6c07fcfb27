"""`python -m recipes.ablate`: the door to studies/ablation."""

from zoo.errors import run_command

from .studies.ablation.ablate import main

if __name__ == "__main__":
    run_command(main)
