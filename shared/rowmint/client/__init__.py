"""The Python client of Rowmint.

from rowmint.client import Client

with Client() as client:
    dataset = client.upload("flights.csv")
    job = client.wait_job(client.train(dataset, "flights", epochs=10))
    for batch in client.sample(job.model_version, rows=10_000, where={"origin": "JFK", "dep_delay": (60, None)}):
        ...
"""

from rowmint.client.client import Client
from rowmint.client.completed_rows import CompletedRow
from rowmint.client.completion import CompletionStream
from rowmint.client.credentials import Credentials
from rowmint.client.errors import RowmintCallError
from rowmint.client.retry import RetryPolicy
from rowmint.client.sample_plan import SamplePlan
from rowmint.client.sample_stream import SampleStream
from rowmint.client.scoring import RowScore, ScoreStream
from rowmint.client.statistics import ReplicaStatistics
from rowmint.client.synthesize import synthesize
from rowmint.client.training import training_config
from rowmint.client.weights import Weights, weights_messages
from rowmint.client.where import Conditions, where_message

__all__ = [
    "Client",
    "CompletedRow",
    "CompletionStream",
    "Conditions",
    "Credentials",
    "ReplicaStatistics",
    "RetryPolicy",
    "RowScore",
    "RowmintCallError",
    "SamplePlan",
    "SampleStream",
    "ScoreStream",
    "Weights",
    "synthesize",
    "training_config",
    "weights_messages",
    "where_message",
]
