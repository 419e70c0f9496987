"""Causes in the GPU: driver, fabric, hardware, capabilities, memory.

Sources: the CUDA runtime's error texts (cudaGetErrorString, CUDA 12 and 13), PyTorch 2.x
(c10/cuda, torch/cuda/__init__.py), Triton 3.x, NVML, vLLM's platforms/cuda.py and public reports.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures.machine_causes import any_of

DRIVER = (
    *any_of(
        "the NVLink fabric of the GPUs is not up (CUDA error 802: system not yet initialized)",
        "start nvidia-fabricmanager, in the version of the driver: "
        "systemctl enable --now nvidia-fabricmanager",
        r"Error 802",
        r"system not yet initialized",
        r"cudaErrorSystemNotReady|CUDA_ERROR_SYSTEM_NOT_READY",
        r"[Ff]abric ?[Mm]anager[^\n]{0,60}(?:not running|not ready|not initialized)",
    ),
    *any_of(
        "the NVIDIA driver's kernel module and its libraries have different versions",
        "restart the machine, or reload the module; in a container use the host's libraries",
        r"Driver/library version mismatch",
        r"unsupported display driver / cuda driver combination",
        r"Error 803\b",
        r"NVML_ERROR_LIB_RM_VERSION_MISMATCH",
    ),
    FailurePattern(
        r"NVIDIA driver on your system is too old \(found version (?P<found>\d{1,8})\)",
        "the NVIDIA driver is too old for the CUDA that this engine was built with "
        "(it offers CUDA version {found})",
        "update the driver, or use an engine built for an older CUDA",
    ),
    *any_of(
        "the NVIDIA driver is too old for the CUDA that this engine was built with",
        "update the driver, or use an engine built for an older CUDA",
        r"NVIDIA driver on your system is too old",
        r"CUDA driver version is insufficient",
        r"cudaErrorInsufficientDriver",
        r"provided PTX was compiled with an unsupported toolchain",
        r"cudaErrorUnsupportedPtxVersion|CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        r"unsatisfied condition: cuda ?[>=]",
    ),
    *any_of(
        "the CUDA of this engine needs forward compatibility, which this GPU does not support",
        "update the driver; remove the cuda-compat libraries from LD_LIBRARY_PATH",
        r"forward compatibility was attempted on non supported HW",
        r"Error 804\b",
    ),
    *any_of(
        "the GPU's memory has an error that could not be corrected (ECC)",
        "look at nvidia-smi -q -d ECC; reset or replace the GPU",
        r"uncorrectable ECC error|cudaErrorECCUncorrectable|CUDA_ERROR_ECC_UNCORRECTABLE",
        r"[Dd]ouble[- ]bit ECC",
        r"uncorrectable NVLink error|cudaErrorNvlinkUncorrectable",
    ),
    FailurePattern(
        r"NVRM: Xid \((?P<where>[^)\n]{1,60})\): (?P<xid>\d{1,4})",
        "the driver reported a fault of the GPU (Xid {xid}, {where})",
        "look up Xid {xid} in NVIDIA's list; check the GPU with nvidia-smi and dmesg",
    ),
    *any_of(
        "a GPU was lost: it no longer answers the driver",
        "look at dmesg for Xid; reset the GPU or restart the machine",
        r"fallen off the bus",
        r"GPU is lost|NVML_ERROR_GPU_IS_LOST",
        r"Unable to determine the device handle for (?:gpu|GPU)",
        r"cudaErrorDeviceUninitialized[^\n]{0,40}lost",
    ),
    *any_of(
        "another process uses a GPU exclusively, or the GPU does not answer",
        "end that process (nvidia-smi), or set the compute mode back to Default",
        r"CUDA-capable devices?(?:\(s\))? (?:is|are|is/are) busy or unavailable",
        r"cudaErrorDevicesUnavailable",
    ),
    *any_of(
        "it found no usable NVIDIA GPU",
        "check nvidia-smi, --gpus and CUDA_VISIBLE_DEVICES; start a container with --gpus all",
        r"No CUDA GPUs are available",
        r"Found no NVIDIA driver",
        r"no CUDA-capable device is detected|cudaErrorNoDevice",
        r"Failed to infer device type|Device string must not be empty",
        r"NVML_ERROR_DRIVER_NOT_LOADED|Driver Not Loaded",
        r"NVML Shared Library Not Found|NVMLError_LibraryNotFound",
        r"NVIDIA-SMI has failed",
        r"No accelerator \(CUDA|No GPU devices found on the node",
        r"Torch not compiled with CUDA enabled",
        r"could not select device driver[^\n]{0,60}gpu",
        r"Torch is not able to use GPU",
    ),
    *any_of(
        "it asks for a GPU that does not exist: fewer GPUs are visible than it needs",
        "lower {parallel}, or give more GPUs (CUDA_VISIBLE_DEVICES, --gpus)",
        r"invalid device ordinal|cudaErrorInvalidDevice\b",
        r"device >= 0 && device < num_gpus",
        r"Device \d{1,3} is not available",
    ),
)

ABILITY = (
    FailurePattern(
        r"Bfloat16 is only supported on GPUs with compute capability of at least "
        r"(?P<least>\d{1,2}\.\d)\. Your (?P<gpu>[^\n]{1,60}?) GPU has compute capability "
        r"(?P<has>\d{1,2}\.\d)",
        "bfloat16 does not exist on this GPU: {gpu} has compute capability {has}, "
        "{least} is needed",
        "start it with {dtype_half}",
    ),
    *any_of(
        "bfloat16 does not exist on this GPU",
        "start it with {dtype_half}",
        r"[Bb][Ff]loat16 is (?:only|not) supported (?:on|by)",
        r"bf16 is (?:only|not) supported (?:on|by)",
        r"Feature '\.bf16' requires",
    ),
    FailurePattern(
        r"quantization method (?P<method>[\w.-]{1,40}) is not supported for the current GPU\. "
        r"Minimum capability: (?P<least>\d{1,3})(?P<least_minor>\d)\. "
        r"Current capability: (?P<has>\d{1,3})(?P<has_minor>\d)",
        "the quantisation {method} needs compute capability {least}.{least_minor}, "
        "and this GPU has {has}.{has_minor}",
        "take a model with another quantisation, or another GPU",
    ),
    FailurePattern(
        r"(?:torch\.)?(?P<dtype>\w{3,20}) is not supported for quantization method "
        r"(?P<method>[\w.-]{1,40})\. Supported dtypes: "
        r"(?P<dtypes>\[[^\]\n]{1,120}\])",
        "the quantisation {method} does not work with {dtype}",
        "choose a dtype of {dtypes}: {dtype_flag}",
    ),
    *any_of(
        "this GPU does not support the requested FP8 computation: {line}",
        "take a model or a KV cache without FP8, or another GPU (compute capability 8.9 or more)",
        r"type fp8e4nv not supported in this architecture",
        r"fp8e4nv data type is not supported",
        r"(?:FP8|fp8|float8|Float8)[^\n]{0,80}(?:requires?|only supported|not supported)",
        r"torch\._scaled_mm is only supported",
    ),
    *any_of(
        "this GPU does not support a requested feature: {line}",
        "choose another attention backend, dtype or quantisation, or another GPU",
        r"FlashAttention[^\n]{0,20} only supports ",
        r"(?:requires?|needs?|supported) [^\n]{0,60}"
        r"(?:compute capabilit|SM ?\d\d|sm_?\d\d|Hopper|Blackwell|Ampere)",
        r"compute capability[^\n]{0,40}(?:at least|or (?:higher|newer)|>=)",
        r"device capability ?[=:]? ?\d",
        r"not supported (?:on|by|for) (?:this|the|your|current) (?:GPU|device|arch)",
    ),
    *any_of(
        "this engine's build has no kernels for this GPU",
        "install a build of PyTorch and the engine for this GPU's architecture (another CUDA "
        "version, or newer)",
        r"no kernel image is available",
        r"cudaErrorNoKernelImageForDevice|CUDA_ERROR_NO_BINARY_FOR_GPU",
        r"device kernel image is invalid|cudaErrorInvalidKernelImage",
    ),
    FailurePattern(
        r"(?P<gpu>[^\n]{1,60}) with CUDA capability (?P<sm>sm_\d{1,4}) is not compatible with the "
        r"current PyTorch",
        "this PyTorch has no kernels for this GPU ({sm})",
        "install a build of PyTorch and the engine for this GPU's architecture",
        Kind.VAGUE,
    ),
    FailurePattern(
        r"out of resource: shared memory, Required: (?P<asked>\d{1,9}), Hardware limit: "
        r"(?P<most>\d{1,9})",
        "a Triton kernel needs {asked} bytes of the GPU's shared memory, and this GPU has {most}",
        "choose another attention backend or a smaller block size; a newer version may fit",
    ),
)

_LESS = "lower {memory} or {batch}, or check which other processes hold GPU memory"

MEMORY = (
    FailurePattern(
        r"Tried to allocate (?P<asked>[\d.]{1,12} \w{1,3})[^\n]{0,4}\.? ?GPU (?P<gpu>\d{1,3}) has "
        r"a total capacity of (?P<total>[\d.]{1,12} \w{1,3}) of which "
        r"(?P<free>[\d.]{1,12} \w{1,3}) is free",
        "out of GPU memory: {asked} asked for, {free} of {total} free on GPU {gpu}",
        _LESS,
    ),
    *any_of(
        "out of GPU memory",
        _LESS,
        r"CUDA out of memory",
        r"HIP out of memory",
        r"CUDA (?:driver |runtime )?error: out of memory",
        r"CUDA (?:driver |runtime )?error in [^\n]{1,200}?: out of memory",
        r"Triton Error \[CUDA\]: out of memory",
        r"Cuda failure[^\n]{0,40}out of memory",
        r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY",
        r"cudaMalloc\w{0,20}[^\n]{0,120}(?:out of memory|failed)",
        r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED",
        r"torch\.(?:cuda\.)?OutOfMemoryError|OutOfMemoryError: CUDA",
        r"[Ii]nsufficient GPU memory|out of GPU memory|not enough GPU memory",
        r"Requested size was \d{1,20} bytes[^\n]{0,60}out of memory",
    ),
    FailurePattern(
        r"CUBLAS_STATUS_NOT_INITIALIZED",
        "cuBLAS could not start; usually the GPU's memory is full",
        _LESS,
    ),
)

FAULTS = (
    *any_of(
        "a CUDA kernel made an illegal memory access",
        "a fault of a kernel: try a newer version, another attention backend, or {eager}; "
        "CUDA_LAUNCH_BLOCKING=1 shows which kernel",
        r"illegal memory access",
        r"CUDA_ERROR_ILLEGAL_ADDRESS|cudaErrorIllegalAddress",
    ),
    FailurePattern(
        r"device-side assert triggered",
        "a CUDA kernel's own check failed (device-side assert)",
        "mostly a token or position outside the model's tables: check model, tokenizer and "
        "{context}; CUDA_LAUNCH_BLOCKING=1 shows which kernel",
    ),
    FailurePattern(
        r"Cannot re-initialize CUDA in forked subprocess",
        "CUDA was used before its processes were forked",
        "start new processes instead of forking: {spawn}",
    ),
    *any_of(
        "a CUDA graph could not be captured: {what}",
        "disable CUDA graphs: {eager}",
        r"(?P<what>operation (?:not permitted|would make the legacy stream depend)[^\n]{0,60}"
        r"captur\w{1,8}[^\n]{0,40})",
        r"(?P<what>operation failed due to a previous error during capture)",
        r"(?P<what>cudaErrorStreamCapture\w{1,40})",
    ),
    *any_of(
        "two GPUs cannot reach each other's memory (peer access): {what}",
        "disable it: {no_custom_reduce}, or NCCL_P2P_DISABLE=1",
        r"(?P<what>peer access is not supported[^\n'\"]{0,60})",
        r"(?P<what>peer mapping resources exhausted)",
    ),
    FailurePattern(
        r"(?P<what>custom_all_reduce\.cuh:\d{1,6}[^\n]{0,100})",
        "the custom all-reduce between the GPUs failed: {what}",
        "disable it: {no_custom_reduce}; the usual reason is GPUs without access to each other's "
        "memory (peer access)",
    ),
    FailurePattern(
        r"Triton Error \[CUDA\]: (?P<what>[^\n]{1,160})",
        "a Triton kernel failed: {what}",
        "a fault of a kernel: try a newer version or another attention backend",
    ),
    *any_of(
        "CUDA failed: {what}",
        "a fault of a kernel, the driver or the GPU: look at dmesg for Xid; "
        "CUDA_LAUNCH_BLOCKING=1 shows which kernel",
        r"CUDA (?:driver |runtime )?error: (?P<what>[^\n]{1,160})",
        r"CUDA runtime error in [^\n]{1,200}?: (?P<what>[a-z][^\n]{1,160})",
        r"Unexpected error from cudaGetDeviceCount\(\)[^\n]{0,200}?(?P<what>Error \d{1,4}: "
        r"[^\n]{1,100})",
        r"(?P<what>CUDNN_STATUS_\w{1,40}|CUBLAS_STATUS_\w{1,40})",
    ),
)
