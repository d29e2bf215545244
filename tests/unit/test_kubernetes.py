"""The manifests in `deploy/kubernetes`: Kubernetes' own schemas take them, and what they say of the program is true."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from confluent_kafka import Consumer, KafkaException
from kubernetes_validate import ValidationError, validate
from kubernetes_validate.utils import all_versions
from packaging.version import Version
from ruamel.yaml import YAML

from signal_router import __version__
from signal_router.cli.definition_files import read_files
from signal_router.cli.main import main
from signal_router.cli.run import DEFAULT_WEB_PORT
from signal_router.errors import ConfigurationError
from signal_router.kafka import follow, transaction
from signal_router.kafka.settings import ENVIRONMENT_PREFIX, Connection, load_overrides
from signal_router.kafka.topics import load_topics
from signal_router.model.documents import read_documents
from signal_router.observe.meter import Meter
from signal_router.runtime.app import START_WITHIN_S
from signal_router.runtime.settings import Times, WorkerSettings
from signal_router.runtime.web import Pages
from signal_router.runtime.worker import Phase

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OLDEST = Version("1.27")
"""The first that deletes a StatefulSet's claims, and evicts unready pods past a budget, without being configured to."""

VERSIONS = sorted({version for version in all_versions() if Version(version) >= OLDEST}, key=Version)
KUSTOMIZATIONS = [FOLDER, FOLDER / "apply"]
MANIFESTS = [path for each in KUSTOMIZATIONS for path in sorted(each.glob("*.yaml")) if path.stem != "kustomization"]

Document = Mapping[str, Any]


@functools.cache
def read(path: Path) -> list[dict[str, Any]]:
    """The documents of a file, as plain values; not to be changed."""
    return [json.loads(json.dumps(document)) for document in YAML(typ="safe").load_all(path.read_text())]


def only(kind: str) -> dict[str, Any]:
    """The one document of a kind."""
    (found,) = [document for path in MANIFESTS for document in read(path) if document["kind"] == kind]
    return found


def pod(kind: str) -> dict[str, Any]:
    return only(kind)["spec"]["template"]["spec"]


def worker() -> dict[str, Any]:
    (container,) = pod("StatefulSet")["containers"]
    return container


def containers() -> list[tuple[str, dict[str, Any]]]:
    """Every container, with the kind it belongs to."""
    return [
        (kind, container)
        for kind in ("StatefulSet", "Job")
        for container in (*pod(kind).get("initContainers", ()), *pod(kind)["containers"])
    ]


def named(of: object) -> str:
    return str(of["name"]) if isinstance(of, dict) else str(of)


def refused(document: Document, version: str = VERSIONS[-1]) -> str:
    """Why Kubernetes' schema refuses a document; empty if it does not. Unknown fields are refused as well."""
    try:
        validate(document, version, strict=True)
    except ValidationError as error:
        return error.message
    return ""


# ---- by Kubernetes' schemas


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_schema_takes_every_manifest(path: Path, version: str) -> None:
    assert [refused(document, version) for document in read(path)] == [""]


def test_several_versions_of_kubernetes_are_asked() -> None:
    assert Version(VERSIONS[0]).release[:2] == OLDEST.release
    assert len(VERSIONS) > 5


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_an_unknown_field_is_refused(path: Path) -> None:
    (document,) = read(path)

    assert "'replica' was unexpected" in refused(document | {"replica": 3})


def broken(where: str, value: object) -> dict[str, Any]:
    """The StatefulSet with one value replaced, or added."""
    document = copy.deepcopy(only("StatefulSet"))
    *path, last = where.split(".")
    inside: Any = document
    for step in path:
        inside = inside[int(step) if step.isdecimal() else step]
    inside[last] = value
    return document


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("spec.replicas", "three", "is not of type 'integer'"),
        ("spec.podManagmentPolicy", "Parallel", "was unexpected"),
        ("spec.template.spec.terminationGracePeriod", 45, "was unexpected"),
        ("spec.template.spec.containers.0.env.0.value", 1, "is not of type 'string'"),
        ("spec.template.spec.containers.0.ports.0.containerPort", "6066x", "is not of type 'integer'"),
        ("spec.template.spec.containers.0.livenessProbe.httpGet.url", "/livez", "was unexpected"),
        ("spec.template.spec.containers.0.readinessProbe.periodSeconds", "5s", "is not of type 'integer'"),
        ("spec.volumeClaimTemplates.0.spec.accessModes", "ReadWriteOnce", "is not of type 'array'"),
    ],
)
def test_a_broken_stateful_set_is_refused(where: str, value: object, said: str) -> None:
    assert said in refused(broken(where, value))


