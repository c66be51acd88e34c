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
declare -A folder=([swag]=codah [squad]=squad_subset)
# What two CPU cores manage in an hour: fewer epochs than the recipes, for NER and QA on a part of the train batches,
# and for QA evaluation of the last state only (a validation every 3 epochs is none in 2).
declare -A epochs=([linear_probe/cola]=5 [fine_tuning/swag]=2 [linear_probe/swag]=3 [p_tuning_v2/swag]=4
  [fine_tuning/conll2003]=2 [linear_probe/conll2003]=2 [p_tuning_v2/conll2003]=4
  [fine_tuning/squad]=2 [linear_probe/squad]=2 [p_tuning_v2/squad]=2)
declare -A part=([conll2003]="--trainer.limit_train_batches 0.5"
  [squad]="--trainer.limit_train_batches 0.1 --trainer.check_val_every_n_epoch 3")
mkdir -p experiments/results/minilm
for run in "${runs[@]}"; do
  task=${run#*/}
  dir=runs/minilm/$run
  # shellcheck disable=SC2086  # the parts are words
  python -m ptune.fit --config "experiments/$run.yaml" --data.path "$data/${folder[$task]:-$task}" --run_dir "$dir" \
    --trainer.enable_progress_bar false ${epochs[$run]:+--trainer.max_epochs ${epochs[$run]}} ${part[$task]:-}
  cp "$dir/result.json" "experiments/results/minilm/${run/\//-}.json"
done
