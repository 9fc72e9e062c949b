"""Recipes: named comparisons as data. `core.spec.recipe` says what a file holds, `api.recipes` reads them."""
