rule evaluate_run:
    """Evaluate a final checkpoint on the validation split."""
    input:
        inputs_of("evaluate_run"),
    output:
        RULES["evaluate_run"].outputs,
    threads: RULES["evaluate_run"].threads
    resources:
        **resources_of("evaluate_run"),
    params:
        fingerprint=fingerprint_of("evaluate_run"),
        command=command_of("evaluate_run"),
        log=log_of("evaluate_run"),
        python=sys.executable,
        shown=QUIETLY,
    shell:
        "{params.command} --threads {threads} 2>&1 "
        "| (trap '' INT TERM HUP; exec {params.python:q} -m hafabench.runs.job_log {params.log:q}{params.shown})"
