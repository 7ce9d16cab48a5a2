# Nothing is an output here: asked for, the comparison runs. The reports are logs, which Snakemake keeps on failure.
rule regression:
    """Compare the experiment's records with the baseline in results/baseline; fail where something is worse."""
    input:
        list(RECORDS),
    log:
        markdown=f"{REPORTS}/regression.md",
        junit=f"{REPORTS}/regression.xml",
    resources:
        **asked(lambda wildcards, attempt: BOOK.collect(attempt)),
    params:
        limits=f"{workflow.basedir}/configs/regression.yaml",
    shell:
        f"hafabench regress --baseline results/baseline --candidate {RESULTS} --limits {{params.limits}} "
        "--markdown {log.markdown} --junit {log.junit}"
