"""Keeps the import paths that models registered before the move to `medgan.inference` carry in their code."""
