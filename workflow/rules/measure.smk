rule count_complexity:
    """Count parameters and multiply-accumulates of every model that the tables need for one task."""
    input:
        inputs_of("count_complexity"),
    output:
        RULES["count_complexity"].outputs,
    log:
        RULES["count_complexity"].logs,
    resources:
        **resources_of("count_complexity"),
    params:
        fingerprint=fingerprint_of("count_complexity"),
        command=command_of("count_complexity"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule count_conventions:
    """Count every model of the tables part by part, for any convention of a printed figure."""
    input:
        inputs_of("count_conventions"),
    output:
        RULES["count_conventions"].outputs,
    log:
        RULES["count_conventions"].logs,
    resources:
        **resources_of("count_conventions"),
    params:
        fingerprint=fingerprint_of("count_conventions"),
        command=command_of("count_conventions"),
    shell:
        "{params.command} > {log:q} 2>&1"


rule measure_latency:
    """Time the models of one group against their baseline, interleaved in one process on an idle machine."""
    input:
        inputs_of("measure_latency"),
    output:
        RULES["measure_latency"].outputs,
    log:
        RULES["measure_latency"].logs,
    # All local cores, so that no other job runs beside it and disturbs the clock.
    threads: workflow.resource_settings.cores or 1
    resources:
        **resources_of("measure_latency"),
    params:
        fingerprint=fingerprint_of("measure_latency"),
        command=command_of("measure_latency"),
    shell:
        "{params.command} > {log:q} 2>&1"
