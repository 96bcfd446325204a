"""Rooms as durable logs: what they cost, and what they promise at a kill, a power cut and a fault."""
