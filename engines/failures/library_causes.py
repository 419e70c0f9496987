"""Causes in shared libraries and Python packages, and crashes of native code.

Sources: CPython 3.11 (importlib, pylifecycle), glibc's ld.so, libstdc++, sgl-kernel's load report,
and public reports of vLLM, SGLang and TensorRT-LLM.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures.machine_causes import any_of

LIBRARIES = (
    FailurePattern(
        r"version `(?P<what>(?:GLIBCXX|CXXABI)_[\d.]{1,12})' not found",
        "this system's C++ library (libstdc++) is too old: {what} is missing",
        "install a newer libstdc++, or put the environment's own first in LD_LIBRARY_PATH",
    ),
    FailurePattern(
        r"version `(?P<what>GLIBC\w{0,10}_[\d.]{1,12})' not found",
        "this system's C library is too old: {what} is missing",
        "use an engine built for this system, or a newer system",
    ),
    *any_of(
        "the NVIDIA driver's library {lib} is missing: no driver, or a container without GPUs",
        "check nvidia-smi; start the container with --gpus all",
        r"(?P<lib>libcuda\.so\.1|libnvidia-ml\.so\.1): cannot open shared object",
    ),
    FailurePattern(
        r"(?P<lib>lib(?:cuda|cudart|nv|cublas|cudnn|cufft|cusparse|cusolver|curand|nccl|cupti)"
        r"[\w.+-]{0,40}): cannot open shared object file",
        "the CUDA library {lib} is missing: its packages were built for another CUDA version",
        "install the packages that match this CUDA, or add the folder to LD_LIBRARY_PATH",
    ),
    FailurePattern(
        r"(?P<lib>[\w.+-]{1,80}\.so[\w.]{0,20}): cannot open shared object file",
        "the shared library {lib} is missing",
        "install the package that has it, or add its folder to LD_LIBRARY_PATH",
    ),
    FailurePattern(
        r"(?P<lib>[\w.+-]{1,80}\.so[\w.]{0,20}): undefined symbol: (?P<symbol>\w{1,160})",
        "{lib} does not fit the PyTorch or CUDA of this environment (undefined symbol {symbol})",
        "install versions that belong together: reinstall the engine in a fresh environment",
    ),
    FailurePattern(
        r"undefined symbol: (?P<symbol>\w{1,160})",
        "a compiled module does not fit the PyTorch or CUDA here (undefined symbol {symbol})",
        "install versions that belong together: reinstall the engine in a fresh environment",
    ),
    FailurePattern(
        r"sgl_kernel\] CRITICAL: Could not load any common_ops library",
        "sgl_kernel does not load: it was built for another GPU, CUDA or PyTorch",
        "reinstall sgl-kernel in the version that this SGLang asks for",
    ),
    *any_of(
        "two of its Python packages are incompatible: {what}",
        "reinstall the engine in a fresh environment, with the versions that it asks for",
        r"(?P<what>cannot import name '[^'\n]{1,100}' from '[^'\n]{1,100}')",
        r"(?P<what>numpy\.dtype size changed)",
        r"(?P<what>Numba needs NumPy [^\n]{1,60})",
        r"(?P<what>A module that was compiled using NumPy 1\.x cannot be run in NumPy [\d.]{1,12})",
        r"(?P<what>operator torchvision::nms does not exist)",
        r"(?P<what>compiled with different CUDA[^\n]{0,120})",
        r"(?P<what>The detected CUDA version \([\d.]{1,8}\) mismatches[^\n]{0,120})",
    ),
    FailurePattern(
        r"No package metadata was found for (?P<package>[\w.-]{1,80})",
        "this Python environment lacks the package {package}, or has only its files",
        "install it again, or choose another environment with --python or --bin",
    ),
    FailurePattern(
        r"No module named '?(?P<module>(?:vllm|sglang|tensorrt_llm)\b[\w.]{0,80})'?",
        "its Python environment lacks the module '{module}'",
        "name the environment that has the engine with --python or --bin",
    ),
    FailurePattern(
        r"No module named '(?P<module>[^'\n]{1,100})'",
        "its Python environment lacks the module '{module}'",
        "install it there, or name the environment that has it with --python or --bin",
    ),
    FailurePattern(
        r"ImportError: (?:[^\n]{0,200}[^\w\n])?[Pp]lease install (?:the )?"
        r"(?P<package>[\w.-]{1,60}(?:\[[\w,-]{1,40}\])?(?:[<>=!~]=?[\w.]{1,20})?)",
        "its Python environment lacks the package {package}, or has an older version",
        "install it there, or name the environment that has it with --python or --bin",
    ),
    FailurePattern(
        r"(?:^|: )(?P<program>[\w./-]{1,120}): (?:command )?not found$",
        "there is no program {program}",
        "install it, or correct PATH",
    ),
)

CRASHES = (
    *any_of(
        "this processor lacks instructions that the engine was built for",
        "use a build for this processor (AVX2, AVX-512)",
        r"Illegal instruction",
    ),
    *any_of(
        "Python itself crashed: {what}",
        "read the lines before it: {log}",
        r"Fatal Python error: (?P<what>[^\n]{1,200})",
    ),
    *any_of(
        "native code crashed: segmentation fault",
        "read the lines before it: {log}",
        r"Segfault encountered|Segmentation fault",
    ),
    FailurePattern(
        r"terminate called after throwing an instance of '(?P<what>[^'\n]{1,120})'",
        "native code ended it with {what}",
        "read the lines around it: {log}",
        Kind.VAGUE,
    ),
)
