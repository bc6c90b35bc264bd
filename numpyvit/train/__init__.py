"""Training: recipes, the folder of a run, and the loop that trains it.

recipe.py and recipes.py hold the settings, config.py everything that decides a result,
state.py what a training changes, run.py how that is saved and restored, loop.py the
training loop; folder.py, checkpoint.py and metrics.py the files.
"""
