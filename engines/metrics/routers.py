"""Recognises metrics pages of routers and of unsupported engines."""

from __future__ import annotations

import re

# Prefixes of their sample names. Engines have none of these.
_PREFIXES = {
    "sgl_router_": "SGLang's router",
    "smg_": "SGLang's model gateway",
    "sglang_router_": "SGLang's router",
    "vllm_router_": "vLLM's router",
    "vllm:router_": "vLLM's router",
    "inference_objective_": "an inference gateway",
    "inference_model_": "an inference gateway",
    "inference_pool_": "an inference gateway",
    "inference_extension_": "an inference gateway",
    "llm_d_epp_": "llm-d's endpoint picker",
    "dynamo_frontend_": "Dynamo's front end",
    "litellm_": "LiteLLM",
}
# The router of vLLM's production stack uses engines' names, with the engine's address as a label.
_STACK = ("vllm:current_qps{server=", "vllm:healthy_pods_total{server=")


def router_of(text: str) -> str | None:
    """The router that a metrics page belongs to; None for another page."""
    for line in text.split("\n"):
        if line.startswith(_STACK):
            return "vLLM's production stack"
        for prefix, what in _PREFIXES.items():
            if line.startswith(prefix):
                return what
    return None


# Unsupported engines: llama.cpp, TGI, TEI, LMDeploy, Ollama, Aphrodite, Triton, MLC.
_OTHERS = re.compile(
    r"(?:llamacpp:|tgi_|te_request|te_queue|lmdeploy[:_]|ollama_|aphrodite:|nv_inference_|mlc_)"
    r"[a-zA-Z0-9_:]{0,80}"
)
_SAMPLE = re.compile(
    r"[a-zA-Z_:][a-zA-Z0-9_:]{0,200}(?:\{[^\n]{0,4000}\})? {1,4}[-+]?(?:\d[\d.eE+-]{0,40}|Inf|NaN)"
    r"(?: \d{1,20})?"
)
_LOOKED = 50  # first lines of a page that distinguish metrics from a web page


def other_engine_of(text: str) -> str | None:
    """A series of an unsupported engine on a page; None without one."""
    for line in text.split("\n"):
        found = _OTHERS.match(line)
        if found is not None:
            return found[0]
    return None


def has_samples(text: str) -> bool:
    """Whether a page begins like metrics text: only comments and samples."""
    lines = [line.rstrip("\r") for line in text.lstrip().split("\n", _LOOKED)[:_LOOKED]]
    told = [line for line in lines if line and not line.startswith("#")]
    return bool(told) and all(_SAMPLE.fullmatch(line) for line in told)
