"""Authentication, authorization, signatures and the audit log.

Nothing here depends on gRPC; `rowmint.rpc` calls it for each RPC.
"""
