"""Revisions of the schema `rowmint_models`."""
