"""What the services' metrics say is what was done."""

import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, refused_start
from tests.observability.conftest import PROJECT, REQUESTED, Watched, metrics_port, scrape
from tests.waiting import wait_until
from trainer_service.jobs.runners import PHASES

SAMPLING = "rowmint.v1.SamplingService"


def only(samples, **labels) -> float:
    """Return the sum of the samples that have these labels among theirs."""
    found = [value for own, value in samples.items() if labels.items() <= dict(own).items()]
    assert found, (labels, list(samples))
    return sum(found)


def test_rows_sent_are_the_rows_requested_for(watched: Watched):
    seen = watched.figures["sampler"]
    assert only(seen["rowmint_rows_sent_total"], project=PROJECT, row_format="csv") == REQUESTED
    assert only(seen["rowmint_streams_ended_total"], outcome="complete") >= 1
    assert only(seen["rowmint_streams_ended_total"], outcome="failed") == 0
    assert only(seen["rowmint_first_row_seconds_count"], row_format="csv") == 1
    assert seen["rowmint_candidates_total"] == {(): watched.report["candidates"]}
    assert seen["rowmint_candidates_accepted_total"] == {(): watched.report["accepted"]}
    assert only(seen["rowmint_block_seconds_count"]) == only(seen["rowmint_block_wait_seconds_count"]) >= 1


def test_live_gauges_are_zero_when_idle(watched: Watched):
    for name in ("queue_blocks", "running_blocks", "streams", "rows_in_flight"):
        assert watched.figures["sampler"][f"rowmint_{name}"] == {(): 0}, name


def test_the_model_was_loaded_once(watched: Watched):
    seen = watched.figures["sampler"]
    assert seen["rowmint_model_cache_misses_total"] == {(): 1}
    assert only(seen["rowmint_model_load_seconds_count"]) == 1
    assert seen["rowmint_model_cache_evictions_total"] == {(): 0}
    assert only(seen["rowmint_model_cache_bytes"]) > 0


def test_calls_are_counted_by_method_and_status(watched: Watched):
    seen = watched.figures["sampler"]
    calls = {
        (dict(labels)["grpc_method"], dict(labels)["grpc_status"]): count
        for labels, count in seen["grpc_server_call_duration_seconds_count"].items()
    }
    # The client goes as soon as it has the summary, which may be before the status.
    assert calls.get((f"{SAMPLING}/Sample", "OK"), 0) + calls.get((f"{SAMPLING}/Sample", "CANCELLED"), 0) == 1
    assert calls[f"{SAMPLING}/Sample", "INVALID_ARGUMENT"] == 1
    begun = seen["grpc_server_call_started_total"]
    assert only(begun, grpc_method=f"{SAMPLING}/Sample") == 2
    sent = seen["grpc_server_call_sent_total_compressed_message_size_bytes_sum"]
    written = (watched.services.home / "rows.csv").stat().st_size
    assert only(sent, grpc_method=f"{SAMPLING}/Sample") > written


def test_a_trainer_reports_uploads_jobs_and_phases(watched: Watched):
    seen = watched.figures["trainer"]
    assert only(seen["rowmint_upload_bytes_total"], project=PROJECT) == len(watched.csv)
    assert seen["rowmint_uploads_open"] == {(): 0}
    assert only(seen["rowmint_jobs_ended_total"], kind="ingest", state="SUCCEEDED") == 1
    assert only(seen["rowmint_jobs_ended_total"], kind="train", state="SUCCEEDED") == 1
    assert only(seen["rowmint_jobs"], kind="train", state="SUCCEEDED") == 1
    assert only(seen["rowmint_jobs"], kind="train", state="RUNNING") == 0
    phases = {
        (dict(labels)["kind"], dict(labels)["phase"], dict(labels)["outcome"]): count
        for labels, count in seen["rowmint_job_phase_seconds_count"].items()
    }
    # Those that alerts look at are there before they happen.
    assert phases == {
        (kind, phase, outcome): 1 if outcome == "done" else 0
        for kind, phases in PHASES.items()
        for phase in phases
        for outcome in ("done", "died")
    }
    # The bytes of the upload, of which the table was made, in a worker.
    assert only(seen["rowmint_garbage_objects_deleted_total"]) >= 1
    assert "rowmint_job_lease_age_seconds" not in seen


def test_a_running_job_shows_its_lease(watched: Watched):
    with Client(watched.trainer.address, watched.sampler.address, PROJECT) as client:
        (dataset,) = client.list_datasets()
        job = client.train(dataset, "slow", family="ctgan", epochs=10_000, seed=1, threads=1)
        try:
            found: dict[str, float] = {}

            def running() -> bool:
                leases = scrape(metrics_port(watched.trainer)).get("rowmint_job_lease_age_seconds", {})
                found.update({dict(labels)["job"]: age for labels, age in leases.items()})
                return job.name in found

            wait_until(running, "a lease shown")
            assert found.keys() == {job.name}
            assert -1 < found[job.name] < 60
        finally:
            client.cancel_job(job)


def test_several_processes_are_one_in_the_metrics(watched: Watched, tmp_path):
    services = Services(watched.services.home)
    try:
        sampler = services.sampler(
            ROWMINT_PROCESSES="2",
            ROWMINT_METRICS_LISTEN="127.0.0.1:0",
            ROWMINT_MODEL_STORE="",
            ROWMINT_LOG_FORMAT="json",
        )
        port = metrics_port(sampler)
        for _ in range(4):
            # A client each, and so a connection: the kernel deals them out.
            with Client(watched.trainer.address, sampler.address, PROJECT) as client:
                assert client.sample("customers", 2_000, seed=1).to_table().num_rows == 2_000
        seen = scrape(port)
        assert only(seen["rowmint_rows_sent_total"], project=PROJECT) == 8_000
        assert only(seen["rowmint_first_row_seconds_count"]) == 4
        assert set(seen["rowmint_utilization"]) == {()}
    finally:
        services.close()


@pytest.mark.parametrize("module", ["trainer_service", "sampler_service"])
@pytest.mark.parametrize("listen", ["clash", "256.0.0.1:0", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_served_is_said_at_once(watched: Watched, module, listen, tmp_path):
    if listen == "clash":
        listen = f"127.0.0.1:{metrics_port(watched.sampler)}"
    said = refused_start(tmp_path, "-m", module, ROWMINT_METRICS_LISTEN=listen)
    assert "ROWMINT_METRICS_LISTEN" in said.splitlines()[-1]
