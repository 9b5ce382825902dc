"""Holds a manifest of `reckon launch --k8s` against the schemas of Kubernetes and of JobSet (v1alpha2), as the packages
kubernetes-validate and kubeflow-trainer-api carry them: no cluster is needed.

    pip install kubernetes-validate kubeflow-trainer-api pyyaml
    reckon launch CONFIG --k8s --dry-run | python scripts/check_jobset.py [VERSION of Kubernetes]
"""

import sys

import kubernetes_validate
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet


def differences(given, read, at=""):
    """What a schema has not read, or has read as something else."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from differences(value, read[key], f"{at}.{key}") if key in read else [f"{at}.{key} is unknown"]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, pair in enumerate(zip(given, read)):
            yield from differences(*pair, f"{at}[{index}]")
    elif given != read:
        yield f"{at} is {given!r}, and was read as {read!r}"


def main():
    version = sys.argv[1] if len(sys.argv) > 1 else "1.33"
    manifest = yaml.safe_load(sys.stdin)
    found = list(differences(manifest, JobsetV1alpha2JobSet.from_dict(manifest).to_dict()))
    for job in manifest["spec"]["replicatedJobs"]:
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        kubernetes_validate.validate(whole, version, strict=True)
    if found:
        sys.exit("\n".join(found))
    print(f"{manifest['metadata']['name']}: a JobSet of v1alpha2, whose jobs are those of Kubernetes {version}")


if __name__ == "__main__":
    main()
