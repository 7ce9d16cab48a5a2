# Without an output the comparison runs whenever it is requested. Its reports are logs, which Snakemake keeps on failure.
rule regression:
    """Compare the experiment's records with the baseline in results/baseline; fail if something is worse."""
    input:
        inputs_of("regression"),
    log:
        RULES["regression"].logs,
    resources:
        **resources_of("regression"),
    params:
        command=command_of("regression"),
    shell:
        "{params.command}"
