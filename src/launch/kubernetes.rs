//! A manifest for Kubernetes: a JobSet of one indexed job, whose index is the rank.

use serde_json::Value;

use super::{LEAD_S, Launch, quoted, words};
use crate::ranks::launch::PORT;

/// How often a run whose pods have failed goes on from its last checkpoint.
const RESTARTS: u32 = 10;

/// The manifest of a run in a container of `image`, whose folder lies on the volume `claim`, mounted at `/runs`. A rank
/// is a pod: all read the folder, so the volume is to be one of many readers and writers.
pub fn jobset(launch: &Launch, image: &str, claim: &str) -> String {
    let Launch { name, begin, run, ranks_per_node, nodes, threads, cards, program } = launch;
    let (ranks, begin, run, program) = (ranks_per_node * nodes, words(begin), quoted(run), quoted(program));
    let card = if *cards { "\n                      nvidia.com/gpu: \"1\"" } else { "" };
    let script = format!(
        "if [ -e {run}/config.toml ]; then exec {program} train --resume {run}; fi; exec {program} train {begin} --out {run}"
    );
    // A text of JSON is one of YAML.
    let [script, image, claim] = [&script, image, claim].map(|text| Value::from(text).to_string());
    format!(
        r#"apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  failurePolicy:
    maxRestarts: {RESTARTS}
  network:
    enableDNSHostnames: true
    publishNotReadyAddresses: true
  replicatedJobs:
    - name: rank
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: {ranks}
          parallelism: {ranks}
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: {LEAD_S}
              containers:
                - name: reckon
                  image: {image}
                  command: ["sh", "-c", {script}]
                  env:
                    # The rank itself is JOB_COMPLETION_INDEX, which Kubernetes sets.
                    - name: WORLD_SIZE
                      value: "{ranks}"
                    - name: MASTER_ADDR
                      value: {name}-rank-0-0.{name}
                    - name: MASTER_PORT
                      value: "{PORT}"
                  resources:
                    requests:
                      cpu: "{threads}"
                    limits:
                      cpu: "{threads}"{card}
                  volumeMounts:
                    - name: runs
                      mountPath: /runs
              volumes:
                - name: runs
                  persistentVolumeClaim:
                    claimName: {claim}
"#
    )
}
