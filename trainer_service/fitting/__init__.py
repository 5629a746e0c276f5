"""Fitting: from a canonical table to a published model's files. The only place that loads torch and ctgan.

`trainer_service.fitting.engine` is the way in; what this package exports needs neither.
"""

from trainer_service.fitting.context import FitContext
from trainer_service.fitting.options import EncodingOptions, ExportOptions

__all__ = ["EncodingOptions", "ExportOptions", "FitContext"]
