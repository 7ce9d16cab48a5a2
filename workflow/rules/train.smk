def run_of(wildcards):
    """The run that a job's wildcards name."""
    return RUNS[f"{wildcards.task}/{wildcards.model}/seed{wildcards.seed}"]


def starting_weights(wildcards):
    """A dense run starts from the weights of its classification run."""
    parent = run_of(wildcards).parent
    return [str(parent.checkpoint)] if parent else []


# Periodic checkpoints lie in the run's work folder, which is no output: a failed job keeps them and resumes.
# The fingerprint among the params makes a rerun follow from what a run means, not from files' bytes.
rule train_run:
    """Train one run to its final checkpoint, resuming from its work folder."""
    input:
        data=f"{RESULTS}/data/{{task}}.json",
        weights=starting_weights,
    output:
        f"{RESULTS}/{{task}}/{{model}}/seed{{seed}}/checkpoint.pth",
    log:
        f"{RESULTS}/{{task}}/{{model}}/seed{{seed}}/train.log",
    priority: 20
    threads: 1
    resources:
        **asked(lambda wildcards, attempt: BOOK.train(run_of(wildcards), attempt), GPU),
    params:
        fingerprint=lambda wildcards: run_of(wildcards).fingerprint,
        launcher=lambda wildcards, resources: BOOK.train(run_of(wildcards)).launcher,
        nodes=lambda wildcards, resources: resources.nodes,
        processes=lambda wildcards, resources: max(
            1, BOOK.train(run_of(wildcards)).gpus_per_node
        ),
        stop_after=lambda wildcards, resources: SITE.stop_after_s(resources.runtime),
    # All but the fingerprint follow from resources, which Snakemake therefore does not compare: another site, or another
    # attempt, makes nothing again.
    # Inside Slurm a training leaves in time to be resumed by the next attempt; elsewhere nothing limits it.
    # tee shows progress and outlives the signals that ask the trainer to save and stop.
    shell:
        "${{SLURM_JOB_ID:+env HAFABENCH_STOP_AFTER_SECONDS={params.stop_after}}} "
        f"{{params.launcher}}hafabench train {{wildcards.task}}/{{wildcards.model}}/seed{{wildcards.seed}} "
        f"--experiment {EXPERIMENT_FILE} --threads {{threads}} "
        "--nodes {params.nodes} --processes {params.processes} 2>&1 "
        "| (trap '' INT TERM; exec tee {log})"
