#!/usr/bin/env bash
# The lecture's comparison: SST-2 with every method, one model. experiments/lecture.sh DATA BACKBONE [method ...]
# DATA holds sst2/; BACKBONE is a masked language model: its template reads direct use, soft prompts and P-Tuning v1.
# Table: python experiments/table.py lecture
set -euo pipefail
data=$1 backbone=$2
shift 2
methods=("$@")
if [ ${#methods[@]} = 0 ]; then
  methods=(manual linear_probe prompt_tuning p_tuning p_tuning_v2 bitfit lora fine_tuning_cloze fine_tuning)
fi
mkdir -p experiments/results/lecture
for method in "${methods[@]}"; do
  command=fit result=result.json
  if [ "$method" = manual ]; then command=evaluate result=evaluation.json; fi
  python -m "ptune.$command" --config "experiments/lecture/$method.yaml" --model.backbone "$backbone" \
    --data.path "$data/sst2" --run_dir "runs/lecture/$method" --trainer.enable_progress_bar false
  # The model by its name alone: where it lies says nothing.
  sed "s#\"$backbone\"#\"$(basename "$backbone")\"#" "runs/lecture/$method/$result" >"experiments/results/lecture/$method.json"
done
