"""A working folder like a user's on a cluster's shared file system, with an experiment that takes minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.support.experiments import EXAMPLE
from tools.checkout import REPOSITORY
from tools.slurm_cluster.cluster import SlurmCluster
from tools.slurm_cluster.configuration import ACCOUNT
from tools.slurm_cluster.driver import QUICK, Driver

EXPERIMENT = "configs/faults.yaml"
MODEL = "resnet18"


def shrink(content: dict[str, Any], epochs: int) -> None:
    """Train one small classification model for ten steps per epoch, with a checkpoint every ten steps."""
    content["experiment"] = "faults"
    content["seeds"] = [0, 1]
    content["train"] = {"classification": [MODEL]}
    dataset = content["datasets"]["classification"]
    dataset["images"] = {"train": 40, "val": 10}
    dataset["generator"]["image_size"] = 32
    content["datasets"] = {"classification": dataset}
    content["latency"] = []
    steps = {"image_size": 32, "batch_size": 4, "lr_batch_size": 4, "epochs": epochs, "warmup_epochs": 1}
    operation = {"eval_batch_size": 10, "workers": 0, "checkpoint_every": 10, "log_every": 5}
    content["overrides"] = [{"runs": "classification/*", "why": "tests", "set": steps | operation}]


class Workspace:
    """A folder with the checkout's workflow and configuration, where ``snakemake --profile slurm`` works.

    Args:
        folder: Path of the folder, which is created.
        site: Content of its site file. The account of the test cluster is added.
        scale: Scale of the experiment; trainings of ``full`` request GPUs.
        epochs: Number of epochs of ten steps each.
        template: Another workspace, whose prepared and verified data set is used.
    """

    def __init__(
        self,
        folder: Path,
        site: dict[str, Any],
        template: Workspace | None = None,
        *,
        scale: str = "embedded",
        epochs: int = 12,
    ):
        self.folder = folder
        folder.mkdir()
        for name in ("Snakefile", "workflow", "slurm", "configs"):
            source = REPOSITORY / name
            if source.is_symlink() or source.is_file():
                shutil.copy2(source, folder / name, follow_symlinks=False)
            else:
                shutil.copytree(source, folder / name, symlinks=True)
        content = yaml.safe_load(EXAMPLE.read_text())
        shrink(content, epochs)
        content["scale"] = scale
        (folder / EXPERIMENT).write_text(yaml.safe_dump(content, sort_keys=False))
        (folder / "configs/site.yaml").write_text(yaml.safe_dump({"account": ACCOUNT, **site}))
        if template is not None:
            (folder / "data").symlink_to(template.folder / "data")
            shutil.copytree(template.folder / "results/faults/data", folder / "results/faults/data")

    def run_folder(self, seed: int = 0) -> Path:
        return self.folder / f"results/faults/classification/{MODEL}/seed{seed}"

    def is_training(self, seed: int = 0) -> bool:
        """Whether a work checkpoint exists and the final checkpoint does not."""
        folder = self.run_folder(seed)
        return (folder / "work/state.pth").exists() and not (folder / "checkpoint.pth").exists()

    def start(self, cluster: SlurmCluster, *arguments: str, seeds: tuple[int, ...] = (0,)) -> Driver:
        """Start ``snakemake --profile slurm`` on the records of the runs with ``seeds``."""
        records = [str((self.run_folder(seed) / "evaluate.json").relative_to(self.folder)) for seed in seeds]
        command = ["--profile", "slurm", "--configfile", EXPERIMENT, *QUICK, *arguments]
        # Targets come first, because an option with several values would take them.
        return Driver(cluster, self.folder, *records, *command)

    def slurm_logs(self, rule: str = "train_run") -> list[str]:
        """What Slurm kept of every attempt of the rule's jobs, oldest first."""
        paths = (self.folder / f"logs/slurm/faults/rule_{rule}").rglob("*.log")
        return [path.read_text() for path in sorted(paths, key=lambda path: int(path.stem))]
