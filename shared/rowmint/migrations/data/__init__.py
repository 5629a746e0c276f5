"""Revisions of the schema `rowmint_data`."""
