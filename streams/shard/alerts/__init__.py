"""Alerts: watermarks, judgement at boundaries, outcomes; a function of the log of a shard."""