def test_every_manifest_stands_in_its_kustomization_and_no_other() -> None:
    for folder in KUSTOMIZATIONS:
        (kustomization,) = read(folder / "kustomization.yaml")
        assert sorted(kustomization["resources"]) == [path.name for path in MANIFESTS if path.parent == folder]


# ---- by each other


def test_what_is_referred_to_exists() -> None:
    names = {(document["kind"], document["metadata"]["name"]) for path in MANIFESTS for document in read(path)}
    (applying,) = read(FOLDER / "apply" / "kustomization.yaml")
    configs = {name for kind, name in names if kind == "ConfigMap"} | set(map(named, applying["configMapGenerator"]))

    assert ("Service", only("StatefulSet")["spec"]["serviceName"]) in names
    for kind in ("StatefulSet", "Job"):
        assert ("ServiceAccount", pod(kind)["serviceAccountName"]) in names
        mapped = [volume["configMap"]["name"] for volume in pod(kind).get("volumes", ()) if "configMap" in volume]
        assert set(mapped) <= configs
    for kind, container in containers():
        assert {source["configMapRef"]["name"] for source in container["envFrom"]} <= configs
        claims = only(kind)["spec"].get("volumeClaimTemplates", ())
        volumes = set(map(named, pod(kind).get("volumes", ()))) | {claim["metadata"]["name"] for claim in claims}
        assert set(map(named, container.get("volumeMounts", ()))) <= volumes


def test_everything_that_selects_workers_selects_the_pods_of_the_stateful_set_and_no_job() -> None:
    labels = only("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only("StatefulSet")["spec"]["selector"]["matchLabels"],
        only("Service")["spec"]["selector"],
        only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod("StatefulSet")["topologySpreadConstraints"]),
    ]

    assert all(selector == labels for selector in selectors)
    assert not labels.items() <= only("Job")["spec"]["template"]["metadata"]["labels"].items()


def test_pods_get_no_token() -> None:
    assert only("ServiceAccount")["automountServiceAccountToken"] is False
    assert pod("StatefulSet")["automountServiceAccountToken"] is False
    assert pod("Job")["automountServiceAccountToken"] is False


def test_one_worker_at_a_time_is_disturbed_and_all_are_started_at_once() -> None:
    assert only("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert only("StatefulSet")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    assert only("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"


# ---- by the program


def environment(kind: str, container: Document) -> dict[str, str]:
    """The variables of a container in the first pod, with made-up secrets."""
    found = dict(only("ConfigMap")["data"])
    for variable in container["env"]:
        source = variable["valueFrom"]
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            found[variable["name"]] = f"{only(kind)['metadata']['name']}-0"
        else:
            assert source["secretKeyRef"]["key"] in {"username", "password"}
            found[variable["name"]] = "secret"
    return found


def commands(command: click.Command = main) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for each in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), each)
            assert found is not None
            yield from commands(found)


def parsed(container: Document) -> tuple[str, dict[str, Any]]:
    """The command that the arguments call, and its parameters as the program reads them."""
    command: click.Command = main
    words, called = list(container["args"]), []
    while isinstance(command, click.Group):
        called.append(words.pop(0))
        found = command.get_command(click.Context(command), called[-1])
        assert found is not None, called
        command = found
    return " ".join(called), command.make_context(called[-1], words).params


@pytest.fixture
def _in_the_first_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("SIGNAL_ROUTER_")]:
        monkeypatch.delenv(variable)
    for variable, value in environment("StatefulSet", worker()).items():
        monkeypatch.setenv(variable, value)


