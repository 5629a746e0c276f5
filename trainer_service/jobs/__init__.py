"""Jobs: leased work, run by workers.

`pool` claims jobs and hands each to a worker, which a backend starts (`backends`); `worker` is what runs there, and
finds what a job's kind does in the list of runners (`runners`). Trainer and worker exchange JSON values, so nothing is
pickled; a worker shares nothing with its trainer but registry and stores.
"""
