#!/usr/bin/env bash
# Trains from the first epoch, on the GPU of that number: train.sh 0

. "$(dirname -- "$0")/set_env.sh"
GPU=${1:-0}
CONFIG_FILE=config/config_train.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.train \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --write_train_stats \
    --set \
    print_conf=True \
    epochs=2 \
    learning_rate=0.01 \
    num_interval_per_valid=1 \
    multi_gpu=False \
    dont_load_ckpt_model=True \
    ${additional_options} "$GPU"