@pytest.mark.usefixtures("_in_the_first_pod")
def test_the_worker_runs_as_the_slot_of_its_ordinal_on_its_volume_and_is_heard_from_outside() -> None:
    command, given = parsed(worker())
    (state,) = [mount["mountPath"] for mount in worker()["volumeMounts"] if mount["name"] == "state"]
    settings = WorkerSettings(
        Connection(bootstrap=given["bootstrap"]),
        given["slot"],
        given["state_dir"],
        static_membership=None if given["membership"] is None else given["membership"] == "static",
        group_protocol=given["group_protocol"],
    )

    assert command == "run"
    assert settings.slot == f"{only('StatefulSet')['metadata']['name']}-0"
    assert str(settings.state_dir) == state
    assert given["bootstrap"] == only("ConfigMap")["data"]["SIGNAL_ROUTER_BOOTSTRAP"]
    assert settings.static
    assert given["web_host"] == "0.0.0.0"


@pytest.mark.usefixtures("_in_the_first_pod")
def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(worker() | {"args": [*worker()["args"], "--web-address", "::"]})


def test_the_job_makes_topics_before_it_applies_definitions() -> None:
    (topics,), (definitions,) = pod("Job")["initContainers"], pod("Job")["containers"]
    (mount,) = definitions["volumeMounts"]

    assert parsed(topics)[0] == "topics apply"
    assert parsed(topics)[1]["yes"] is True
    assert parsed(definitions)[0] == "apply"
    assert parsed(definitions)[1]["files"] == (mount["mountPath"],)


