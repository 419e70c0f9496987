"""Causes of failed starts and deaths, in the frames that engines put around them.

The texts are those that engines, CUDA, compilers, Python and the hub write.
"""

from __future__ import annotations

import pytest

from tests import failure_logs
from tests.failure_logs import told

MACHINE = [
    ("vllm", "core", "OSError: [Errno 28] No space left on device", "a disk is full", "HF_HOME"),
    (
        *("vllm", "worker", "OSError: [Errno 28] No space left on device: '/srv/u/.cache/x/y.so'"),
        *("a disk is full: it could not write /srv/u/.cache/x/y.so", "free space"),
    ),
    ("sglang", "scheduler", "OSError: [Errno 122] Disk quota exceeded: '/h/x'",
     "could not write /h/x", "free"),
    (
        *("vllm", "worker", "OSError: [Errno 28] No space left on device: '/psm_1a2b3c'"),
        *("shared memory (/dev/shm)", "--shm-size"),
    ),
    (
        *("vllm", "worker", "RuntimeError: unable to allocate shared memory(shm) for file "
          "</torch_12_3>: No space left on device (28)"),
        *("shared memory (/dev/shm)", "--shm-size"),
    ),
    (
        *("sglang", "scheduler", "RuntimeError: DataLoader worker (pid 9) is killed by signal: Bus "
          "error. It is possible that dataloader's workers are out of shared memory."),
        *("shared memory (/dev/shm)", "--ipc=host"),
    ),
    (
        *("vllm", "worker", "torch.distributed.DistBackendError: NCCL error in: x.cpp:268, "
          "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\n"
          "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or "
          "device error. \nLast error:\nError while creating shared memory segment "
          "/dev/shm/nccl-x (size 9637888), error: No space left on device (28)"),
        *("shared memory (/dev/shm)", "--shm-size"),
    ),
    (
        *("vllm", "worker", "torch.distributed.DistNetworkError: The server socket has failed to "
          "listen on any local network address. port: 29500, useIpv6: false, code: -98, name: "
          "EADDRINUSE, message: address already in use"),
        *("internal port", "--port does not help"),
    ),
    (
        *("vllm", "front", "zmq.error.ZMQError: Address already in use "
          "(addr='tcp://192.0.2.7:33311')"),
        *("internal port, between its own processes, is taken: tcp://192.0.2.7:33311",
          "--data-parallel-rpc-port"),
    ),
    (
        *("vllm", "core", "OSError: [Errno 98] Address already in use"),
        *("internal port", "VLLM_PORT"),
    ),
    ("vllm", "front", "OSError: [Errno 98] Address already in use", "its port was", "--port"),
    (
        *("sglang", "scheduler", "RuntimeError: The server socket has failed to listen on any "
          "local network address. The server socket has failed to bind to [::]:20001 (errno: 98 - "
          "Address already in use)."),
        *("internal port, between its own processes, is taken: [::]:20001", "--nccl-port"),
    ),
    (
        *("vllm", "lines", "ERROR:    [Errno 98] error while attempting to bind on address "
          "('0.0.0.0', 8000): address already in use"),
        *("its port was taken by another process: 8000", "--port"),
    ),
    (
        *("vllm", "lines", "ERROR:    [Errno 99] error while attempting to bind on address "
          "('10.1.1.1', 8000): cannot assign requested address"),
        *("does not belong to this machine", "--host"),
    ),
    (
        *("vllm", "core", "PermissionError: [Errno 13] Permission denied: "
          "'/srv/u/.cache/vllm/torch_compile_cache'"),
        *("cache folder /srv/u/.cache/vllm/torch_compile_cache", "VLLM_CACHE_ROOT"),
    ),
    (
        *("vllm", "front", "PermissionError: [Errno 13] Permission denied: "
          "'/data/huggingface/hub/models--a--b'"),
        *("/data/huggingface/hub/models--a--b", "HF_HOME"),
    ),
    (
        *("sglang", "scheduler", "OSError: [Errno 30] Read-only file system: "
          "'/srv/u/.triton/cache'"),
        *("/srv/u/.triton/cache", "TRITON_CACHE_DIR"),
    ),
    (
        *("vllm", "core", "PermissionError: [Errno 13] Permission denied: "
          "'/tmp/torchinductor_root/aa'"),
        *("/tmp/torchinductor_root/aa", "TORCHINDUCTOR_CACHE_DIR"),
    ),
    (
        *("vllm", "front", "PermissionError: [Errno 13] Permission denied: '/srv/m/config.json'"),
        *("it is not allowed to read or write /srv/m/config.json", "permissions"),
    ),
    (
        *("vllm", "core", "KeyError: 'getpwuid(): uid not found: 1234'"),
        *("user id 1234 has no entry", "TORCHINDUCTOR_CACHE_DIR"),
    ),
    ("vllm", "core", "OSError: [Errno 24] Too many open files", "file handles", "ulimit -n"),
    ("sglang", "bare", "RuntimeError: can't start new thread", "limit of threads", "ulimit -u"),
    ("vllm", "worker", "MemoryError", "the main memory ran out", "--cpu-offload-gb"),
    ("vllm", "worker", "MemoryError: std::bad_alloc", "the main memory ran out", "main memory"),
    (
        *("vllm", "worker", "RuntimeError: unable to mmap 18329065000 bytes from file "
          "</m/model.safetensors>: Cannot allocate memory (12)"),
        *("main memory ran out while mapping /m/model.safetensors", "overcommit"),
    ),
    (
        *("sglang", "scheduler", "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. "
          "DefaultCPUAllocator: can't allocate memory: you tried to allocate 90194313216 bytes. "
          "Error code 12 (Cannot allocate memory)"),
        *("90194313216 bytes", "--cpu-offload-gb"),
    ),
    (
        *("vllm", "front", "ValueError: Too large swap space. 64.00 GiB out of the 62.81 GiB total "
          "CPU memory is allocated for the swap space."),
        *("64.00 GiB of 62.81 GiB", "--swap-space"),
    ),
    (
        *("vllm", "lines", "terminate called after throwing an instance of 'std::bad_alloc'\n"
          "  what():  std::bad_alloc"),
        *("main memory ran out", "main memory"),
    ),
]  # fmt: skip

