"""The pure core of vixws: one state machine that decides everything, and no IO at all."""
