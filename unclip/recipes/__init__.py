"""Recipes: a recipe is a function that returns a stage's settings. `mini` is for two CPU cores, `small` for one GPU."""
