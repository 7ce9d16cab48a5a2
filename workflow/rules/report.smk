from hafabench.runs.records import expected_records, imported_records
from hafabench.runs.fingerprints import fingerprint
from hafabench.pictures.index import picture_files
from hafabench.runs.picture_runs import picture_subjects

RECORDS = {str(path): mark for path, mark in expected_records(EXPERIMENT).items()}
# Records of numbers from elsewhere: no rule makes them, but tables follow where one is added or taken away.
IMPORTED = {str(path): mark for path, mark in imported_records(EXPERIMENT).items()}
PICTURED = picture_subjects(RUNS)
PICTURES = [str(path) for path in picture_files(EXPERIMENT, PICTURED)]


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


rule draw_pictures:
    """Draw clusters, segmentations and sampling points with the weights of a few trained runs."""
    input:
        checkpoints=[str(run.checkpoint) for run in PICTURED.runs],
    output:
        PICTURES,
    log:
        f"{RESULTS}/pictures.log",
    threads: 1
    resources:
        **asked(lambda wildcards, attempt: BOOK.pictures(attempt)),
    params:
        fingerprint=fingerprint(
            {"pictures": [run.fingerprint for run in PICTURED.runs]}
        ),
    shell:
        f"hafabench pictures --experiment {EXPERIMENT_FILE} --threads {{threads}} > {{log}} 2>&1"


rule write_report:
    """Write Tables 1-6, the comparisons, the paper's claims, the figures and the report of them all."""
    input:
        pictures=PICTURES if PICTURED.can_be_drawn else [],
        frame=f"{RESULTS}/frame.parquet",
        counts=str(counts_record(EXPERIMENT)),
        layout=str(EXPERIMENT.tables_file),
        paper_values=str(EXPERIMENT.paper_values),
        claims=str(EXPERIMENT.claims_file),
    output:
        expand(
            f"{REPORTS}/tables/{{table}}.{{suffix}}",
            table=[layout.id for layout in EXPERIMENT.table_layouts],
            suffix=["md", "tex", "csv"],
        ),
        f"{REPORTS}/report.html",
        f"{REPORTS}/paper.tex",
        f"{REPORTS}/tables.md",
        f"{REPORTS}/comparisons.md",
        f"{REPORTS}/comparisons.csv",
        f"{REPORTS}/claims.md",
        f"{REPORTS}/claims.csv",
        f"{REPORTS}/figures/learning_curves.svg",
        f"{REPORTS}/figures/accuracy_vs_complexity.svg",
        f"{REPORTS}/figures/comparisons.svg",
    log:
        f"{RESULTS}/report.log",
    resources:
        **asked(lambda wildcards, attempt: BOOK.report(attempt)),
    shell:
        f"hafabench report --experiment {EXPERIMENT_FILE} 2>&1 | tee {{log}}"
