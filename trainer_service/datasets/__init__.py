"""Datasets: upload in segments, and ingest into tables."""