@pytest.mark.usefixtures("_in_the_first_pod")
def test_port_and_paths_of_the_probes_are_the_program_s() -> None:
    (port,) = worker()["ports"]
    (served,) = only("Service")["spec"]["ports"]
    served_paths = {route.path for route in Pages(Standing(), Meter(), lambda: pytest.fail("not asked")).routes()}
    asked = {kind: worker()[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}

    assert parsed(worker())[1]["web_port"] == DEFAULT_WEB_PORT == port["containerPort"] == served["port"]
    assert served["targetPort"] == port["name"]
    assert all(each["port"] == port["name"] and each["path"] in served_paths for each in asked.values())
    assert {kind: each["path"] for kind, each in asked.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
    }  # fmt: skip


class Standing:
    """A worker that nobody asks anything."""

    phase = Phase.WAITING
    trouble = ""
    member = False
    partitions = frozenset()
    silent_s = 0.0


def stop_s(times: Times) -> float:
    """The longest that a clean stop waits: goodbye, consume thread, two followers, the producer."""
    return (times.revoke_ms + times.session_ms) / 1000 + 2 * follow.STOP_S + transaction._CLOSE_S


def test_the_grace_period_covers_the_longest_stop() -> None:
    grace_s = pod("StatefulSet")["terminationGracePeriodSeconds"]

    assert grace_s > stop_s(Times())
    assert grace_s < stop_s(Times(revoke_ms=20_000, transaction_ms=25_000, session_ms=30_000))


def test_a_start_has_the_time_that_it_gives_itself() -> None:
    probe = worker()["startupProbe"]

    assert probe["failureThreshold"] * probe["periodSeconds"] >= 2 * START_WITHIN_S


def test_there_are_not_more_workers_than_partitions() -> None:
    (candidates,) = [topic for topic in load_topics() if topic.topic_name("", "app") == "app-candidates"]

    assert only("StatefulSet")["spec"]["replicas"] <= candidates.partitions


def unread(variables: Mapping[str, str]) -> list[str]:
    """The variables that are neither an option's nor a setting which librdkafka knows."""
    options = {parameter.envvar for command in commands() for parameter in command.params}
    settings = {variable for variable in variables if variable.startswith(ENVIRONMENT_PREFIX)}
    unknown = {variable for variable in settings if "No such" in refusal({variable: variables[variable]})}
    return sorted((variables.keys() - options - settings) | unknown)


def refusal(variables: Mapping[str, str]) -> str:
    """Why the program or librdkafka refuse the settings among the variables, or nothing; asks no broker."""
    try:
        connection = Connection("127.0.0.1:1", overrides=load_overrides((), environment=variables))
        with closing(Consumer(connection.consumer_config({"group.id": "nobody", "log_level": 0}))):
            return ""
    except (ConfigurationError, KafkaException) as error:
        return str(error)


@pytest.mark.parametrize(("kind", "container"), containers(), ids=named)
def test_the_program_reads_every_variable(kind: str, container: Document) -> None:
    variables = environment(kind, container)

    assert variables["SIGNAL_ROUTER_KAFKA_SASL_PASSWORD"] == "secret"
    assert unread(variables) == []
    assert refusal(variables) == ""


@pytest.mark.parametrize("typo", ["SIGNAL_ROUTER_BOOTSTRAPS", "SIGNAL_ROUTER_KAFKA_SASL_PASSWORT", "BOOTSTRAP"])
def test_a_variable_that_nobody_reads_is_noticed(typo: str) -> None:
    assert typo in unread(environment("StatefulSet", worker()) | {typo: "x"})


def test_the_settings_that_the_config_only_names_exist() -> None:
    options = {parameter.envvar for command in commands() for parameter in command.params}
    told = set(re.findall(r"SIGNAL_ROUTER_[A-Z_]+[A-Z]\b(?!_)", (FOLDER / "config.yaml").read_text()))
    settings = {variable for variable in told if variable.startswith(ENVIRONMENT_PREFIX)}

    assert {"SIGNAL_ROUTER_PREFIX", "SIGNAL_ROUTER_PARTITIONS"} <= told - settings <= options
    assert "SIGNAL_ROUTER_KAFKA_SESSION_TIMEOUT_MS" in settings
    assert "ssl.ca.pem" in load_overrides((), environment=dict.fromkeys(settings, ""))


def test_variables_of_services_are_kept_away_for_the_program_would_take_them_for_settings() -> None:
    linked = {"SIGNAL_ROUTER_KAFKA_PORT": "tcp://10.0.0.1:9092"}  # of a Service called signal-router-kafka

    assert "No such configuration property" in refusal(linked)
    assert pod("StatefulSet")["enableServiceLinks"] is False
    assert pod("Job")["enableServiceLinks"] is False


def test_a_folder_of_a_config_map_is_read_once_per_file(tmp_path: Path) -> None:
    (applying,) = read(FOLDER / "apply" / "kustomization.yaml")
    (generated,) = applying["configMapGenerator"]
    held = tmp_path / "..2026_03_10"
    held.mkdir()
    for file in generated["files"]:
        (held / Path(file).name).write_bytes((FOLDER / "apply" / file).read_bytes())
        (tmp_path / Path(file).name).symlink_to(f"..data/{Path(file).name}")
    (tmp_path / "..data").symlink_to(held.name)

    found = read_files([str(tmp_path)])

    assert [Path(each).name for each, _ in found] == [Path(file).name for file in generated["files"]]
    assert read_documents([(each, content.decode()) for each, content in found]).warnings == ()


# ---- by the image


@pytest.mark.parametrize(("kind", "container"), containers(), ids=named)
def test_a_container_calls_the_entry_point_of_the_image_of_this_version(kind: str, container: Document) -> None:
    program = re.search(r'^ENTRYPOINT \["([\w-]+)"\]$', DOCKERFILE, re.MULTILINE)

    assert program
    assert f'{program[1]} = "signal_router.cli.main:main"' in (ROOT / "pyproject.toml").read_text()
    assert "command" not in container
    assert container["image"] == f"{program[1]}:{__version__}"


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomizations_name_the_image_of_this_version(folder: Path) -> None:
    (kustomization,) = read(folder / "kustomization.yaml")
    (image,) = kustomization["images"]

    assert image["name"] == worker()["image"].partition(":")[0]
    assert str(image["newTag"]) == __version__


@pytest.mark.parametrize("kind", ["StatefulSet", "Job"])
def test_pods_run_as_the_user_of_the_image(kind: str) -> None:
    (uid,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    context = pod(kind)["securityContext"]

    assert f"--uid {uid} " in DOCKERFILE
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == int(uid)
    assert context.get("fsGroup", context["runAsGroup"]) == context["runAsGroup"]


def test_the_volume_belongs_to_the_user_and_lies_where_the_image_has_one() -> None:
    (volume,) = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)

    assert pod("StatefulSet")["securityContext"]["fsGroup"] == pod("StatefulSet")["securityContext"]["runAsGroup"]
    assert volume in {mount["mountPath"] for mount in worker()["volumeMounts"]}


def test_the_image_leaves_the_schemas_out() -> None:
    uninstalled = re.search(r"pip uninstall((?:.*\\\n)*.*)", DOCKERFILE)

    assert uninstalled
    assert {"kubernetes-validate", "importlib-resources", "pyyaml"} <= set(uninstalled[1].split())
