from hafabench.runs.fingerprints import complexity_fingerprint, latency_fingerprint
from hafabench.runs.static_models import counts_fingerprint
from hafabench.runs.paths import counts_record

LATENCY_GROUPS = {group.name: group for group in EXPERIMENT.config.latency}


rule count_complexity:
    """Count parameters and multiply-accumulates of every model that the tables need for one task."""
    output:
        f"{RESULTS}/complexity/{{task}}.json",
    log:
        f"{RESULTS}/complexity/{{task}}.log",
    resources:
        **asked(lambda wildcards, attempt: BOOK.complexity(wildcards.task, attempt)),
    params:
        fingerprint=lambda wildcards: complexity_fingerprint(EXPERIMENT, wildcards.task),
    shell:
        f"hafabench complexity --task {{wildcards.task}} --format record --experiment {EXPERIMENT_FILE} > {{log}} 2>&1"


rule count_conventions:
    """Take every model of the tables apart, for whatever convention a printed figure was counted under."""
    output:
        str(counts_record(EXPERIMENT)),
    log:
        f"{RESULTS}/counts.log",
    resources:
        **asked(lambda wildcards, attempt: BOOK.conventions(attempt)),
    params:
        fingerprint=counts_fingerprint(EXPERIMENT),
    shell:
        f"hafabench count --experiment {EXPERIMENT_FILE} > {{log}} 2>&1"


rule measure_latency:
    """Time the models of one group against their baseline, interleaved in one process with the machine to itself."""
    output:
        f"{RESULTS}/latency/{{group}}.json",
    log:
        f"{RESULTS}/latency/{{group}}.log",
    # All local cores, so that no other job runs beside it and disturbs the clock.
    threads: workflow.resource_settings.cores or 1
    resources:
        **asked(
            lambda wildcards, attempt: BOOK.latency(
                LATENCY_GROUPS[wildcards.group], attempt
            ),
            GPU,
        ),
    params:
        fingerprint=lambda wildcards: latency_fingerprint(
            EXPERIMENT, LATENCY_GROUPS[wildcards.group]
        ),
    shell:
        f"hafabench latency {{wildcards.group}} --experiment {EXPERIMENT_FILE} > {{log}} 2>&1"
