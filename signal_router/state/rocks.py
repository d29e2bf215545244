"""The store on disk: one RocksDB for all partitions of a worker.

The write-ahead log is kept but not synced: it survives the end of the process, and the changelog is the authority after a
loss of power. What RocksDB finds damaged is reported as `StateError`; the caller rebuilds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, ReadOptions, WriteBatch

from signal_router.errors import StateError

BATCH_ENTRIES = 5_000
"""Entries per write: a write holds the interpreter's lock, about 15 ms at this size."""


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
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._db: Rdict | None = Rdict(str(path), options)
        except Exception as error:
            raise StateError(f'the store at "{path}" does not open: {error}') from error

    def get(self, key: bytes) -> bytes | None:
        """Reads one value."""
        return self._open.get(key)  # type: ignore[no-any-return]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Reads start ≤ key < end in order of the keys."""
        read = ReadOptions()
        read.set_iterate_upper_bound(end)
        iterator = self._open.iter(read)
        iterator.seek(start)
        while iterator.valid():
            yield iterator.key(), iterator.value()
            iterator.next()

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes in atomic batches, in order; a crash between two leaves a prefix, which the position entry at the end tells."""
        entries = iter(writes)
        while part := list(islice(entries, BATCH_ENTRIES)):
            batch = WriteBatch(raw_mode=True)
            for key, value in part:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            self._open.write(batch)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Deletes start ≤ key < end."""
        self._open.delete_range(start, end)

    def close(self) -> None:
        """Closes the database and gives the directory free. Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @property
    def _open(self) -> Rdict:
        if self._db is None:
            raise StateError(f'the store at "{self.path}" is closed')
        return self._db


def destroy(path: Path) -> None:
    """Deletes a store's files."""
    for file in sorted(path.glob("**/*"), reverse=True) if path.exists() else ():
        file.unlink() if file.is_file() or file.is_symlink() else file.rmdir()
