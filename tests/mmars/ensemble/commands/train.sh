#!/usr/bin/env bash
# Trains the network of one fold: train.sh 0

. "$(dirname -- "$0")/set_env.sh"
FOLD=${1:-0}
CONFIG_FILE=config/config_train.json
ENVIRONMENT_FILE=config/environment.json

python3 -u -m medl.apps.train \
    -m "$MMAR_ROOT" \
    -c "$CONFIG_FILE" \
    -e "$ENVIRONMENT_FILE" \
    --write_train_stats \
    --set \
    epochs=1 \
    seed="$FOLD" \
    "TRAIN_DATALIST_KEY=fold_$FOLD" \
    "MMAR_CKPT_DIR=models/fold_$FOLD" \
    ${additional_options}
