"""The demo: several teams' signals become triggers on a real Kafka, and what came out is counted from the topics.

`story` says what the producers send, `expected` what must come of it, `play` puts it on; `subscriptions/` holds the
definitions as files, to be read and tried.
"""
