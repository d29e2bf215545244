"""Writes signal_router/kafka/kafka-jars.txt: the embedded broker's jars and their SHA-256, as resolved today.

Run after raising KAFKA_VERSION in signal_router/kafka/jars.py: `.venv/bin/python scripts/pin_jars.py`. What it writes
is reviewed like code: it decides what the embedded broker runs.
"""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jgo
from jgo.maven import MavenContext

from signal_router.kafka.jars import KAFKA_VERSION

LIST = Path(__file__).parents[1] / "signal_router" / "kafka" / "kafka-jars.txt"


def main() -> None:
    artifacts = jgo.resolve(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
    coordinates = [(each.groupId, each.artifactId, each.version) for each in artifacts]
    log4j = next(version for _, artifact, version in coordinates if artifact == "log4j-core")
    # Kafka's own distribution adds it as well: without it nothing is logged.
    coordinates.append(("org.apache.logging.log4j", "log4j-slf4j-impl", log4j))

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(6) as pool:
        context = MavenContext(repo_cache=Path(scratch), local_repos=[])

        def line(coordinate: tuple[str, str, str]) -> str:
            group, artifact, version = coordinate
            path = context.project(group, artifact).at_version(version).artifact().resolve()
            return f"{group}:{artifact}:{version} {hashlib.sha256(path.read_bytes()).hexdigest()}"

        lines = sorted(pool.map(line, coordinates))
    header = f"# Apache Kafka {KAFKA_VERSION} for the embedded broker: group:artifact:version SHA-256."
    LIST.write_text("\n".join([f"{header} Written by scripts/pin_jars.py.", *lines]) + "\n")
    print(f"{LIST.name}: {len(lines)} jars of Kafka {KAFKA_VERSION}")


if __name__ == "__main__":
    main()
