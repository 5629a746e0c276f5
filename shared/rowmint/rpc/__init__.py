"""gRPC code shared by both services: server, errors, access control, converters, and the model service."""
