"""Recipes for the id of a signal: what has to be the same for two records to be one signal.

A signal is identified by (name, source, id). Whoever publishes the same identity again repeats the signal, and a
repeat starts nothing; another id announces a new one. So the question is what a re-run of the producer means, and each
recipe is one answer. `parts` tell apart several signals of one name, for instance one per country.

The ids of different recipes never meet, and neither do those of different parts: `/` and `%` inside a part are
percent-encoded.
"""

from __future__ import annotations

from signal_router.errors import RecordError

Part = str | int


def once_per_run(run: Part, *parts: Part) -> str:
    """One signal per run: whatever runs again inside it repeats the signal, another run announces a new one."""
    return _joined("run", run, *parts)


def once_per_task(run: Part, task: Part, *parts: Part) -> str:
    """One signal per task of a run: a retry of the task repeats it, another task or run announces a new one."""
    return _joined("task", run, task, *parts)


def once_per_attempt(run: Part, task: Part, attempt: int, *parts: Part) -> str:
    """One signal per attempt: every retry announces a new one. For attempts that each produce something of their
    own; elsewhere it starts workflows twice.
    """
    return _joined("attempt", run, task, attempt, *parts)


def once_per_revision(what: Part, revision: Part, *parts: Part) -> str:
    """One signal per revision of a thing, whichever run announces it: a backfill with the same revision repeats it, and
    a higher `revision` says that the data were corrected, so that subscribers run again.
    """
    return _joined("revision", what, revision, *parts)


def _joined(*parts: Part) -> str:
    texts = [str(part) for part in parts]
    if not all(texts):
        raise RecordError("id", "a part of the id is empty", hint="give the recipe the run, task or revision it is of")
    return "/".join(text.replace("%", "%25").replace("/", "%2F") for text in texts)
