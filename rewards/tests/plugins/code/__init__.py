"""A package named like a module of Python."""