COMPILERS = [
    ("vllm", "core", "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' "
     "doesn't exist", "nvcc (the CUDA toolkit) is missing", "VLLM_USE_FLASHINFER_SAMPLER=0"),
    ("sglang", "scheduler", "FileNotFoundError: [Errno 2] No such file or directory: "
     "'/usr/local/cuda/bin/nvcc'", "nvcc (the CUDA toolkit) is missing", "CUDA_HOME"),
    ("sglang", "bare", "OSError: CUDA_HOME environment variable is not set. Please set it to your "
     "CUDA install root.", "nvcc (the CUDA toolkit) is missing", "CUDA_HOME"),
    ("vllm", "worker", "RuntimeError: Ninja build failed. Ninja output:\n/bin/sh: 1: "
     "/usr/local/cuda/bin/nvcc: not found\nninja: build stopped: subcommand failed.",
     "nvcc (the CUDA toolkit) is missing", "CUDA_HOME"),
    ("vllm", "core", "torch._inductor.exc.InductorError: RuntimeError: Failed to find C compiler. "
     "Please specify via CC environment variable", "no C compiler", "gcc"),
    ("vllm", "worker", "FileNotFoundError: [Errno 2] No such file or directory: 'gcc'",
     "no C compiler", "build-essential"),
    ("vllm", "core", "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ "
     "compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')", "no C compiler", "g++"),
    ("vllm", "worker", "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
     "ninja is missing", "PATH"),
    ("sglang", "scheduler", "RuntimeError: Ninja is required to load C++ extensions (pip install "
     "ninja to get it)", "ninja is missing", "install ninja"),
    ("vllm", "core", "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen "
     "error\n`ptxas` stderr:\nptxas fatal   : Value 'sm_121a' is not defined for option "
     "'gpu-name'\n\nRepro command: ptxas -lineinfo", "ptxas is older than this GPU: it does not "
     "know sm_121a", "TRITON_PTXAS_PATH"),
    ("vllm", "core", "RuntimeError: Internal Triton PTX codegen error\n`ptxas` stderr:\nptxas "
     "/tmp/x.ptx, line 12; error   : Feature '.bf16' requires .target sm_80 or higher",
     "this GPU", "--dtype half"),
    ("vllm", "core", "RuntimeError: Ninja build failed. Ninja output:\nnvcc fatal   : Unsupported "
     "gpu architecture 'compute_120a'", "nvcc is older than this GPU", "CUDA_HOME"),
    ("vllm", "core", "RuntimeError: Cannot find ptxas", "ptxas", "TRITON_PTXAS_PATH"),
]  # fmt: skip

