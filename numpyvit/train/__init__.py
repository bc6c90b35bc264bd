"""Training: recipes, the folder of a run, and the loop that trains it.

recipe.py and recipes.py hold the settings, config.py everything that decides a result,
run.py a run's state, loop.py the training loop, folder.py and metrics.py the files.
"""
