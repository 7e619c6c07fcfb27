"""How a checkpoint comes to be: recipes, training, validation, prediction."""

from .recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
