rule prepare_dataset:
    """Generate the data set if the experiment defines a generator, and verify it."""
    input:
        inputs_of("prepare_dataset"),
    output:
        RULES["prepare_dataset"].outputs,
    log:
        RULES["prepare_dataset"].logs,
    priority: RULES["prepare_dataset"].priority
    resources:
        **resources_of("prepare_dataset"),
    params:
        fingerprint=fingerprint_of("prepare_dataset"),
        command=command_of("prepare_dataset"),
        shown=SHOWN,
    shell:
        "{params.command} 2>&1 | tee {log:q}{params.shown}"