GPU = [
    ("vllm", "worker", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some "
     "cuda functions before calling NumCudaDevices() that might have already set an error? Error "
     "802: system not yet initialized", "NVLink fabric", "nvidia-fabricmanager"),
    ("vllm", "worker", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: "
     "system has unsupported display driver / cuda driver combination", "different versions",
     "restart"),
    ("vllm", "worker", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: "
     "forward compatibility was attempted on non supported HW", "forward compatibility", "driver"),
    ("vllm", "core", "RuntimeError: The NVIDIA driver on your system is too old (found version "
     "12020). Please update your GPU driver", "driver is too old", "update the driver"),
    ("vllm", "core", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 35: CUDA "
     "driver version is insufficient for CUDA runtime version", "too old", "update the driver"),
    ("sglang", "scheduler", "RuntimeError: CUDA error: the provided PTX was compiled with an "
     "unsupported toolchain.", "driver is too old", "update the driver"),
    ("vllm", "front", "RuntimeError: Failed to infer device type, please set the environment "
     "variable `VLLM_LOGGING_LEVEL=DEBUG`", "no usable NVIDIA GPU", "CUDA_VISIBLE_DEVICES"),
    ("vllm", "worker", "RuntimeError: No CUDA GPUs are available", "no usable NVIDIA GPU",
     "--gpus"),
    ("vllm", "core", "pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch",
     "different versions", "restart the machine"),
    ("vllm", "worker", "torch.AcceleratorError: CUDA error: invalid device ordinal",
     "fewer GPUs are visible", "--tensor-parallel-size"),
    ("vllm", "running", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
     "ECC", "nvidia-smi"),
    ("vllm", "running", "torch.AcceleratorError: CUDA error: an illegal memory access was "
     "encountered\nCUDA kernel errors might be asynchronously reported", "illegal memory access",
     "--enforce-eager"),
    ("sglang", "scheduler", "RuntimeError: CUDA error: device-side assert triggered",
     "device-side assert", "CUDA_LAUNCH_BLOCKING"),
    ("vllm", "running", "torch.AcceleratorError: CUDA error: unspecified launch failure",
     "CUDA failed: unspecified launch failure", "dmesg"),
    ("vllm", "worker", "torch.AcceleratorError: CUDA error: no kernel image is available for "
     "execution on the device\nCompile with TORCH_USE_CUDA_DSA", "no kernels for this GPU",
     "build"),
    ("vllm", "worker", "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or "
     "unavailable", "uses a GPU exclusively", "compute mode"),
    ("vllm", "core", "ValueError: Bfloat16 is only supported on GPUs with compute capability of at "
     "least 8.0. Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead",
     "Tesla T4 has compute capability 7.5, 8.0 is needed", "--dtype half"),
    ("vllm", "front", "ValueError: The quantization method fp8 is not supported for the current "
     "GPU. Minimum capability: 89. Current capability: 75.", "fp8 needs compute capability 8.9",
     "another quantisation"),
    ("vllm", "front", "ValueError: torch.bfloat16 is not supported for quantization method awq. "
     "Supported dtypes: [torch.float16]", "awq does not work with bfloat16", "--dtype"),
    ("vllm", "core", "ValueError: type fp8e4nv not supported in this architecture. The supported "
     "fp8 dtypes are ('fp8e4b15', 'fp8e5')", "FP8", "8.9"),
    ("vllm", "core", "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
     "FlashAttention only supports Ampere GPUs or newer", "attention backend"),
    ("vllm", "worker", "triton.runtime.errors.OutOfResources: out of resource: shared memory, "
     "Required: 163840, Hardware limit: 101376. Reducing block sizes may help.",
     "needs 163840 bytes", "attention backend"),
    ("vllm", "worker", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
     "GPU 0 has a total capacity of 23.64 GiB of which 1.12 GiB is free.",
     "out of GPU memory: 2.00 GiB asked for, 1.12 GiB of 23.64 GiB free",
     "--gpu-memory-utilization"),
    ("vllm", "running", "RuntimeError: Triton Error [CUDA]: out of memory", "out of GPU memory",
     "--max-num-seqs"),
    ("sglang", "scheduler", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
     "`cublasCreate(handle)`", "out of GPU memory", "--mem-fraction-static"),
    ("vllm", "worker", "torch.AcceleratorError: CUDA error: out of memory", "out of GPU", "--max"),
    ("vllm", "worker", "torch.distributed.DistBackendError: NCCL error in: x.cpp:77, unhandled "
     "cuda error\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure "
     "2 'out of memory'", "out of GPU memory", "--gpu-memory-utilization"),
    ("trt", "rank", "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, "
     "mMemPool->getPool(), mCudaStream->get()): out of memory (/src/tllmBuffers.h:125)",
     "out of GPU memory", "--kv_cache_free_gpu_memory_fraction"),
    ("vllm", "worker", "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA "
     "with multiprocessing, you must use the 'spawn' start method", "before its processes were "
     "forked", "VLLM_WORKER_MULTIPROC_METHOD=spawn"),
    ("vllm", "worker", "RuntimeError: CUDA error: operation not permitted when stream is capturing",
     "CUDA graph could not be captured", "--enforce-eager"),
    ("vllm", "lines", "Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:453 'invalid "
     "argument'", "custom all-reduce between the GPUs failed", "--disable-custom-all-reduce"),
    ("vllm", "front", "requests.exceptions.SSLError: (MaxRetryError(\"HTTPSConnectionPool(host="
     "'huggingface.co', port=443): Max retries exceeded with url: /x (Caused by SSLError("
     "SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
     "unable to get local issuer certificate (_ssl.c:1000)')))\"))",
     "hub's certificate is not trusted", "SSL_CERT_FILE"),
    ("vllm", "front", "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found",
     "no usable NVIDIA GPU", "nvidia-smi"),
    ("vllm", "core", "ImportError: Please install bitsandbytes>=0.46.1 via `pip install "
     "bitsandbytes>=0.46.1` to use bitsandbytes quantizer.",
     "lacks the package bitsandbytes>=0.46.1", "--python"),
    ("vllm", "core", "ImportError: libcuda.so.1: cannot open shared object file: No such file or "
     "directory", "driver's library libcuda.so.1 is missing", "--gpus all"),
]  # fmt: skip

