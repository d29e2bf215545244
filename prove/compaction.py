"""Changelog and lineage are compacted as fast as a broker can, while workers write and restore."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from harness import PAIR, QUICK, LiveCluster, announced, folded, until

from prove.rounds import Round
from signal_router.state.keys import partition_prefix
from signal_router.state.rocks import RocksStore

SHORT_MS, REQUIRED_MS = 100, 86_400_000
AGGRESSIVE = {
    "segment.ms": "300",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.0",
    "max.compaction.lag.ms": "500",
    "file.delete.delay.ms": "100",
}
BRIEF = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/brief}
spec:
  join: {k: any}
  within: 5s
  dedupe: 5s
  members:
    - {alias: c, signal: C}
    - {alias: d, signal: D}
  trigger: {params: {k: "{join.k}"}}
"""
"""Nothing of it ever fires: it expires, is forgotten, and leaves tombstones."""
OVERWRITTEN = b"proof/overwritten"
FAULTS = (
    "changelog compacted",
    "lineage compacted",
    "restored from what was compacted",
    "tombstones gone before a restore",
    "store older than the tombstones",
    "short delete.retention.ms refused",
)


def play(round_: Round) -> None:
    """Pairs come and go while the cleaner runs; workers restore from what it leaves."""
    keys = round_.few(2_000, least=300)
    with round_.cluster(round_.brokers.cleaning.bootstrap, candidates=round_.turn(("local", "topic"))) as cluster:
        names = cluster.names
        for topic in (names.changelog, names.lineage):
            configure(cluster, topic, AGGRESSIVE)
        cluster.apply(PAIR)
        cluster.apply(BRIEF)
        for slot in ("w1", "w2"):
            cluster.worker(slot, times=QUICK)
        for worker in cluster.workers:
            worker.await_running()
        fill(cluster, range(keys))
        cluster.publish_many(announced("C", range(keys)))
        cluster.await_decided(within_s=120)
        copies = old_copies(cluster)

        configure(cluster, names.changelog, {"delete.retention.ms": str(SHORT_MS)})
        refuse_short_retention(round_, cluster)
        complete(cluster, range(keys))
        cluster.await_decided(within_s=120)
        await_compacted(round_, cluster, names.changelog, "changelog compacted")
        await_tombstones_gone(round_, cluster, copies, keys)

        configure(cluster, names.changelog, {"delete.retention.ms": str(REQUIRED_MS)})
        restore_from_old_copies(round_, cluster, copies)
        fill(cluster, range(keys, 2 * keys))
        cluster.await_decided(within_s=120)
        restore_from_nothing(round_, cluster)
        complete(cluster, range(keys, 2 * keys))
        cluster.await_decided(within_s=120)
        await_lineage_compacted(round_, cluster)

        proof = round_.judge(cluster)
        assert proof.fired() == {json.dumps({"k": key}): 1 for key in range(2 * keys)}
        assert_keys_are_unique(cluster)
        assert_tables_are_the_changelog(cluster)


# ---- what workers do


def fill(cluster: LiveCluster, keys: range) -> None:
    """Leaves a half of each pair pending."""
    cluster.publish_many(announced("A", keys))
    cluster.await_decided(within_s=120)


