#!/bin/sh
# `hafabench` from the Apptainer image instead of the virtual environment. Link it over the environment's command:
#   ln -sf ../../envs/hafabench-apptainer.sh .venv/bin/hafabench
# HAFABENCH_IMAGE names the image, by default hafabench.sif in the checkout. Not run where it was written.
set -eu
root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec apptainer exec --nv --bind "$root" --env "PYTHONPATH=$root/src" \
  "${HAFABENCH_IMAGE:-$root/hafabench.sif}" python -m hafabench "$@"
