"""The order of things: what is read when, what goes into which transaction, and what happens when something fails.

`match` and `join` fill a stage, `commit` makes it durable; these three know no thread, clock or event loop, so a
scheduler can stop them between any two effects. `worker` and `app` run them on a broker.
"""
