"""What a fit was estimated to take beside what it took; the estimate promises a factor of two on a quiet machine."""

import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv

EPOCHS = 4
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("family", ["circuit", "ctgan", "tvae"])
def test_an_estimate_beside_its_fit(shared_services: Services, family: str) -> None:
    with Client(shared_services.started[0].address) as client:
        dataset = client.upload(customers_csv(3_000), f"estimated-{family}", format="csv", primary_key="customer")
        requested = {"family": family, "epochs": EPOCHS, "batch_size": 500, "threads": 1, "seed": 3}
        estimate = client.estimate(dataset, f"estimated-{family}", **requested)
        times = {}
        for event in client.watch(client.train(dataset, f"estimated-{family}", **requested)):
            if event.HasField("progress") and event.progress.epoch:
                times[event.progress.epoch] = event.time.ToMicroseconds() / 1e6
    measured = (times[EPOCHS] - times[1]) / (EPOCHS - 1)
    print(
        f"\n{family}: {estimate.seconds_per_epoch:.3f} s an epoch estimated, {measured:.3f} s measured:"
        f" {estimate.seconds_per_epoch / measured:.2f} times"
    )