LIBRARIES = [
    ("sglang", "bare", "ImportError: libnvrtc.so.12: cannot open shared object file: No such file",
     "libnvrtc.so.12 is missing", "CUDA"),
    ("sglang", "bare", "ImportError: \n[sgl_kernel] CRITICAL: Could not load any common_ops "
     "library!\n\nError details from previous import attempts:\n- ImportError: libnvrtc.so.12: "
     "cannot open shared object file\n- ModuleNotFoundError: No module named 'common_ops'",
     "sgl_kernel does not load: the library libnvrtc.so.12 is missing", "sgl-kernel"),
    ("sglang", "bare", "ImportError: \n[sgl_kernel] CRITICAL: Could not load any common_ops "
     "library!\n- ImportError: /v/common_ops.abi3.so: undefined symbol: _ZN3c10X\n"
     "- ModuleNotFoundError: No module named 'common_ops'", "does not fit this PyTorch", "torch"),
    ("vllm", "bare", "ImportError: /v/vllm/_C.abi3.so: undefined symbol: _ZN5torch3jitX",
     "_C.abi3.so does not fit the PyTorch", "fresh environment"),
    ("vllm", "bare", "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found",
     "GLIBCXX_3.4.30 is missing", "libstdc++"),
    ("vllm", "bare", "ImportError: /lib/libc.so.6: version `GLIBC_2.32' not found",
     "GLIBC_2.32 is missing", "newer system"),
    ("vllm", "front", "ModuleNotFoundError: No module named 'gguf'", "lacks the module 'gguf'",
     "install it"),
    ("vllm", "lines", "/usr/bin/python3: No module named vllm", "lacks the module 'vllm'",
     "--python"),
    ("vllm", "bare", "ImportError: cannot import name 'AutoModelForVision2Seq' from 'transformers'"
     " (/v/__init__.py)", "are incompatible", "fresh environment"),
    ("vllm", "lines", "trtllm: error while loading shared libraries: libmpi.so.40: cannot open "
     "shared object file: No such file", "libmpi.so.40 is missing", "LD_LIBRARY_PATH"),
]  # fmt: skip

