"""What both services share of gRPC: server, error table, health, converters, and the service that both offer."""
