"""The signals of the proof run: drawn from a seed, with everything in them that has ever been joined wrongly."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from confluent_kafka import Message, Producer

SUBSCRIPTIONS = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/pair}
spec:
  join: {k: any}
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}", size: "{a.params.size}"}}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/triple}
spec:
  join: {k: any}
  members:
    - {alias: a, signal: A, match: {size: {">=": 3}}, payload: true}
    - {alias: b, signal: B, match: {region: {in: [EU, US]}}}
    - {alias: c, signal: C, join: {k: key}}
  trigger: {params: {k: "{join.k}", text: "from {c.id}"}}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/each}
spec:
  members:
    - {alias: c, signal: C, match: {size: 0}}
  trigger: {params: {id: "{c.id}"}}
"""
"""No signal fits two aliases of one set and nothing expires, so that the counts hold whatever the order of joining."""

LATEST = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/latest}
spec:
  join: {region: string}
  policy: latest
  members:
    - {alias: a, signal: A, match: {size: 1}}
    - {alias: b, signal: B, match: {size: {in: [1, 2]}}}
  trigger: {params: {region: "{join.region}"}}
"""


@dataclass
class Workload:
    """Draws signals and publishes them; knows where each one stands."""

    rng: random.Random
    topic: str
    producer: Producer
    partitions: int
    keys: int
    published: list[tuple[bytes, int]] = field(default_factory=list)
    repeats: int = 0
    _numbers: Counter[str] = field(default_factory=Counter)
    _lanes: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    _signals_of: Counter[tuple[str, str]] = field(default_factory=Counter)

    def publish(self, count: int) -> None:
        """Publishes new signals under random keys, and among them repeats of earlier ones on other partitions."""
        for _ in range(count):
            if len(self.published) > 100 and self.rng.random() < 0.1:
                self._repeat()
            else:
                self._new()
        if self.producer.flush(30):
            raise AssertionError("signals could not be published")

    @property
    def share_of_crowded_keys(self) -> float:
        """How many of the keys have several signals of one name, and those on different partitions."""
        keys = {key for _, key in self._signals_of}
        crowded = {
            key for (name, key), count in self._signals_of.items() if count > 1 and len(self._lanes[name, key]) > 1
        }
        return len(crowded) / len(keys)

    def _new(self) -> None:
        rng, name = self.rng, self.rng.choice("AABBC")
        self._numbers[name] += 1
        number = rng.randrange(self.keys)
        key: object = number if rng.random() < 0.5 else str(number)
        params: dict[str, object] = {
            "key" if name == "C" else "k": key,
            "size": rng.randrange(10),
            "region": rng.choice(["EU", "US", "JP"]),
        }
        signal: dict[str, object] = {"name": name, "source": f"team-{number % 7}", "params": params}
        # One id for all names and sources: identities must not be mixed up.
        signal["id"] = str(self._numbers[name])
        if rng.random() < 0.1:
            signal["payload"] = {"rows": [1, 2.5, "é"]}
        value = json.dumps(signal).encode()
        lane = json.dumps(key)
        self._signals_of[name, lane] += 1

        def delivered(error: object, record: Message) -> None:
            if error is not None:
                raise AssertionError(error)
            partition = record.partition() or 0
            self._lanes[name, lane].add(partition)
            self.published.append((value, partition))

        self.producer.produce(self.topic, value, rng.randbytes(8), on_delivery=delivered)
        self.producer.poll(0)

    def _repeat(self) -> None:
        value, partition = self.rng.choice(self.published)
        other = (partition + self.rng.randrange(1, self.partitions)) % self.partitions
        self.repeats += 1
        self.producer.produce(self.topic, value, self.rng.randbytes(8), partition=other)
