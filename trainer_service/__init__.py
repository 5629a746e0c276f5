"""The trainer: takes datasets, fits synthesizers, publishes model versions."""
