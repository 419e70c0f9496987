"""Causes in the compilation of kernels at a start: nvcc, compilers, headers, ninja, ptxas.

Sources: FlashInfer (jit/cpp_ext.py), PyTorch (utils/cpp_extension.py, _inductor), Triton
(runtime/build.py, backends/nvidia/compiler.py), GNU ld, GCC, ptxas and nvcc of CUDA 12 and 13.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures.machine_causes import any_of

COMPILERS = (
    *any_of(
        "nvcc (the CUDA toolkit) is missing, and a kernel has to be compiled",
        "install the CUDA toolkit and set CUDA_HOME, or do without what needs it{no_nvcc}",
        r"Could not find nvcc",
        r"default cuda_home='[^'\n]{0,200}' doesn't exist",
        r"nvcc'?: (?:command )?not found",
        r"No such file or directory: '[^'\n]{0,200}nvcc'",
        r"CUDA_HOME (?:environment variable )?is not set",
        r"\['which', 'nvcc'\]",
        r"Could not find (?:the )?CUDA (?:toolkit|installation|lib)",
        r"cuda_home[^\n]{0,80}(?:not found|doesn't exist|does not exist)",
        r"nvcc[^\n]{0,40} is not (?:found|installed|available)",
    ),
    FailurePattern(
        r"cannot find -l(?P<lib>cuda)\b",
        "compiling failed: the linker does not find lib{lib} (the driver's library)",
        "link libcuda.so to libcuda.so.1 in the system's library folder, or add the folder with "
        "libcuda.so (of the driver, or the toolkit's lib64/stubs) to LIBRARY_PATH",
    ),
    FailurePattern(
        r"cannot find -l(?P<lib>[\w.+-]{1,60})",
        "compiling failed: the linker does not find lib{lib}",
        "install the package that has it, or add its folder to LIBRARY_PATH",
    ),
    *any_of(
        "compiling failed: the header Python.h is missing",
        "install the header files of this Python (Debian: python3-dev)",
        r"Python\.h: No such file",
        r"Python\.h' file not found",
    ),
    FailurePattern(
        r"fatal error: '?(?P<file>cu\w{1,40}\.h|cuda[\w/.+-]{1,80}|nv[\w/.+-]{1,80}|"
        r"cub/[\w/.+-]{1,80}|thrust/[\w/.+-]{1,80})'?:? ?(?:No such file|file not found)",
        "compiling failed: the CUDA header {file} is missing",
        "install the whole CUDA toolkit in the version of PyTorch's CUDA, and set CUDA_HOME",
    ),
    FailurePattern(
        r"fatal error: '?(?P<file>[\w/.+-]{1,120}?)'?:? ?(?:No such file|file not found)",
        "compiling failed: the header {file} is missing",
        "install the package that has it (Debian: build-essential, python3-dev)",
    ),
    *any_of(
        "there is no C compiler, and a kernel has to be compiled",
        "install gcc and g++ (Debian: build-essential), or set CC to a compiler",
        r"Failed to find C compiler",
        r"No such file or directory: '(?:[^'\n]{0,200}/)?(?:x86_64-linux-gnu-)?"
        r"(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)'",
        r"\b(?:gcc|g\+\+|cc|c\+\+|clang): (?:command )?not found",
        r"No working C\+\+ compiler found",
        r"InvalidCxxCompiler",
        r"cannot execute '?(?:cc1|cc1plus|as|ld)'?:",
        r"C\+\+ compiler[^\n]{0,40}not found",
    ),
    *any_of(
        "ninja is missing, and a kernel has to be compiled",
        "install ninja in the engine's environment, and check that it is in PATH",
        r"Ninja is required to load C\+\+ extensions",
        r"No such file or directory: '(?:[^'\n]{0,200}/)?ninja'",
        r"\bninja: (?:command )?not found",
        r"Could not find ninja|ninja[^\n]{0,20} is not (?:installed|available)",
        r"No module named '?ninja",
    ),
    FailurePattern(
        r"Value '(?P<gpu>sm_\w{1,12})' is not defined for option 'gpu-name'",
        "ptxas is older than this GPU: it does not know {gpu}",
        "use a newer Triton and CUDA, or set TRITON_PTXAS_PATH to a newer toolkit's ptxas",
    ),
    FailurePattern(
        r"Unsupported gpu architecture '(?P<gpu>\w{1,40})'",
        "nvcc is older than this GPU: it does not know {gpu}",
        "install a newer CUDA toolkit, and set CUDA_HOME to it",
    ),
    FailurePattern(
        r"unsupported GNU version! (?P<what>[^\n]{1,120})",
        "nvcc does not support this compiler: {what}",
        "install an older gcc, and set CC, CXX and NVCC_PREPEND_FLAGS='-ccbin ...' to it",
    ),
    *any_of(
        "ptxas, the assembler of CUDA, is missing",
        "reinstall Triton, or set TRITON_PTXAS_PATH to the toolkit's ptxas",
        r"Cannot find ptxas",
        r"No such file or directory: '[^'\n]{0,200}ptxas[\w-]{0,20}'",
        r"\bptxas: (?:command )?not found",
    ),
    FailurePattern(
        r"(?P<what>Feature '[^'\n]{1,60}' requires \.target sm_\d{1,3}\w? or higher)",
        "this GPU is too old for a kernel: {what}",
        "choose a dtype and a quantisation that this GPU supports: {dtype_half}",
    ),
    *any_of(
        "ptxas, the assembler of CUDA, failed: {what}",
        "use Triton and CUDA in versions that fit this GPU, or set TRITON_PTXAS_PATH",
        r"ptxas fatal ? ?:? ?(?P<what>[^\n]{1,200})",
        r"ptxas [^\n]{1,200}?; error +: (?P<what>[^\n]{1,200})",
        r"ptxas error ?:? ?(?P<what>[^\n]{1,200})",
    ),
    FailurePattern(
        r"nvcc fatal ? ?: (?P<what>[^\n]{1,200})",
        "nvcc failed: {what}",
        "use a CUDA toolkit that fits PyTorch's CUDA and this GPU",
    ),
    FailurePattern(
        r"No such file or directory: '(?:[^'\n]{0,200}/)?(?P<tool>cmake|make|git|ld|ldconfig)'",
        "the program {tool} is missing",
        "install it, and check that it is in PATH",
    ),
)

VAGUE = (
    *any_of(
        "compiling a kernel failed: {what}",
        "the log shows the compiler's own lines before it; check compiler, CUDA toolkit and "
        "the cache folders of the compiled kernels",
        r"(?P<what>PTXAS error: [^\n]{1,160})",
        r"(?P<what>`ptxas` failed with error code:? [^\n]{1,80})",
        r"(?P<what>Ninja build failed)",
        r"(?P<what>ninja: build stopped: [^\n]{1,80})",
        r"(?P<what>Error building extension '[^'\n]{1,100}')",
        r"(?P<what>Error compiling objects for extension)",
        r"(?P<what>collect2: error: [^\n]{1,80})",
        r"(?P<what>Command '\[?[^\n]{0,40}(?:gcc|g\+\+|cc|c\+\+|clang|nvcc|ninja|ptxas)"
        r"[^\n]{0,300}?"
        r"returned non-zero exit status \d{1,3})",
        r"(?P<what>CppCompileError[^\n]{0,160})",
        r"(?P<what>(?:NVCC|nvcc|NVRTC) compilation failed[^\n]{0,100})",
        kind=Kind.VAGUE,
    ),
    *any_of(
        "a program that it started failed: {what}",
        "the log shows that program's own lines before it",
        r"(?P<what>Command '[^\n]{1,200}?' (?:returned non-zero exit status|died with)[^\n]{1,60})",
        kind=Kind.VAGUE,
    ),
)
