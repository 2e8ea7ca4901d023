#!/usr/bin/env bash
# Trains on from MMAR_CKPT, with a small learning rate.

. "$(dirname -- "$0")/set_env.sh"
CONFIG_FILE=config/config_train.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.train \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --write_train_stats \
    --set \
    print_conf=True \
    epochs=1 \
    learning_rate=1e-6 \
    multi_gpu=False \
    dont_load_ckpt_model=False \
    ${additional_options}
