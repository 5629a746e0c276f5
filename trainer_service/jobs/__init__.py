"""Jobs: leased work, run in child processes.

`pool` keeps warm children and hands them claimed jobs; `worker` is what runs in a child; `estimate` asks one what a job
would cost. Parent and child exchange single lines of JSON over the child's standard input and output, so nothing is
pickled, and a child whose parent is gone notices at once, as its input ends.
"""
