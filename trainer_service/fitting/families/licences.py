"""Licences that bear on models, as manifests state them."""

CTGAN_PACKAGE = (
    "Trained with the ctgan package, which is under BUSL-1.1: in-house use is free, a commercial synthetic-data service"
    " for third parties is not."
)
