"""Causes in the model: its files, the hub, its code, its architecture, its tokenizer.

Sources: safetensors 0.4 to 0.7, PyTorch's serialisation, huggingface_hub and transformers 4.4x to
5.x, tokenizers, jinja2, vLLM's model loader and public reports.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern
from llmtop.engines.failures.machine_causes import any_of

CODE = (
    *any_of(
        "the model brings its own code, which was not allowed to run",
        "start it with {remote_code}, if you trust the model",
        r"contains custom code which must be executed",
        r"trust_remote_code=True",
        r"requires you to execute the (?:configuration|tokenizer|modeling) file",
    ),
    FailurePattern(
        r"This modeling file requires the following packages[^\n]{0,80}?: "
        r"(?P<what>[\w, .-]{1,120})",
        "the model's own code needs Python packages that are missing: {what}",
        "install them in the engine's environment",
    ),
)

ARCHITECTURE = (
    FailurePattern(
        r"model type `(?P<type>[\w.-]{1,80})` but Transformers does not recognize",
        "its Transformers library does not support the model type {type}",
        "install a newer transformers, or a newer {engine}",
    ),
    FailurePattern(
        r"[Mm]odel architectures? (?P<architectures>\[[^\]\n]{1,120}\]) (?:are|is) not supported",
        "this {engine} does not support the architecture {architectures}",
        "a newer {engine} may support it",
    ),
    *any_of(
        "this {engine} does not know this model: {what}",
        "check the model's config.json; a newer {engine} or transformers may know it",
        r"(?P<what>Unrecognized model in [^\n]{1,160})",
        r"(?P<what>Unrecognized configuration class [^\n]{1,120})",
        r"(?P<what>No model architectures are specified)",
        r"(?P<what>\w{1,80} has no (?:vLLM|SGLang|TensorRT-LLM|SGlang) implementation[^\n]{0,100})",
        r"(?P<what>Cannot find model module[^\n]{0,120})",
        r"(?P<what>Unknown architecture[^\n]{0,100})",
        r"(?P<what>Unsupported (?:model )?architecture[^\n]{0,100})",
        r"with (?P<what>architecture [\w.-]{1,80} is not supported)",
    ),
)

FILES = (
    *any_of(
        "a weight file is a Git LFS pointer, not the weights themselves",
        "fetch the files: git lfs pull, or download the model again",
        r"HeaderTooLarge",
        r"invalid load key, 'v'",
        r"git-lfs\.github\.com/spec|without having git-lfs installed",
    ),
    *any_of(
        "a weight file is damaged or incomplete: {what}",
        "download the model again: its last download may be incomplete",
        r"(?P<what>Error while deserializing header: [^\n]{1,120})",
        r"(?P<what>MetadataIncompleteBuffer|InvalidHeader\w{0,30}|HeaderTooSmall)",
        r"(?P<what>incomplete metadata[^\n]{0,60})",
        r"(?P<what>PytorchStreamReader failed [^\n]{1,120})",
        r"(?P<what>invalid load key, [^\n]{1,20})",
        r"(?P<what>Consistency check failed: [^\n]{1,120})",
        r"(?P<what>SafetensorError: [^\n]{1,160})",
        r"(?P<what>unexpected EOF, expected[^\n]{0,80})",
        r"(?P<what>is not a valid safetensors file[^\n]{0,80})",
    ),
    FailurePattern(
        r"Cannot find any (?:safetensors )?model weights with [`'](?P<where>[^`'\n]{1,300})[`']",
        "there are no weight files in {where}",
        "check the folder: it should hold *.safetensors or *.bin; download the model again",
    ),
    *any_of(
        "the model's folder lacks a file: {what}",
        "check the path, and download the model again",
        r"(?P<what>Error no file named [^\n]{1,200})",
        r"(?P<what>does not appear to have (?:a file|files) named [^\n]{1,160})",
        r"No such file or directory: '(?P<what>[^'\n]{0,300}\.(?:safetensors|bin|gguf|json|model))"
        r"'",
        r'No such file or directory: "?(?P<what>[^\s"\']{1,300}\.(?:safetensors|gguf))',
        r"(?P<what>Cannot find the config file for \w{1,40})",
        r"(?P<what>config\.json[^\n]{0,40} not found[^\n]{0,80})",
        r"(?P<what>Can't load the (?:model|configuration)[^\n]{1,160})",
        r"(?P<what>No (?:safetensors|model weights?)[^\n]{0,60}found[^\n]{0,80})",
    ),
    FailurePattern(
        r"config file at '(?P<path>[^'\n]{1,300})' is not a valid JSON file",
        "the model's configuration {path} is not valid JSON",
        "correct it, or download it again",
    ),
    *any_of(
        "the weights do not fit the model's configuration: {what}",
        "check that config.json and the weights belong together, and the quantisation",
        r"(?P<what>[Ff]ollowing weights were not initialized[^\n]{0,160})",
        r"(?P<what>Attempted to load weight [^\n]{1,160})",
        r"(?P<what>[Ss]ize mismatch for [^\n]{1,160})",
        r"(?P<what>Error\(s\) in loading state_dict[^\n]{0,120})",
        r"(?P<what>There is no module or parameter named [^\n]{1,160})",
        r"KeyError: '(?P<what>(?:model|layers|lm_head|transformer|language_model)\.[\w.]{3,160})'",
    ),
)

HUB = (
    *any_of(
        "the hub's certificate is not trusted on this machine",
        "a proxy that inspects TLS is a usual reason: set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to "
        "its CA certificate, or download the model on another machine",
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
    ),
    *any_of(
        "the model is gated: its owner must grant access first",
        "ask for access on the model's page, then set HF_TOKEN for the engine",
        r"GatedRepoError",
        r"access(?:ing)? (?:a )?gated repo",
        r"Access to model [^\n]{1,200} is restricted",
    ),
    *any_of(
        "the hub has no such model, or you have no access to it",
        "check the model's name; a private model needs HF_TOKEN",
        r"RepositoryNotFoundError|Repository Not Found",
    ),
    *any_of(
        "the hub did not accept the token: {what}",
        "set HF_TOKEN to a valid token, or unset it for public models",
        r"(?P<what>Invalid (?:user token|username or password|credentials)[^\n]{0,60})",
        r"(?P<what>40[13] Client Error[^\n]{0,160})",
    ),
    FailurePattern(
        r"(?P<what>429 Client Error[^\n]{0,120}|Too Many Requests)",
        "the hub refused for now: too many requests",
        "wait some minutes, or set HF_TOKEN",
    ),
    FailurePattern(
        r"Repo id must be in the form .{0,80}?: '(?P<model>[^'\n]{1,200})'",
        "no model at {model}: it is neither a local folder nor a name on the hub",
        "the path does not exist on this machine; give a folder with a config.json, or a hub name",
    ),
    FailurePattern(
        r"(?<![\w.-])(?P<model>/[\w./-]{1,200}) is not a local folder and is not a valid model",
        "there is no model folder {model}",
        "the path does not exist on this machine, or holds no config.json",
    ),
    FailurePattern(
        r"(?<![\w./-])(?P<model>[\w./-]{1,120}) is not a local folder and is not a valid model",
        "the hub has no model {model}, or you have no access to it",
        "check the name; a private model needs HF_TOKEN",
    ),
    FailurePattern(
        r"Invalid repository ID or local directory specified: ?'(?P<model>[^'\n]{1,200})'",
        "{model} is neither a model folder nor a name on the hub",
        "a model folder holds a config.json",
    ),
    *any_of(
        "the hub has no such model, or no such revision or file in it",
        "check the model's path or name; a private model needs HF_TOKEN",
        r"RevisionNotFoundError|RemoteEntryNotFoundError",
        r"404 Client Error",
        r"is not a valid git identifier",
        r"Repo id must be in the form",
    ),
    *any_of(
        "the model is not on this machine and the hub could not be reached",
        "download it first, or check the network, proxy and HF_HUB_OFFLINE",
        r"We couldn't connect to 'https?://",
        r"outgoing traffic has been disabled",
        r"OfflineModeIsEnabled|offline mode is enabled",
        r"LocalEntryNotFoundError",
        r"Max retries exceeded|HTTPSConnectionPool|Failed to resolve '",
        r"CERTIFICATE_VERIFY_FAILED",
        r"error downloading or loading vocab file",
    ),
)

TOKENIZER = (
    *any_of(
        "the tokenizer could not be loaded: {what}",
        "check the tokenizer's files, install a newer transformers, tokenizers or sentencepiece, "
        "or name another tokenizer",
        r"(?P<what>Can't load tokenizer for [^\n]{1,160})",
        r"(?P<what>Couldn't instantiate the backend tokenizer[^\n]{0,80})",
        r"(?P<what>Tokenizer class \w{1,80} does not exist[^\n]{0,60})",
        r"(?P<what>Converting from [^\n]{1,40}Tiktoken failed[^\n]{0,80})",
        r"(?P<what>did not match any variant of untagged enum \w{1,40})",
        r"(?P<what>[Uu]nable to load vocabulary from file[^\n]{0,80})",
        r"(?P<what>Failed to load the tokenizer[^\n]{0,120})",
        r"(?P<what>requires the (?:SentencePiece|tiktoken|protobuf) library[^\n]{0,60})",
        r"(?P<what>has no attribute '?all_special_tokens_extended'?)",
    ),
    *any_of(
        "the chat template could not be used: {what}",
        "correct --chat-template: a readable file, or one line of Jinja",
        r"(?P<what>[Tt]he supplied chat template [^\n]{1,160})",
        r"(?P<what>[Cc]hat template [^\n]{0,100}(?:not found|does not exist|failed)[^\n]{0,80})",
        r"(?P<what>jinja2\.exceptions\.\w{1,60}(?:: [^\n]{1,160})?)",
        r"(?P<what>TemplateSyntaxError: [^\n]{1,160})",
    ),
)
