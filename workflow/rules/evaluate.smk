rule evaluate_run:
    """Evaluate a final checkpoint on the validation split."""
    input:
        checkpoint=f"{RESULTS}/{{task}}/{{model}}/seed{{seed}}/checkpoint.pth",
        data=f"{RESULTS}/data/{{task}}.json",
    output:
        f"{RESULTS}/{{task}}/{{model}}/seed{{seed}}/evaluate.json",
    log:
        f"{RESULTS}/{{task}}/{{model}}/seed{{seed}}/evaluate.log",
    threads: 1
    resources:
        **asked(
            lambda wildcards, attempt: BOOK.evaluate(run_of(wildcards), attempt), GPU
        ),
    params:
        fingerprint=lambda wildcards: run_of(wildcards).fingerprint,
    shell:
        f"hafabench evaluate {{wildcards.task}}/{{wildcards.model}}/seed{{wildcards.seed}} "
        f"--experiment {EXPERIMENT_FILE} --threads {{threads}} > {{log}} 2>&1"
