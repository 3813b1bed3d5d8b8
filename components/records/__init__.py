"""Frozen results that stages pass to each other and store as JSON; one file per stage."""
