"""What was measured beside the checkpoints, each study its plans, results and page; not installed.

ablation compares ways to train, speed times a training step, health looks whether a network learns and all of its
layers spike. Their pages are rendered from the result files alone: `python -m recipes.studies --check` says whether all
of them are current. scaling_cost holds what cheap forms of gradient scaling saved and lost; its code is gone.
"""