MODEL = [
    ("vllm", "core", "RuntimeError: Cannot find any model weights with `/models/x`",
     "no weight files in /models/x", "safetensors"),
    ("vllm", "worker", "safetensors_rust.SafetensorError: Error while deserializing header: "
     "MetadataIncompleteBuffer", "a weight file is damaged", "download the model again"),
    ("vllm", "worker", "safetensors_rust.SafetensorError: Error while deserializing header: "
     "incomplete metadata, file not fully covered", "a weight file is damaged", "again"),
    ("vllm", "worker", "safetensors_rust.SafetensorError: Error while deserializing header: "
     "HeaderTooLarge", "Git LFS pointer", "git lfs pull"),
    ("vllm", "worker", "_pickle.UnpicklingError: invalid load key, 'v'.", "Git LFS", "git lfs"),
    ("vllm", "worker", "FileNotFoundError: No such file or directory: "
     '"/m/model-00002-of-00004.safetensors"', "lacks a file: /m/model-00002", "again"),
    ("vllm", "worker", "KeyError: 'model.layers.0.mlp.experts.w13_weight_scale'",
     "weights do not fit", "config.json"),
    ("vllm", "front", "pydantic_core._pydantic_core.ValidationError: 1 validation error for "
     "ModelConfig\n  Value error, The repository /models/x contains custom code which must be "
     "executed to correctly load the model.\nPlease pass the argument `trust_remote_code=True` to "
     "allow custom code to be run. [type=value_error, input_value=A]", "own code",
     "--trust-remote-code"),
    ("vllm", "front", "pydantic_core._pydantic_core.ValidationError: 1 validation error for "
     "ModelConfig\n  Value error, The checkpoint you are trying to load has model type `qwen9` but "
     "Transformers does not recognize this architecture.", "model type qwen9", "transformers"),
    ("sglang", "bare", "KeyError: 'qwen9'\n\nDuring handling of the above exception, another "
     "exception occurred:\n\nTraceback (most recent call last):\n  File \"/x.py\", line 1, in f\n"
     "ValueError: The checkpoint you are trying to load has model type `qwen9` but Transformers "
     "does not recognize this architecture.", "model type qwen9", "SGLang"),
    ("vllm", "front", "ValueError: Model architectures ['NewForCausalLM'] are not supported for "
     "now.", "vLLM does not support the architecture ['NewForCausalLM']", "a newer vLLM"),
    ("vllm", "front", "requests.exceptions.HTTPError: 401 Client Error\n\nThe above exception was "
     "the direct cause of the following exception:\n\nTraceback (most recent call last):\n"
     "OSError: You are trying to access a gated repo.", "", "HF_TOKEN"),
    ("vllm", "front", "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
     "hub could not be reached", "HF_HUB_OFFLINE"),
    ("sglang", "bare", "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while "
     "trying to locate the files on the Hub", "hub could not be reached", "HF_HUB_OFFLINE"),
    ("vllm", "front", "OSError: Can't load tokenizer for '/m'. If you were trying to load it",
     "tokenizer could not be loaded", "tokenizer"),
    ("vllm", "front", "ValueError: Tokenizer class Qwen9Tokenizer does not exist or is not "
     "currently imported.", "tokenizer could not be loaded", "transformers"),
    ("vllm", "front", "ValueError: The supplied chat template (/x.jinja) looks like a file path, "
     "but it failed to be opened", "chat template could not be used", "--chat-template"),
    ("vllm", "front", "ValueError: Quantization method specified in the model config (awq) does "
     "not match the quantization method specified in the `quantization` argument (gptq).",
     "--quantization gptq does not fit", "--quantization awq"),
]  # fmt: skip

