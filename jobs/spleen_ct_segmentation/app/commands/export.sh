#!/usr/bin/env bash
# Writes the checkpoint models/model.pt as TorchScript, models/model.ts, and tests what it wrote.
# Other options, or values as NAME=VALUE: behind the command; values also in additional_options.

set -euf -o pipefail # f: no word of additional_options is taken for a file pattern
. "$(dirname -- "${BASH_SOURCE[0]}")/set_env.sh"
additional_options=${additional_options:-}

# Without quotes, because additional_options is a list of words.
# shellcheck disable=SC2086
exec python3 -u -m medl.apps.export \
    -m "$MMAR_ROOT" \
    -c config/config_train.json \
    -e config/environment.json \
    --model_path "$MMAR_ROOT/models/model.pt" \
    --output_path "$MMAR_ROOT/models/model.ts" \
    --input_shape "[1, 1, 32, 32, 32]" \
    --set ${additional_options} "$@"
