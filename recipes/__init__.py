"""How a checkpoint comes to be: recipes, training, validation, prediction."""

from zoo.data import DataSet, list_datasets, load_dataset
from zoo.metrics import evaluate

from .config import Recipe, load_recipe

__all__ = ["DataSet", "Recipe", "evaluate", "list_datasets", "load_dataset", "load_recipe"]
