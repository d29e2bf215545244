"""The store on disk: one RocksDB for all partitions of a worker.

The write-ahead log is kept but not synced: it survives the end of the process, and the changelog is the authority after
a loss of power. What RocksDB finds damaged is reported as `StateError`; the caller rebuilds. A disk that is full or not
ours to write to is a `DiskError`; the caller stops, and rebuilds nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, ReadOptions, SstFileWriter, WriteBatch

from signal_router.errors import DiskError, StateError
from signal_router.state.disk import refusal

BATCH_ENTRIES = 5_000
"""Entries per write: a write holds the interpreter's lock, about 15 ms at this size."""

_OWN_FILES = re.compile(
    r"\d+\.(sst|log|blob|dbtmp)|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?|CURRENT|IDENTITY|LOCK|LOG(\.old(\.\d+)?)?"
    r"|rocksdict-config\.json|DAMAGED"
)
"""The names that RocksDB, its binding and `_failure` give to files."""

_DAMAGED = "DAMAGED"
"""Left behind where a file turned out to be damaged only when it was read: the next start must not trust the others."""


class RocksStore:
    """A RocksDB database under the contract of `signal_router.state.store.Store`."""

    def __init__(self, path: Path, *, cache_bytes: int = 128 << 20, write_buffer_bytes: int = 64 << 20) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(write_buffer_bytes)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(cache_bytes))
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        self.path = path
        self._options = options
        self._db: Rdict | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            _refuse_damaged(path)
            self._db = Rdict(str(path), options)
        except StateError:
            raise
        except Exception as error:
            raise self._failure("does not open", error) from error

    def get(self, key: bytes) -> bytes | None:
        """Reads one value."""
        db = self._open
        try:
            return db.get(key)  # type: ignore[no-any-return]
        except Exception as error:
            raise self._failure("cannot be read", error) from error

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Reads start ≤ key < end in order of the keys."""
        db = self._open
        try:
            read = ReadOptions()
            read.set_iterate_upper_bound(end)
            iterator = db.iter(read)
            iterator.seek(start)
            while iterator.valid():
                yield iterator.key(), iterator.value()
                iterator.next()
            iterator.status()
        except Exception as error:
            raise self._failure("cannot be read", error) from error

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes in atomic batches, in order.

        A crash between two leaves a prefix, which the position entry at the end tells.
        """
        db = self._open
        entries = iter(writes)
        while part := list(islice(entries, BATCH_ENTRIES)):
            batch = WriteBatch(raw_mode=True)
            for key, value in part:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            try:
                db.write(batch)
            except Exception as error:
                raise self._failure("cannot be written", error) from error

    def load(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Writes many entries as one sorted file that the database takes over whole: a third of the cost of `write`."""
        if len(entries) <= BATCH_ENTRIES:
            self.write(entries.items())
            return
        db = self._open
        file = self.path.with_name(f"{self.path.name}.sst")
        try:
            writer = SstFileWriter(options=self._options)
            writer.open(str(file))
            for key in sorted(entries):
                value = entries[key]
                if value is None:
                    del writer[key]
                else:
                    writer[key] = value
            writer.finish()
            db.ingest_external_file([str(file)])
        except Exception as error:
            raise self._failure("cannot be written", error) from error
        finally:
            file.unlink(missing_ok=True)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Deletes start ≤ key < end."""
        db = self._open
        try:
            db.delete_range(start, end)
        except Exception as error:
            raise self._failure("cannot be written", error) from error

    def close(self) -> None:
        """Closes the database and gives the directory free. Idempotent.

        What cannot be flushed, because the disk is full or a file damaged, is no matter: it stands in the write-ahead
        log, and the damage shows again at the next start.
        """
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(Exception):
                db.close()

    @property
    def _open(self) -> Rdict:
        if self._db is None:
            raise StateError(f'the store at "{self.path}" is closed')
        return self._db

    def _failure(self, what: str, error: Exception) -> StateError:
        text = f'the store at "{self.path}" {what}: {error}'
        hint = refusal(error)
        if hint is not None:
            return DiskError(text, hint=hint)
        if "Corruption" in str(error) and self._db is not None:
            with contextlib.suppress(OSError):  # where nothing can be written the next start meets the damage again
                (self.path / _DAMAGED).touch()
            return StateError(text, hint="start the worker again: its tables are rebuilt from the changelog")
        return StateError(text, hint="stop the worker and delete the directory: it is rebuilt from the changelog")


def destroy(path: Path) -> None:
    """Deletes a store's files, and no other: a path that was given by mistake loses nothing."""
    try:
        for file in path.iterdir() if path.is_dir() else ():
            if file.is_file() and _OWN_FILES.fullmatch(file.name):
                file.unlink()
    except OSError as error:
        raise DiskError(f'the store at "{path}" cannot be deleted: {error}', hint=refusal(error)) from error


def _refuse_damaged(path: Path) -> None:
    if (path / _DAMAGED).exists():
        raise StateError(f'the store at "{path}" was found damaged', hint="delete it: it is rebuilt from the changelog")


def _refuse_foreign(path: Path) -> None:
    foreign = sorted(file.name for file in path.iterdir() if not _OWN_FILES.fullmatch(file.name))
    if foreign:
        raise StateError(
            f'the directory "{path}" holds "{foreign[0]}", which is not part of a store',
            hint="give a directory of its own: signal-router run --state-dir DIR",
        )
