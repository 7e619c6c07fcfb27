"""How a checkpoint comes to be: recipes, training, validation, prediction."""

from .config import Recipe, load_recipe
from .data import DataSet, list_datasets, load_dataset
from .evaluate import evaluate

__all__ = ["DataSet", "Recipe", "evaluate", "list_datasets", "load_dataset", "load_recipe"]
