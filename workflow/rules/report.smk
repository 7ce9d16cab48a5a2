from hafabench.matrix import expected_records, fingerprint, imported_records

RECORDS = {str(path): mark for path, mark in expected_records(EXPERIMENT).items()}
# Records of numbers from elsewhere: no rule makes them, but tables follow where one is added or taken away.
IMPORTED = {str(path): mark for path, mark in imported_records(EXPERIMENT).items()}


rule collect_records:
    """Collect all records into one tidy frame."""
    input:
        list(RECORDS | IMPORTED),
    output:
        f"{RESULTS}/frame.parquet",
        f"{RESULTS}/frame.csv",
    log:
        f"{RESULTS}/collect.log",
    resources:
        **asked(lambda wildcards, attempt: BOOK.collect(attempt)),
    params:
        fingerprint=fingerprint(RECORDS | IMPORTED),
    shell:
        f"hafabench collect --experiment {EXPERIMENT_FILE} 2>&1 | tee {{log}}"


rule write_report:
    """Write Tables 1-6, the comparisons and the figures."""
    input:
        frame=f"{RESULTS}/frame.parquet",
        layout=str(EXPERIMENT.layout_file),
        paper_values=str(EXPERIMENT.paper_values),
    output:
        expand(
            f"{REPORTS}/tables/{{table}}.{{suffix}}",
            table=[layout.id for layout in EXPERIMENT.layouts],
            suffix=["md", "tex", "csv"],
        ),
        f"{REPORTS}/paper.tex",
        f"{REPORTS}/tables.md",
        f"{REPORTS}/comparisons.md",
        f"{REPORTS}/comparisons.csv",
        f"{REPORTS}/figures/learning_curves.svg",
        f"{REPORTS}/figures/accuracy_vs_complexity.svg",
        f"{REPORTS}/figures/comparisons.svg",
    log:
        f"{RESULTS}/report.log",
    resources:
        **asked(lambda wildcards, attempt: BOOK.report(attempt)),
    shell:
        f"hafabench report --experiment {EXPERIMENT_FILE} 2>&1 | tee {{log}}"
