"""Logs and subscriptions: the newest entries, the cursors, the members."""
