from hafabench.runs.fingerprints import dataset_fingerprint


rule prepare_dataset:
    """Make the data set where it can be made; verify it in any case."""
    output:
        f"{RESULTS}/data/{{task}}.json",
    log:
        f"{RESULTS}/data/{{task}}.log",
    priority: 100
    resources:
        **asked(
            lambda wildcards, attempt: BOOK.prepare_dataset(wildcards.task, attempt)
        ),
    params:
        fingerprint=lambda wildcards: dataset_fingerprint(
            EXPERIMENT.config.datasets[wildcards.task]
        ),
    shell:
        f"hafabench data prepare {{wildcards.task}} --experiment {EXPERIMENT_FILE} 2>&1 | tee {{log}}"
