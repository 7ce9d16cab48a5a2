# Periodic checkpoints are stored in the run's work folder, which is no output: a failed job keeps them and resumes.
rule train_run:
    """Train one run to its final checkpoint, resuming from its work folder."""
    input:
        inputs_of("train_run"),
    output:
        RULES["train_run"].outputs,
    priority: RULES["train_run"].priority
    threads: RULES["train_run"].threads
    resources:
        **resources_of("train_run"),
    params:
        fingerprint=fingerprint_of("train_run"),
        command=command_of("train_run"),
        log=log_of("train_run"),
        python=sys.executable,
        shown=QUIETLY,
        launcher=lambda wildcards, resources: launcher(request_of(wildcards)),
        nodes=lambda wildcards, resources: resources.nodes,
        processes=lambda wildcards, resources: max(
            1, request_of(wildcards).gpus_per_node
        ),
        stop_after=lambda wildcards, resources: SITE.stop_after_s(resources.runtime),
    # Under Slurm a training stops in time to be resumed by the next attempt; elsewhere it has no time limit.
    # job_log shows progress and ignores the signals that ask the trainer to save its state and stop.
    shell:
        "${{SLURM_JOB_ID:+env HAFABENCH_STOP_AFTER_SECONDS={params.stop_after}}} "
        "{params.launcher}{params.command} --threads {threads} "
        "--nodes {params.nodes} --processes {params.processes} 2>&1 "
        "| (trap '' INT TERM HUP; exec {params.python:q} -m hafabench.runs.job_log {params.log:q}{params.shown})"
