"""What was measured beside the checkpoints, each study its plans, results and page; not installed.

ablation compares ways to train, speed times a training step, health looks whether a network learns and all of its
layers spike, scaling_cost what cheap forms of gradient scaling save and lose. The pages are rendered from the result
files alone: `python -m recipes.studies --check` says whether all of them are current.
"""
