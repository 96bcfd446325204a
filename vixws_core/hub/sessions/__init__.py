"""The message half of a peer: its life, its publishes, its questions, its turn with the application."""
