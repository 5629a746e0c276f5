"""From a model to bytes: plans, rows by index, streams, parts, completion and the formats they are written in."""