LIMITS = [
    ("vllm", "core", "ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (969). "
     "Each decode sequence requires one", "--max-num-seqs 1024 exceeds the 969",
     "--max-num-seqs 969"),
    ("vllm", "core", "ValueError: The model's max seq len (131072) is larger than the maximum "
     "number of tokens that can be stored in KV cache (17440). Try increasing",
     "holds 17440 tokens, and --max-model-len is 131072", "--max-model-len to 17440"),
    ("vllm", "core", "ValueError: To serve at least one request with the model's max seq len "
     "(131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache memory "
     "(9.80 GiB). Based on the available memory, the estimated maximum model length is 80256.",
     "it has 9.80 GiB", "--max-model-len to 80256"),
    ("vllm", "worker", "ValueError: Free memory on device cuda:0 (10.12/79.11 GiB) on startup is "
     "less than desired GPU memory utilization (0.92, 72.78 GiB).",
     "72.78 GiB of GPU memory are requested, but only 10.12 of 79.11 GiB are free",
     "--gpu-memory-utilization from 0.92"),
    ("vllm", "front", "ValueError: LoRA rank 64 is greater than max_lora_rank 16.", "rank 64",
     "--max-lora-rank 64"),
    ("vllm", "front", "ValueError: Chunked MM input disabled but max_tokens_per_mm_item (16384) is "
     "larger than max_num_batched_tokens (2048).", "takes 16384 tokens",
     "--max-num-batched-tokens to 16384"),
    ("vllm", "front", "ValueError: Total number of attention heads (28) must be divisible by tensor"
     " parallel size (8).", "28 attention heads cannot be split over 8", "--tensor-parallel-size"),
    ("sglang", "scheduler", "AssertionError: 28 is not divisible by 8", "28 is not divisible by 8",
     "--tp-size"),
    ("vllm", "worker", "ValueError: Weight output_partition_size = 576 is not divisible by weight "
     "quantization block_n = 128.", "576 is not a multiple of 128", "--tensor-parallel-size"),
    ("vllm", "front", "pydantic_core.ValidationError: 1 validation error for VllmConfig\n  Value "
     "error, Something new is wrong. [type=value_error, input_value=A]\n    For further "
     "information visit x", "VllmConfig was refused: Something new is wrong.", "llmtop logs web"),
    ("vllm", "front", "pydantic_core.ValidationError: 1 validation error for CacheConfig\n"
     "gpu_memory_utilization\n  Input should be less than or equal to 1 [type=less_than_equal, "
     "input_value=1.5]", "gpu_memory_utilization: Input should be less than or equal to 1", "log"),
    ("trt", "rank", "[TensorRT-LLM][ERROR] Assertion failed: The number of context tokens (8193) "
     "exceeds the limit value (8192)", "context tokens (8193) exceeds the limit value (8192)",
     "--max_num_tokens"),
    ("trt", "rank", "[TensorRT-LLM][ERROR] Assertion failed: Error occurred when running GEMM! "
     "(/src/tensorrt_llm/cpp/KernelRunner.cpp:180)\n1  0x7fac throwRuntimeError + 97",
     "an assertion failed: Error occurred when running GEMM!", "version"),
    ("sglang", "scheduler", "RuntimeError: Not enough memory. Please try to increase "
     "--mem-fraction-static. Current value: mem_fraction_static=0.3",
     "left no memory for the KV cache (--mem-fraction-static 0.3)", "raise --mem-fraction-static"),
    ("sglang", "scheduler", "RuntimeError: Prefill out of memory. Try to lower your batch size.",
     "KV cache had no room left (Prefill)", "--max-running-requests"),
]  # fmt: skip

