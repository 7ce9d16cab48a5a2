#!/bin/sh
# Run `hafabench` in the Apptainer image. A link replaces the command of the virtual environment by this script:
#   ln -sf ../../envs/hafabench-apptainer.sh .venv/bin/hafabench
# HAFABENCH_IMAGE is the path of the image, by default hafabench.sif in the checkout. This script was never run.
set -eu
root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec apptainer exec --nv --bind "$root" --env "PYTHONPATH=$root/src" \
  "${HAFABENCH_IMAGE:-$root/hafabench.sif}" python -m hafabench "$@"
