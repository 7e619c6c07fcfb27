"""`python -m recipes.scaling_cost`: the door to studies/scaling_cost."""

from zoo.errors import run_command

from .studies.scaling_cost.scaling_cost import main

if __name__ == "__main__":
    run_command(main)
