"""The byte half of a peer: when it is looked at, whether it is read, what it is sent."""
