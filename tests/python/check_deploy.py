"""Checks the files in deploy/: Kubernetes manifests against the schemas of Kubernetes, and all of them against what we promise.

Usage: check_deploy.py REPOSITORY METRICS, METRICS being a file with what a learner answered to /metrics. Prints what is wrong,
a line each, and exits with 1 if anything is.
"""

import json
import pathlib
import re
import sys

import kubernetes_validate
import yaml

REPOSITORY, METRICS = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
DEPLOY = REPOSITORY / "deploy"
# The oldest release that has all that the manifests use (gRPC probes), and the newest known here.
KUBERNETES = ["1.27", kubernetes_validate.latest_version()]

problems = []


def check(holds, problem):
    if not holds:
        problems.append(problem)


def load(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def check_kubernetes():
    folder = DEPLOY / "kubernetes"
    (kustomization,) = load(folder / "kustomization.yaml")
    check(kustomization["kind"] == "Kustomization", "kustomization.yaml is no Kustomization")
    listed = set(kustomization["resources"])
    there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    check(listed == there, f"kustomization.yaml lists {listed}, there are {there}")
    objects = {}
    for name in sorted(there):
        for document in load(folder / name):
            where = f"{name}: {document['kind']} {document['metadata']['name']}"
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    path = ".".join(str(part) for part in error.path)
                    problems.append(f"{where} in {version}: {path}: {error.message}")
            objects[document["kind"], document["metadata"]["name"]] = document
    # The checker must be able to fail.
    broken = {**objects["StatefulSet", "learner"], "spec": {"replicas": "one"}}
    try:
        kubernetes_validate.validate(broken, KUBERNETES[-1], strict=True)
        problems.append("the schema checker accepts anything")
    except kubernetes_validate.ValidationError:
        pass

    generated = {entry["name"] for kind in ("secret", "configMap") for entry in kustomization[f"{kind}Generator"]}
    for entry in kustomization["configMapGenerator"]:
        for file in entry["files"]:
            check((folder / file.split("=")[-1]).exists(), f"{file} of {entry['name']} is missing")
    images = {image["name"] for image in kustomization["images"]}
    for kind, name in [("StatefulSet", "learner"), ("Deployment", "actor")]:
        spec = objects[kind, name]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        check(spec["selector"]["matchLabels"].items() <= labels.items(), f"{name} does not select its own pods")
        pod = spec["template"]["spec"]
        check(pod["securityContext"]["runAsNonRoot"] is True, f"{name} may run as root")
        check(pod["securityContext"]["runAsUser"] == 10001, f"{name} runs as another user than the image's")
        check(pod["automountServiceAccountToken"] is False, f"{name} holds the cluster's credentials")
        (container,) = pod["containers"]
        context = container["securityContext"]
        check(context["readOnlyRootFilesystem"] is True, f"{name} may write to its image")
        check(context["allowPrivilegeEscalation"] is False, f"{name} may gain privileges")
        check(context["capabilities"]["drop"] == ["ALL"], f"{name} has capabilities")
        check({"cpu", "memory"} <= container["resources"]["limits"].keys(), f"{name} has no limits")
        check(container["image"] in images, f"{name}'s image is none that kustomization.yaml names")
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
        check(mounts == claims | {volume["name"] for volume in pod["volumes"]}, f"{name} mounts {mounts}")
        for volume in pod["volumes"]:
            source = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
            check(source is None or source in generated, f"{name} mounts {source}, which nothing makes")
        check("--insecure" not in container["args"], f"{name} lets strangers in")
    learner = objects["StatefulSet", "learner"]["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        grpc = learner[probe]["grpc"]
        check(grpc == {"port": 9090, "service": "impresario.v1.Learner"}, f"the learner's {probe} asks {grpc}")
    ports = {port["name"]: port["containerPort"] for port in learner["ports"]}
    service = {port["targetPort"]: port["port"] for port in objects["Service", "learner"]["spec"]["ports"]}
    check(ports == service, f"the service has {service}, the learner {ports}")
    check("volumeClaimTemplates" in objects["StatefulSet", "learner"]["spec"], "the learner has no volume")
    scaler = objects["HorizontalPodAutoscaler", "actor"]["spec"]
    check(scaler["scaleTargetRef"]["name"] == "actor", "the autoscaler scales something else")
    check(scaler["metrics"][0]["resource"]["name"] == "cpu", "the autoscaler does not look at the CPU")
    check("replicas" not in objects["Deployment", "actor"]["spec"], "the deployment overrules the autoscaler")
    check(objects["NetworkPolicy", "nobody"]["spec"]["podSelector"] == {}, "the default lets traffic through")


def check_compose():
    (compose,) = load(DEPLOY / "docker-compose.yml")
    check("version" not in compose, "Compose 2 warns of a version, and 1.29 needs none")
    services = compose["services"]
    for name in ("learner", "actor"):
        service = services[name]
        check(service["user"] == "10001:10001", f"{name} runs as another user than the image's")
        check(service["read_only"] is True, f"{name} may write to its image")
        check(service["cap_drop"] == ["ALL"], f"{name} has capabilities")
        check(service["secrets"] == ["impresario_token"], f"{name} has no token")
        check("mem_limit" in service and "cpus" in service, f"{name} has no limits")
        check("container_name" not in service and "ports" not in service, f"{name} cannot be scaled")
        check("--insecure" not in service["command"], f"{name} lets strangers in")
        check("stop_grace_period" in service, f"{name} has no time to stop")
    check(services["learner"]["healthcheck"]["test"][:3] == ["CMD", "/usr/local/bin/impresario", "health"], "health is checked otherwise")
    check(services["actor"]["depends_on"] == {"learner": {"condition": "service_healthy"}}, "actors do not wait")
    for name in ("prometheus", "grafana"):
        check(services[name]["profiles"] == ["monitoring"], f"{name} is in no profile")
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            check(not source.startswith(".") or (DEPLOY / source).exists(), f"{name} mounts {source}, which is missing")
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    named = {volume for volume in used if not volume.startswith(".")}
    check(named == compose["volumes"].keys(), f"volumes are {named}")
    (stack,) = load(DEPLOY / "stack.yml")
    for name in ("learner", "actor"):
        service = stack["services"][name]
        check(service["read_only"] is True and service["user"] == "10001:10001", f"stack: {name} is not confined")
        check(set(service["secrets"]) <= stack["secrets"].keys(), f"stack: {name} has secrets that nobody makes")
        flags = re.findall(r"/run/secrets/(\w+)", service["command"])
        check(set(flags) == set(service["secrets"]), f"stack: {name} uses {flags}")


def check_monitoring():
    (prometheus,) = load(DEPLOY / "prometheus" / "prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    check(job["static_configs"][0]["targets"] == ["learner:9090"], "Prometheus asks somebody else")
    check(job["authorization"]["credentials_file"] == "/run/secrets/impresario_token", "Prometheus shows no token")
    (sources,) = load(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")
    uids = {source["uid"] for source in sources["datasources"]}
    told = set(re.findall(r"^# TYPE (impresario_\w+)", METRICS.read_text(), re.M))
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "impresario.json").read_text())
    shown = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            check(target["datasource"]["uid"] in uids, f"{panel['title']} asks an unknown source")
            shown |= set(re.findall(r"impresario_\w+", target["expr"]))
    check(shown and shown <= told, f"the dashboard shows {sorted(shown - told)}, which no learner tells")
    for name in ("verdict", "steps_per_second", "policy_lag_updates", "queue_bytes", "actors_connected", "dropped_steps_total"):
        check(f"impresario_{name}" in shown, f"the dashboard does not show {name}")


def check_image():
    for name in ("Dockerfile", "Dockerfile.runtime"):
        text = (DEPLOY / name).read_text()
        check("\nUSER 10001:10001\n" in text, f"{name} runs as root")
        check("COPY --chown=10001:10001 deploy/rootfs/ /" in text, f"{name} has no /runs")
    runtime = (DEPLOY / "Dockerfile.runtime").read_text()
    check("\nRUN " not in runtime, "Dockerfile.runtime runs something, which a bare base cannot")


check_kubernetes()
check_compose()
check_monitoring()
check_image()
print("\n".join(problems))
sys.exit(bool(problems))