def complete(cluster: LiveCluster, keys: range) -> None:
    """Completes them, in pieces, so that there are many segments to be compacted."""
    step = max(len(keys) // 10, 1)
    for start in range(keys.start, keys.stop, step):
        cluster.publish_many(announced("B", range(start, min(start + step, keys.stop))))


def old_copies(cluster: LiveCluster) -> dict[str, Path]:
    """Kills the workers for a moment, to copy what they have on their disks."""
    copies = {worker.slot: cluster.folder / f"copy-{worker.slot}" for worker in cluster.workers}
    killed = list(cluster.workers)
    for worker in killed:
        worker.kill()
    for worker in killed:
        shutil.copytree(worker.state_dir, copies[worker.slot])
    for slot in copies:
        cluster.worker(slot, times=QUICK).await_running()
    return copies


def refuse_short_retention(round_: Round, cluster: LiveCluster) -> None:
    """A worker that would trust old tables longer than tombstones live does not start."""
    refused = cluster.worker("w3", times=QUICK)
    assert refused.await_end() == 1
    assert "delete.retention.ms" in refused.stopped_with, refused.stopped_with
    round_.fired("short delete.retention.ms refused")


def restore_from_old_copies(round_: Round, cluster: LiveCluster, copies: Mapping[str, Path]) -> None:
    """The bound on a store's age is what keeps it from coming back; here it is a moment."""
    for slot, copy in copies.items():
        (old,) = (worker for worker in cluster.workers if worker.slot == slot and worker.alive)
        round_.kill(old, "any time")
        shutil.rmtree(old.state_dir)
        shutil.copytree(copy, old.state_dir)
        restored = cluster.worker(slot, times=QUICK, trusted_ms=SHORT_MS).await_running()
        assert "it is too old" in restored.log
        round_.fired("store older than the tombstones")


def restore_from_nothing(round_: Round, cluster: LiveCluster) -> None:
    for old in [worker for worker in cluster.workers if worker.alive]:
        round_.kill(old, "any time")
        shutil.rmtree(old.state_dir)
        written = sum(cluster.ends(cluster.names.changelog).values())
        restored = cluster.worker(old.slot, times=QUICK).await_running()
        assert 0 < sum(restored.restored) < written
        round_.fired("restored from what was compacted")


# ---- what the cleaner does


def configure(cluster: LiveCluster, topic: str, config: Mapping[str, str]) -> None:
    """Sets a topic's settings, and waits until they are there."""
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for answer in cluster.admin.incremental_alter_configs([resource]).values():
        answer.result(10)
    wanted = ConfigResource(ResourceType.TOPIC, topic)

    def there() -> bool:
        found = cluster.admin.describe_configs([wanted])[wanted].result(10)
        return all(found[key].value == value for key, value in config.items())

    until(there, f"{topic} is configured")


def stir(cluster: LiveCluster) -> None:
    """Gives every partition something new: the open segment is compacted only once another is begun."""
    cluster.publish_many([{"name": "A", "source": "stir", "id": "1", "params": {"k": f"stir{n}"}} for n in range(40)])


def await_compacted(round_: Round, cluster: LiveCluster, topic: str, fault: str) -> None:
    """Waits until most of what was written is gone."""

    def gone() -> bool:
        stir(cluster)
        written, there = sum(cluster.ends(topic).values()), len(cluster.read(topic, committed=False))
        round_.seen[f"{fault}: offsets written"] = written
        round_.seen[f"{fault}: records left"] = there
        return there < written // 2

    round_.await_fired(gone, fault, within_s=60)


def await_tombstones_gone(round_: Round, cluster: LiveCluster, copies: Mapping[str, Path], keys: int) -> None:
    """Waits until the changelog says no more of most of what was taken back: the copies would keep it for ever."""
    copied = {slot: set(stored(copy)) for slot, copy in copies.items()}

    def gone() -> bool:
        stir(cluster)
        records = cluster.read(cluster.names.changelog)
        spoken_of = {partition_prefix(each.partition) + (each.key or b"") for each in records}
        stale = sum(len(entries - spoken_of) for entries in copied.values())
        round_.seen["stale entries: of old copies, which nothing takes back"] = stale
        return stale > keys // 2

    round_.await_fired(gone, "tombstones gone before a restore", within_s=120)


def await_lineage_compacted(round_: Round, cluster: LiveCluster) -> None:
    """Keys of lineage are unique, so a cleaner finds nothing to take. That it runs shows by a key that is not."""
    topic = cluster.names.lineage

    def left() -> int:
        return sum(each.key == OVERWRITTEN for each in cluster.read(topic))

    for number in range(200):
        for partition in range(cluster.partitions):
            document = json.dumps({"format": 1, "kind": "proof", "number": number}).encode()
            cluster.producer.produce(topic, document, OVERWRITTEN, partition=partition)
    assert cluster.producer.flush(30) == 0
    written = left()

    def gone() -> bool:
        stir(cluster)
        return left() < written // 4

    round_.await_fired(gone, "lineage compacted", within_s=60)


# ---- what must be true


def assert_keys_are_unique(cluster: LiveCluster) -> None:
    """So compaction takes nothing of lineage that counts."""
    keys = Counter(each.key for each in cluster.read(cluster.names.lineage) if each.key != OVERWRITTEN)
    assert max(keys.values()) == 1, keys.most_common(3)


def stored(state_dir: Path) -> dict[bytes, bytes]:
    """What stands in a store, without what is kept locally only."""
    store = RocksStore(state_dir / "tables")
    try:
        return {key: value for key, value in store.scan(b"\0", b"\xff") if key[2:3] not in {b"T", b"L"}}
    finally:
        store.close()


def assert_tables_are_the_changelog(cluster: LiveCluster) -> None:
    """For each partition there is a worker that has exactly what the changelog adds up to."""
    wanted: dict[bytes, dict[bytes, bytes]] = {}
    for key, value in folded(cluster).items():
        wanted.setdefault(key[:2], {})[key] = value
    tables = [stored(directory) for directory in {worker.state_dir for worker in cluster.workers} if directory.exists()]
    for prefix, entries in wanted.items():
        found = [{key: value for key, value in table.items() if key[:2] == prefix} for table in tables]
        assert entries in found, f"no worker has the table of partition {int.from_bytes(prefix)}"
