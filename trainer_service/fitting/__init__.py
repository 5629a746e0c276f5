"""Fitting: from a canonical table to a published model's files. The only place that loads torch and ctgan.

`trainer_service.fitting.engine` is the way in; `progress` holds what it reports and needs neither.
"""
