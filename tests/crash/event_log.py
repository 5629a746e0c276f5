"""What holds of a job's log, however often its workers were killed."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rowmint.v1 import training_job_pb2 as pb

_FOLLOWERS = {
    pb.JOB_STATE_PENDING: {pb.JOB_STATE_PENDING, pb.JOB_STATE_RUNNING},
    # Back to PENDING where a trainer that was about to begin gave it back.
    pb.JOB_STATE_RUNNING: {pb.JOB_STATE_RUNNING, pb.JOB_STATE_PENDING, pb.JOB_STATE_SUCCEEDED},
    pb.JOB_STATE_SUCCEEDED: set(),
}

# In the order that an attempt is at them.
_PHASES = [
    pb.JOB_PHASE_UNSPECIFIED,
    pb.JOB_PHASE_FETCHING,
    pb.JOB_PHASE_ENCODING,
    pb.JOB_PHASE_FITTING,
    pb.JOB_PHASE_VERIFYING,
    pb.JOB_PHASE_PUBLISHING,
]


def check_log(events: Sequence[pb.TrainingEvent], training: Mapping[str, Any]) -> None:
    """Check the whole log of a job that has SUCCEEDED.

    Args:
        events: The log.
        training: The manifest's account of the fit: what every attempt reported of an epoch is to be the same.
    """
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (events[0].state, events[-1].state) == (pb.JOB_STATE_PENDING, pb.JOB_STATE_SUCCEEDED)
    for event, following in pairwise(events):
        assert following.state in _FOLLOWERS[event.state]
        assert following.attempt - event.attempt in (0, 1)
        if following.attempt == event.attempt and following.state == pb.JOB_STATE_RUNNING:
            assert _PHASES.index(following.phase) >= _PHASES.index(event.phase)
    assert [event.sequence for event in events if event.model_version] == [len(events)]
    reported = [event for event in events if event.HasField("progress") and event.progress.losses]
    assert {event.progress.epoch for event in reported} == set(range(1, training["epochs"] + 1))
    for event in reported:
        epoch = event.progress.epoch
        assert dict(event.progress.losses) == {name: all_[epoch - 1] for name, all_ in training["loss_history"].items()}
    for attempt in {event.attempt for event in reported}:
        epochs = [event.progress.epoch for event in reported if event.attempt == attempt]
        assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
