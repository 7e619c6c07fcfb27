"""The pages of all studies: `python -m recipes.studies --check`, or `--render`."""

from zoo.errors import CommandParser, run_command

from .ablation.page import render_plans
from .health import health
from .scaling_cost import scaling_cost
from .speed import page


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(prog="python -m recipes.studies", description="The pages of all studies.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--render", action="store_true", help="write every page anew from its result files")
    action.add_argument("--check", action="store_true", help="write nothing: fail if a page is not what its files say")
    check = parser.parse_args(argv).check
    for render in (render_plans, health.render, scaling_cost.render, page.render):
        render(check)


if __name__ == "__main__":
    run_command(main)
