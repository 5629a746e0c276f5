"""Converters between messages and the trainer's own values. Pure."""
