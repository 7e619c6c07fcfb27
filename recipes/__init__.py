"""How a checkpoint comes to be: recipes, training, validation, prediction."""

from zoo.data import DataSet, list_datasets, load_dataset

from .config import Recipe, load_recipe
from .evaluate import evaluate

__all__ = ["DataSet", "Recipe", "evaluate", "list_datasets", "load_dataset", "load_recipe"]
