"""Who may do what, and how anybody can tell afterwards: identities, keys, tokens, signatures, the audit log.

Nothing here knows of gRPC; `rowmint.rpc` asks it at each call.
"""
