#!/usr/bin/env bash
# The peers' environments, each pinned and on its own: benchmarks/peers.sh [NAME ...]; all of them without a name.
#
#   hf         torch, transformers, trl, peft (rows of training, sampling, cold start)
#   ppo        the same with the last trl that has PPO (rows of PPO)
#   litgpt     torch, litgpt            (pretraining)
#   llamacpp   llama-cpp-python, built here by cmake for this machine (sampling, greedy); gguf to write the weights
#   data       datatrove and its tokenizer of English, rensa (signatures of duplicates)
#   nanochat   what a checkout of nanochat imports (sampling); the checkout itself is named by NANOCHAT=/path
#
# They lie in benchmarks/.peers/NAME. An interrupted run goes on where it was. Instead of an environment made here,
# PEER_HF, PEER_PPO, PEER_LITGPT, PEER_LLAMACPP, PEER_NANOCHAT, PEER_DATA may name an interpreter that has the same
# versions.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

make() {  # NAME REQUIREMENT...
    local name=$1 folder="$here/.peers/$1"
    shift
    if [ "$(cat "$folder/.made" 2>/dev/null || true)" = "$*" ]; then
        echo "$name: is there"
        return
    fi
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    echo "$name: $*"
    if [ "$name" = llamacpp ]; then
        # its build takes minutes: source and build stay in folders of their own, so that it goes on after an interruption
        local source="$here/.peers/llamacpp-source"
        "$folder/bin/python" -m pip install --quiet 'scikit-build-core[pyproject]==0.11.6' cmake==4.4.4 ninja==1.13.2
        if [ ! -f "$source/pyproject.toml" ]; then
            "$folder/bin/python" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: -d "$source" "$1"
            tar -xzf "$source"/*.tar.gz -C "$source" --strip-components=1
        fi
        PATH="$folder/bin:$PATH" CMAKE_ARGS='-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_CURL=OFF' \
            "$folder/bin/python" -m pip install --quiet --no-build-isolation \
            --config-settings "build-dir=$here/.peers/llamacpp-build" "$source"
        "$folder/bin/python" -m pip install --quiet "${@:2}"
    else
        "$folder/bin/python" -m pip install --quiet "$@"
    fi
    printf '%s' "$*" > "$folder/.made"
}

peer() {
    case $1 in
        hf) make hf torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0 peft==0.21.2 ;;
        ppo) make ppo torch==2.13.0 transformers==5.23.0 trl==1.12.0 datasets==5.2.0 accelerate==1.15.0 ;;
        litgpt) make litgpt torch==2.13.0 litgpt==0.5.13 ;;
        llamacpp) make llamacpp llama-cpp-python==0.3.36 gguf==0.19.0 safetensors==0.8.0 ;;
        data) make data datatrove==0.10.0 'xxhash<4' rensa==0.5.0 nltk==3.10.4 regex==2026.11.15 spacy==3.8.18 tokenizers==0.23.3 ;;
        nanochat) make nanochat torch==2.13.0 tiktoken==0.14.0 filelock==4.2.11 numpy==2.4.6 ;;
        *) echo "peers.sh: no peer is called $1; there are hf, ppo, litgpt, llamacpp, nanochat, data" >&2; exit 2 ;;
    esac
}

for name in "${@:-hf ppo litgpt llamacpp nanochat data}"; do
    for one in $name; do peer "$one"; done
done
