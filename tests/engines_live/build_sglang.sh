#!/usr/bin/env bash
# Real SGLang without a GPU, plus the tiny model it serves, into CACHE. Built once; a stamp names what was built.
# usage: build_sglang.sh CACHE      prints the environment's bin folder on its last line
# The small stand-ins that it needs on a CPU stay in sglang_cpu/ and come in by PYTHONPATH.
set -euo pipefail
cache=${1:?usage: build_sglang.sh CACHE}
here=$(cd "$(dirname "$0")" && pwd)
version=0.5.23
env=$cache/sglang-$version
stamp=$env/.llmtop-ready
mkdir -p "$cache"
exec 9>"$cache/.sglang.lock"
flock 9
if [ ! -e "$stamp" ]; then
  rm -rf "$env"
  python=$(command -v python3.11 || command -v python3)
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install -q -U pip
  # torch first and by itself: a CPU wheel on pip's find-links is taken, the index's build would bring CUDA.
  "$env/bin/python" -m pip install -q torch==2.13.0
  # What serving imports. SGLang's own list pulls flashinfer, cutlass and CUDA, so it comes without it, below.
  "$env/bin/python" -m pip install -q \
    'torch==2.13.0' triton torchao transformers==5.12.1 accelerate aiohttp anthropic blobfile distro easydict einops fastapi gguf \
    interegular IPython 'llguidance>=1.7.6,<2.0.0' loguru mistral_common msgspec ninja numba numpy nvidia-ml-py \
    openai==2.6.1 openai-harmony==0.0.4 orjson outlines==0.1.11 packaging partial_json_parser pillow \
    prometheus-client psutil pybase64 pydantic python-dateutil python-multipart pyzmq regex requests safetensors \
    scipy sentencepiece==0.2.1 setproctitle soundfile==0.13.1 tiktoken tqdm uvicorn uvloop watchfiles xxhash zstandard
  "$env/bin/python" -m pip install -q --no-deps xgrammar==0.2.7 dill modelscope timm==1.0.16 \
    apache-tvm-ffi==0.1.11 compressed-tensors==0.18.0 torchvision==0.28.0 "sglang==$version"
  site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp "$here/sglang_cpu/torchvision_schemas.py" "$site/torchvision/_llmtop_schemas.py"
  sed -i '0,/^import/s//from . import _llmtop_schemas\nimport/' "$site/torchvision/__init__.py"
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