MORE = [
    ("vllm", "worker", "zmq.error.ZMQError: Address already in use "
     "(addr='tcp://192.0.2.7:60437')", "internal port", "VLLM_PORT"),
    ("sglang", "scheduler", "zmq.error.ZMQError: Address already in use "
     "(addr='tcp://127.0.0.1:12345')", "internal port, between its own processes, is taken: tcp://",
     "--dist-init-addr"),
    ("vllm", "front", "OSError: /models/x is not a local folder and is not a valid model "
     "identifier listed on 'https://huggingface.co/models'", "there is no model folder /models/x",
     "path"),
    ("vllm", "front", "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.\n\n"
     "Repository Not Found for url: https://huggingface.co/x/y\nInvalid username or password.",
     "the hub has no such model, or you have no access to it", "HF_TOKEN"),
    ("vllm", "worker", "RuntimeError: Data processing error: CAS service error : IO Error: No "
     "space left on device (os error 28)", "a disk is full", "HF_HOME"),
    ("vllm", "worker", "socket.gaierror: [Errno -2] Name or service not known",
     "a host name cannot be resolved", "/etc/hosts"),
    ("vllm", "front", "pydantic_core.ValidationError: 1 validation error for SpeculativeConfig\n  "
     "Value error, num_speculative_tokens must be provided [type=value_error, input_value=A]",
     "configuration was refused: num_speculative_tokens must be provided", "ngram"),
    ("vllm", "core", "TimeoutError: Timed out waiting for engine core processes to start. This is "
     "often caused by slow weight loading for large models. Waited 600s (configured by x).",
     "longer than 600 s", "VLLM_ENGINE_READY_TIMEOUT_S"),
    ("vllm", "core", "ray.exceptions.OutOfMemoryError: Task was killed due to the node running "
     "low on memory.", "Ray ended it because the main memory", "--cpu-offload-gb"),
    ("sglang", "scheduler", "RuntimeError: FlashInfer Internal Error: out of memory in Batch",
     "FlashInfer's workspace is too small", "SGLANG_FLASHINFER_WORKSPACE_SIZE"),
    ("trt", "rank", "[TensorRT-LLM][ERROR] IRuntime::deserializeCudaEngine: Error Code 6: (The "
     "engine plan file is not compatible with this version of TensorRT)", "not compatible",
     "build"),
    ("trt", "rank", "Traceback (most recent call last):\n  File \"/x\", line 2, in f\n    g()\n"
     "torch.OutOfMemoryError: CUDA out of memory.", "out of GPU memory", "--kv_cache_free"),
]  # fmt: skip

PARALLEL = [
    ("vllm", "core", "ValueError: The number of required GPUs exceeds the total number of available"
     " GPUs in the placement group.", "Ray has fewer GPUs", "ray status"),
    ("vllm", "front", "ConnectionError: Could not find any running Ray instance. Please specify the"
     " one to connect to by setting `--address` flag or `RAY_ADDRESS`", "no Ray cluster",
     "--distributed-executor-backend mp"),
    ("vllm", "worker", "torch.distributed.DistBackendError: NCCL error in: x.cpp:77, invalid usage"
     "\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
     "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 41000", "the same GPU",
     "CUDA_VISIBLE_DEVICES"),
    ("vllm", "worker", "torch.distributed.DistBackendError: NCCL error in: x.cpp:77, remote process"
     " exited or there was a network error\nncclRemoteError: A call failed.\nLast error:\n"
     "socketPollConnect: connect returned Connection refused, exceeded retry count",
     "socketPollConnect: connect returned Connection refused", "NCCL_DEBUG=INFO"),
    ("vllm", "core", "TimeoutError: RPC call to sample_tokens timed out.",
     "did not answer in time: RPC call to sample_tokens timed out", "GPU"),
    ("vllm", "worker", "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for "
     "clients. 1/2 clients joined.", "did not find each other", "firewall"),
    ("vllm", "worker", "RuntimeError: Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc]"
     " no error", "no network to connect over", "GLOO_SOCKET_IFNAME"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "frame", "error", "cause", "advice"),
    [*MACHINE, *COMPILERS, *GPU, *LIBRARIES, *MODEL, *LIMITS, *PARALLEL, *MORE],
)
def test_the_cause_is_found_in_its_frame(
    engine: str, frame: str, error: str, cause: str, advice: str
) -> None:
    found = told(engine, getattr(failure_logs, frame)(error))
    assert found is not None
    assert cause in found.cause
    assert advice in found.advice
    assert "logs NAME" not in found.advice
    assert found.excerpt
    assert len(found.cause) <= 300 and "{" not in found.cause
