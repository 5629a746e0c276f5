"""The trainer's services: convert, call, convert."""
