"""A miniature of the embedded experiment, all of it, through the profile: `make demo-slurm` in small."""

from __future__ import annotations

import yaml

from hafabench.cluster.cells import cells
from hafabench.config import load_experiment
from hafabench.results.collect import read_frame
from tests.slurm.cluster import SlurmCluster
from tests.slurm.demo import SITE, check_results, compare, run_experiment
from tests.slurm.driver import Driver
from tests.slurm.workspace import Workspace
from tests.workflow.test_miniature import shrink


def test_from_data_to_tables_and_costs(cluster: SlurmCluster, tmp_path):
    folder = Workspace(tmp_path / "checkout", {}).folder
    content = yaml.safe_load((folder / "configs/digits.yaml").read_text())
    shrink(content)
    (folder / "configs/miniature.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    submitted = run_experiment(cluster, folder, "configs/miniature.yaml", timeout=900)

    record = check_results(folder, "digits")
    known = cells(load_experiment(folder / "configs/miniature.yaml")).values()
    without_job = ("prepare_dataset", "collect_records", "write_report")
    expected = {cell.id for cell in known if cell.rule not in without_job}
    assert {f"{cell.rule} {cell.subject}".strip() for cell in record.cells} == expected
    assert submitted == len(expected)
    assert all(cell.peak_memory_mb and cell.nodes and cell.elapsed_h for cell in record.cells)
    costs = (folder / "reports/digits/costs.md").read_text()
    assert "| train_run | classification/resnet18/seed0 | COMPLETED | 1 | 0 |" in costs
    assert 'id="costs"' in (folder / "reports/digits/report.html").read_text()
    # A workflow or a site that changed meanwhile, as by `git pull`: what is there means the same.
    rule = folder / "workflow/rules/train.smk"
    rule.write_text(rule.read_text().replace("{{params.launcher}}hafabench", "{{params.launcher}} hafabench"))
    (folder / "site.yaml").write_text(yaml.safe_dump({**SITE, "stop_margin_minutes": 1}))
    arguments = ("all", "--profile", "slurm", "--configfile", "configs/miniature.yaml", "--dry-run")
    with Driver(cluster, folder, *arguments, env={"HAFABENCH_SITE": "site.yaml"}) as driver:
        assert "Nothing to be done" in driver.succeeds(120)

    frame = read_frame(folder / "results/digits/frame.parquet")
    assert compare(frame, frame) == len(frame[frame["verb"] != "latency"])
