#!/usr/bin/env bash
# The README's table: every method on one task of each format. experiments/minilm.sh DATA [method/task ...]
# DATA holds the folders cola, codah, squad_subset and conll2003 with train and validation files in the hub's columns.
set -euo pipefail
data=$1
shift
runs=("$@")
if [ ${#runs[@]} = 0 ]; then
  for task in cola swag conll2003 squad; do
    for method in fine_tuning linear_probe p_tuning_v2; do runs+=("$method/$task"); done
  done
fi
# SQuAD is large for two CPU cores: 10 % of the train batches an epoch, validation after the last one only.
squad=(--trainer.limit_train_batches 0.1 --trainer.check_val_every_n_epoch 3)
declare -A folder=([swag]=codah [squad]=squad_subset)
mkdir -p experiments/results
for run in "${runs[@]}"; do
  task=${run#*/}
  dir=runs/minilm/$run
  extra=()
  [ "$task" = squad ] && extra=("${squad[@]}")
  python -m ptune.fit --config "experiments/$run.yaml" --data.path "$data/${folder[$task]:-$task}" --run_dir "$dir" \
    --trainer.enable_progress_bar false "${extra[@]}"
  cp "$dir/result.json" "experiments/results/${run/\//-}.json"
done
