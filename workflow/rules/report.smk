rule collect_records:
    """Collect all records into one tidy frame."""
    input:
        inputs_of("collect_records"),
    output:
        RULES["collect_records"].outputs,
    log:
        RULES["collect_records"].logs,
    resources:
        **resources_of("collect_records"),
    params:
        fingerprint=fingerprint_of("collect_records"),
        command=command_of("collect_records"),
        shown=SHOWN,
    shell:
        "{params.command} 2>&1 | tee {log:q}{params.shown}"


rule draw_pictures:
    """Draw clusters, segmentations and sampling points with the weights of a few trained runs."""
    input:
        inputs_of("draw_pictures"),
    output:
        RULES["draw_pictures"].outputs,
    log:
        RULES["draw_pictures"].logs,
    threads: RULES["draw_pictures"].threads
    resources:
        **resources_of("draw_pictures"),
    params:
        fingerprint=fingerprint_of("draw_pictures"),
        command=command_of("draw_pictures"),
    shell:
        "{params.command} --threads {threads} > {log:q} 2>&1"


rule write_report:
    """Write Tables 1-6, the comparisons, the paper's claims, the figures, and one report of them all."""
    input:
        inputs_of("write_report"),
    output:
        RULES["write_report"].outputs,
    log:
        RULES["write_report"].logs,
    resources:
        **resources_of("write_report"),
    params:
        fingerprint=fingerprint_of("write_report"),
        command=command_of("write_report"),
        shown=SHOWN,
    shell:
        "{params.command} 2>&1 | tee {log:q}{params.shown}"
