"""`python -m recipes.speed_table`: the door to the page of studies/speed."""

from zoo.errors import run_command

from .studies.speed.page import main

if __name__ == "__main__":
    run_command(main)
