"""The decisions, without I/O: times, ids and stored state are arguments, decisions are return values."""
