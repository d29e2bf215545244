"""Compares a cluster's topics with their files, applies the difference, and checks at start what the guarantees need.

One thing is never done: changing the partition count of candidates or changelog. Every pending set lives in the
partition that its key gave it under the old count; under a new one its next signal would go elsewhere and the set never
complete.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from signal_router.errors import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from confluent_kafka.admin import TopicMetadata

    from signal_router.kafka.topics import TopicFile

MISSING = "topic"
PARTITIONS = "partitions"

_ANSWER_WITHIN_S = 15.0
_TWINS = ("candidates", "join-sets-changelog")  # partition n of the one belongs to partition n of the other
_AT_LEAST = frozenset({"max.message.bytes", "delete.retention.ms"})  # more than required does no harm at start
_NEW_PREFIX_HINT = (
    "it is never changed in place. Use a new --prefix, and drain the old one first: stop the producers, wait until"
    " `signal-router workers list` shows lag 0 and `signal-router joins list` shows nothing pending, stop the workers,"
    " then `signal-router topics apply --prefix NEW` and start producers and workers with it"
)


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic file under its name on the cluster."""

    name: str
    file: TopicFile

    @property
    def role(self) -> str:
        """What the topic is for."""
        return self.file.role


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that differs; `setting` is a config key, `partitions`, or `topic` for one that does not exist."""

    topic: str
    role: str
    setting: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        if self.setting == MISSING:
            return f'topic "{self.topic}" does not exist'
        return f'topic "{self.topic}" has {self.setting} "{self.found}", its file says "{self.wanted}"'


@dataclass(frozen=True, slots=True)
class _Found:
    partitions: int
    config: Mapping[str, str]


def wanted_topics(
    files: Iterable[TopicFile], *, prefix: str, app: str, partitions: int | None = None
) -> tuple[WantedTopic, ...]:
    """Puts the files under their names; `partitions` replaces the count wherever a file has more than one."""
    return tuple(
        WantedTopic(
            file.topic_name(prefix, app),
            replace(file, partitions=partitions) if partitions is not None and file.partitions > 1 else file,
        )
        for file in files
    )


def diff_topics(admin: AdminClient, wanted: Sequence[WantedTopic]) -> list[Difference]:
    """Lists everything in which the cluster differs from the files, in their order; replicas are the broker's affair.

    Raises:
        BrokerError: the cluster does not answer, or denies a look at a topic.
    """
    found = _describe(admin, [topic.name for topic in wanted])
    differences: list[Difference] = []
    for topic in wanted:
        file, there = topic.file, found.get(topic.name)
        if there is None:
            differences.append(Difference(topic.name, topic.role, MISSING, f"{file.partitions} partitions", None))
            continue
        if there.partitions != file.partitions:
            count = Difference(topic.name, topic.role, PARTITIONS, str(file.partitions), str(there.partitions))
            differences.append(count)
        for key, value in file.config.items():
            if not _same(key, value, there.config.get(key)):
                differences.append(Difference(topic.name, topic.role, key, value, there.config.get(key)))
    return differences


def refuse_unsafe(differences: Iterable[Difference], wanted: Sequence[WantedTopic]) -> None:
    """Raises ConfigurationError for a difference that `apply_topics` must not or cannot mend."""
    fixed = {topic.name for topic in wanted if topic.file.about.partitions == "fixed"}
    for difference in differences:
        if difference.setting != PARTITIONS:
            continue
        if difference.topic in fixed:
            raise ConfigurationError(str(difference), hint=_NEW_PREFIX_HINT)
        if int(difference.found or 0) > int(difference.wanted):
            raise ConfigurationError(
                f"{difference}; Kafka cannot take partitions away",
                hint=f"signal-router topics apply --partitions {difference.found}, or a new --prefix",
            )


def apply_topics(admin: AdminClient, wanted: Sequence[WantedTopic]) -> list[Difference]:
    """Makes the cluster like the files: creates topics, alters configs, adds public partitions; returns what differed.

    Idempotent. Checks everything first, so that nothing is changed where something cannot be.

    Raises:
        ConfigurationError: a partition count would have to change that must not, or candidates and changelog differ.
        BrokerError: the cluster refuses; the topic and the reason are named.
    """
    _refuse_unequal_twins(wanted)
    differences = diff_topics(admin, wanted)
    refuse_unsafe(differences, wanted)
    files = {topic.name: topic.file for topic in wanted}
    _create(admin, {each.topic: files[each.topic] for each in differences if each.setting == MISSING})
    _add_partitions(admin, {each.topic: int(each.wanted) for each in differences if each.setting == PARTITIONS})
    _alter(admin, [each for each in differences if each.setting not in {MISSING, PARTITIONS}])
    _wait_until_visible(admin, wanted)
    return differences


def check_topics(admin: AdminClient, wanted: Sequence[WantedTopic]) -> list[str]:
    """Checks at start what the guarantees need of the topics; returns what is merely advised, as sentences.

    Partition counts may be other than the files say, except where there must be one; those of candidates and changelog
    must agree.

    Raises:
        ConfigurationError: a topic is missing or a required setting differs; topic, setting and value are named.
        BrokerError: the cluster does not answer.
    """
    advice: list[str] = []
    found = _describe(admin, [topic.name for topic in wanted])
    for topic in wanted:
        there, file = found.get(topic.name), topic.file
        if there is None:
            raise ConfigurationError(f'topic "{topic.name}" does not exist', hint="signal-router topics apply")
        if file.partitions == 1 and there.partitions != 1:
            count = Difference(topic.name, topic.role, PARTITIONS, "1", str(there.partitions))
            raise ConfigurationError(str(count), hint="signal-router topics diff")
        for key in file.about.required:
            if not _enough(key, file.config[key], there.config.get(key)):
                differs = Difference(topic.name, topic.role, key, file.config[key], there.config.get(key))
                raise ConfigurationError(str(differs), hint="signal-router topics diff")
        advice += [
            str(Difference(topic.name, topic.role, key, file.config[key], there.config.get(key)))
            for key in file.about.advised
            if not _same(key, file.config[key], there.config.get(key))
        ]
    first, second = (_twin(wanted, role) for role in _TWINS)
    if first and second and found[first.name].partitions != found[second.name].partitions:
        raise ConfigurationError(
            f'topic "{first.name}" has {found[first.name].partitions} partitions,'
            f' "{second.name}" has {found[second.name].partitions}',
            hint="signal-router topics diff",
        )
    return advice


def _twin(wanted: Sequence[WantedTopic], role: str) -> WantedTopic | None:
    return next((topic for topic in wanted if topic.role == role), None)


def _refuse_unequal_twins(wanted: Sequence[WantedTopic]) -> None:
    first, second = (_twin(wanted, role) for role in _TWINS)
    if first and second and first.file.partitions != second.file.partitions:
        raise ConfigurationError(
            f"the file of {_TWINS[0]} says {first.file.partitions} partitions,"
            f" that of {_TWINS[1]} {second.file.partitions}",
            hint="both need the same count: partition n of the one belongs to partition n of the other",
        )


def _same(key: str, wanted: str, found: str | None) -> bool:
    if key == "cleanup.policy" and found is not None:
        return set(wanted.split(",")) == set(found.split(","))
    return wanted == found


def _enough(key: str, wanted: str, found: str | None) -> bool:
    if key in _AT_LEAST and found is not None:
        return int(found) >= int(wanted)
    return _same(key, wanted, found)


def _describe(admin: AdminClient, names: Sequence[str]) -> dict[str, _Found]:
    try:
        there = admin.list_topics(timeout=_ANSWER_WITHIN_S).topics
    except KafkaException as error:
        raise BrokerError(f"the cluster does not list its topics: {error.args[0].str()}") from error
    existing = [name for name in names if name in there]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in existing]
    if not resources:
        return {}
    answers = admin.describe_configs(resources, request_timeout=_ANSWER_WITHIN_S)
    found = {}
    for resource, answer in answers.items():
        entries = _result(answer, resource.name, "describe its settings")
        config = {key: entry.value for key, entry in entries.items() if entry.value is not None}
        found[resource.name] = _Found(len(there[resource.name].partitions), config)
    return found


def _create(admin: AdminClient, new: Mapping[str, TopicFile]) -> None:
    if not new:
        return
    requests = [
        NewTopic(name, num_partitions=file.partitions, replication_factor=file.replicas, config=dict(file.config))
        for name, file in new.items()
    ]
    for name, answer in admin.create_topics(requests, request_timeout=_ANSWER_WITHIN_S).items():
        try:
            answer.result()
        except KafkaException as error:
            # Another process may have made it meanwhile: the same in the end.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _refused(name, "create it", error) from error


def _add_partitions(admin: AdminClient, counts: Mapping[str, int]) -> None:
    if counts:
        requests = [NewPartitions(name, count) for name, count in counts.items()]
        for name, answer in admin.create_partitions(requests, request_timeout=_ANSWER_WITHIN_S).items():
            _result(answer, name, "add partitions")


def _alter(admin: AdminClient, differences: Sequence[Difference]) -> None:
    by_topic: dict[str, list[ConfigEntry]] = {}
    for each in differences:
        entry = ConfigEntry(each.setting, each.wanted, incremental_operation=AlterConfigOpType.SET)
        by_topic.setdefault(each.topic, []).append(entry)
    if by_topic:
        resources = [
            ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name, entries in by_topic.items()
        ]
        answers = admin.incremental_alter_configs(resources, request_timeout=_ANSWER_WITHIN_S)
        for resource, answer in answers.items():
            _result(answer, resource.name, "alter its settings")


def _wait_until_visible(admin: AdminClient, wanted: Sequence[WantedTopic]) -> None:
    """Waits until the brokers show what the controller has accepted, so that a worker may start right away."""
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    while True:
        there = admin.list_topics(timeout=_ANSWER_WITHIN_S).topics
        behind = [topic.name for topic in wanted if not _led(there.get(topic.name), topic.file.partitions)]
        behind += [difference.topic for difference in diff_topics(admin, wanted)]
        if not behind:
            return
        if time.monotonic() > deadline:
            raise BrokerError(f'topic "{behind[0]}" does not show its change yet', hint="signal-router topics diff")
        time.sleep(0.05)


def _led(metadata: TopicMetadata | None, partitions: int) -> bool:
    if metadata is None or len(metadata.partitions) < partitions:
        return False
    return all(partition.leader >= 0 for partition in metadata.partitions.values())


def _result(answer: Future[Any], topic: str, what: str) -> Any:  # noqa: ANN401  the library's futures are untyped
    try:
        return answer.result()
    except KafkaException as error:
        raise _refused(topic, what, error) from error


def _refused(topic: str, what: str, error: KafkaException) -> BrokerError:
    denied = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    hint = "ask for the ACL, or have the topics made by those who have it" if denied else "signal-router topics diff"
    return BrokerError(f'topic "{topic}": the cluster refuses to {what}: {error.args[0].str()}', hint=hint)
