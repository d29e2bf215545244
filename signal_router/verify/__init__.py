"""Judging what stands on the topics of an app: each guarantee by name, from the logs alone."""
