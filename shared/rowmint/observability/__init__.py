"""Observability of the services: metrics, traces and logged calls."""
