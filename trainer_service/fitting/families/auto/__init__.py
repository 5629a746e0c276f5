"""A choice among families: not a family itself, the model is of the one that is kept."""

from trainer_service.fitting.families.auto.config import AutoConfig
from trainer_service.fitting.families.family import Trainable

AUTO = Trainable(
    name="auto",
    summary="The best of several families by a classifier's two-sample test on held-out rows",
    suits="tables for which the best family is not known; takes the time of all candidates",
    config=AutoConfig,
)
