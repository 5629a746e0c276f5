"""The deployment files, checked by compose itself where there is one, and by what each part relies on."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from trainer_service.settings import TrainerSettings

TOP = Path(__file__).parents[2]
OBSERVERS = {"prometheus", "grafana", "otel-collector"}
SERVICES = {"postgres", "store", "buckets", "trainer", "sampler", "envoy", *OBSERVERS}
# A task that ends, and an image with nothing to ask with: nothing waits for their health.
SILENT = {"buckets", "otel-collector"}
FORBIDDEN_IN_SAMPLER = ("torch", "sdv", "ctgan", "sklearn", "pandas")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((TOP / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def envoy():
    return yaml.safe_load((TOP / "deploy" / "envoy.yaml").read_text())


def defaults_filled_in(text):
    """Return `text` as compose reads it where nothing is set."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


def compose_command():
    """Return the command of the compose that is installed, newest first, or None."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            subprocess.run([*command, "version"], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    return None


def test_compose_accepts_the_file(compose):
    command = compose_command()
    if command is None:
        # No compose here: what it would check first is checked below; here, that nothing refers to what is not there.
        declared = {name: set(compose[name]) for name in ("services", "networks", "volumes")}
        for service in compose["services"].values():
            assert set(service.get("depends_on", {})) <= declared["services"]
            assert set(service.get("networks", [])) <= declared["networks"]
            named = {mount.split(":")[0] for mount in service.get("volumes", []) if not mount.startswith(".")}
            assert named <= declared["volumes"]
        return
    result = subprocess.run(
        [*command, "--file", str(TOP / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_parts_are_there(compose):
    services = compose["services"]
    assert set(services) == SERVICES
    assert services["sampler"]["deploy"]["replicas"] == 3
    for name, service in services.items():
        image = service["image"]
        assert ":" in image or "build" in service, f"{name}: {image} has no version"
        assert not image.endswith(":latest")
        assert service["restart"] == ("no" if name == "buckets" else "unless-stopped")


def test_every_service_reports_its_health(compose):
    for name, service in compose["services"].items():
        if "build" in service:
            dockerfile = (TOP / service["build"]["dockerfile"]).read_text()
            assert "HEALTHCHECK" in dockerfile, name
        else:
            assert ("test" in service["healthcheck"]) != (name in SILENT), name


def test_parts_wait_for_what_they_need(compose):
    waits = {
        (name, other): wanted["condition"]
        for name, service in compose["services"].items()
        for other, wanted in service.get("depends_on", {}).items()
    }
    assert waits == {
        ("buckets", "store"): "service_healthy",
        ("trainer", "postgres"): "service_healthy",
        ("trainer", "buckets"): "service_completed_successfully",
        ("sampler", "trainer"): "service_healthy",
        ("envoy", "sampler"): "service_healthy",
    }


def test_only_loopback_is_published(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports == [
        "127.0.0.1:7401:7401",
        "127.0.0.1:7402:7400",
        "127.0.0.1:9090:9090",
        "127.0.0.1:3000:3000",
        "127.0.0.1:16686:16686",
    ]
    assert compose["networks"]["stores"]["internal"] is True


def test_mounted_and_built_files_exist(compose):
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert not source.startswith("./") or (TOP / source).exists(), source
        if "build" in service:
            assert (TOP / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_settings_named_are_settings_known(compose):
    for name, module in (("trainer", TrainerSettings), ("sampler", sampler_settings())):
        known = {f"ROWMINT_{field.upper()}" for field in module.model_fields}
        named = {variable for variable in compose["services"][name]["environment"] if variable.startswith("ROWMINT_")}
        assert named <= known


def sampler_settings():
    from sampler_service.settings import SamplerSettings

    return SamplerSettings


@pytest.mark.parametrize("name", ["trainer", "sampler"])
def test_settings_are_read(compose, monkeypatch, name):
    for variable, value in compose["services"][name]["environment"].items():
        monkeypatch.setenv(variable, defaults_filled_in(value))
    settings = TrainerSettings() if name == "trainer" else sampler_settings()()
    assert settings.listen == {"trainer": "0.0.0.0:7401", "sampler": "0.0.0.0:7402"}[name]
    assert settings.store_options["client_options"] == {"allow_http": True}
    assert settings.store_options["access_key_id"] == f"rowmint-{name}"


def test_the_sampler_has_no_access_to_data(compose):
    environment = compose["services"]["sampler"]["environment"]
    text = yaml.safe_dump(environment)
    assert "rowmint-data" not in text
    assert "DATA_STORE" not in text
    assert "rowmint_trainer" not in text
    assert "TRAINER" not in text
    identities = yaml.safe_load(defaults_filled_in(compose["services"]["store"]["environment"]["IDENTITIES"]))
    actions = {identity["name"]: identity["actions"] for identity in identities["identities"]}
    assert actions["sampler"] == ["Read:rowmint-models", "List:rowmint-models"]
    sql = (TOP / "deploy" / "postgres-init.sql").read_text()
    grants = [line for line in sql.splitlines() if line.endswith("TO rowmint_sampler;")]
    assert len(grants) == 3
    assert not any("rowmint_data" in grant for grant in grants)


def test_the_samplers_image_has_nothing_that_fits():
    dockerfile = (TOP / "sampler_service" / "Dockerfile").read_text()
    assert "pip install '.[sampler,postgres,tracing]'" in dockerfile
    assert "torch==" not in dockerfile
    assert all(f"'{package}'" in dockerfile for package in FORBIDDEN_IN_SAMPLER)


@pytest.mark.parametrize("service", ["trainer", "sampler"])
def test_images_do_not_run_as_root(service):
    dockerfile = (TOP / f"{service}_service" / "Dockerfile").read_text()
    final = dockerfile.rsplit("FROM ", 1)[1]
    assert "\nUSER rowmint\n" in final
    assert f'ENTRYPOINT ["python", "-m", "{service}_service"]' in final


def test_torch_is_named_first_and_as_in_the_makefile():
    dockerfile = (TOP / "trainer_service" / "Dockerfile").read_text()
    version = re.search(r"^TORCH := (\S+)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert version
    assert dockerfile.index(version[1]) < dockerfile.index("'.[trainer,postgres,tracing]'")


def test_health_checks_in_images_are_commands_that_there_are():
    for service in ("trainer", "sampler"):
        dockerfile = (TOP / f"{service}_service" / "Dockerfile").read_text().replace("\\\n", "")
        check = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE)
        assert check
        assert json.loads(check[1]) == ["rowmint", "health", service]


def test_observers_are_started_only_when_requested(compose):
    assert {name for name, service in compose["services"].items() if "profiles" in service} == OBSERVERS
    assert all(compose["services"][name]["profiles"] == ["observability"] for name in OBSERVERS)


def port_of(address):
    return address["socket_address"]["port_value"]


def test_the_parts_look_for_each_other_where_they_listen(compose, envoy):
    services = compose["services"]
    listeners = {one["name"]: port_of(one["address"]) for one in envoy["static_resources"]["listeners"]}
    assert services["envoy"]["ports"] == [f"127.0.0.1:7402:{listeners['rowmint']}"]
    found = {}
    for cluster in envoy["static_resources"]["clusters"]:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        found[cluster["name"]] = f"{address['address']}:{address['port_value']}"
    admin = envoy["admin"]["address"]["socket_address"]
    assert admin["address"] == "127.0.0.1"
    assert found == {
        "samplers": f"sampler:{services['sampler']['environment']['ROWMINT_LISTEN'].rpartition(':')[2]}",
        "trainers": f"trainer:{services['trainer']['environment']['ROWMINT_LISTEN'].rpartition(':')[2]}",
        "otel": "otel-collector:4317",
        "admin": f"127.0.0.1:{admin['port_value']}",
    }
    assert set(found.values()) - {found["admin"]} <= {f"{name}:{found_port(found, name)}" for name in services}
    scraped = yaml.safe_load((TOP / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    assert {
        (one["job_name"], *one["dns_sd_configs"][0]["names"], one["dns_sd_configs"][0]["port"]) for one in scraped
    } == {
        ("trainer", "trainer", metrics_port(services["trainer"])),
        ("sampler", "sampler", metrics_port(services["sampler"])),
        ("envoy", "envoy", listeners["metrics"]),
    }


def found_port(found, name):
    """Return the port at which Envoy looks for a service, or None."""
    return next((address.rpartition(":")[2] for address in found.values() if address.startswith(f"{name}:")), None)


def metrics_port(service):
    return int(service["environment"]["ROWMINT_METRICS_LISTEN"].rpartition(":")[2])


def test_mounted_services_are_the_requested_ones(compose, envoy):
    mounted = [mount.split(":")[1] for mount in compose["services"]["envoy"]["volumes"]]
    (transcoder,) = re.findall(r"proto_descriptor: (\S+)", (TOP / "deploy" / "envoy.yaml").read_text())
    folder = compose["services"]["envoy"]["working_dir"]
    assert mounted == [f"{folder}/envoy.yaml", f"{folder}/{transcoder}"]
    assert compose["services"]["envoy"]["command"][:3] == ["envoy", "--config-path", "envoy.yaml"]
    rules = yaml.safe_load((TOP / "deploy" / "prometheus.yml").read_text())["rule_files"]
    assert [f"./deploy/{rule}:/etc/prometheus/{rule}:ro" for rule in rules] == compose["services"]["prometheus"][
        "volumes"
    ][1:2]
