rule evaluate_run:
    """Evaluate a final checkpoint on the validation split."""
    input:
        inputs_of("evaluate_run"),
    output:
        RULES["evaluate_run"].outputs,
    log:
        RULES["evaluate_run"].logs,
    threads: RULES["evaluate_run"].threads
    resources:
        **resources_of("evaluate_run"),
    params:
        fingerprint=fingerprint_of("evaluate_run"),
        command=command_of("evaluate_run"),
    shell:
        "{params.command} --threads {threads} > {log:q} 2>&1"
