"""Typed recipes: one `Recipe` class per verb, the YAML files, and the schema that validates them."""
