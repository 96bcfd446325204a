"""Traces: what passed a hub's door, written down, replayed bit for bit, and asked why a message did not come."""
