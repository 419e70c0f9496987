"""Converts an engine's table of ``llmtop.toml`` into the specification of its launch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.config.file import Config
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.host.private_files import read_trusted
from llmtop.engines.registry import adapter_named

MAX_KEY_BYTES = 4096


def launch_spec(config: Config, name: str, environ: Mapping[str, str]) -> LaunchSpec:
    """The launch of the engine ``name``. Port 0 means that the file sets no port.

    environ: the environment that has the variables of ``env_from``. Raises UsageError if the file
    has no such engine, and ConfigError if a program, a variable or a key file does not exist.
    """
    table = config.engine(name)
    key = ("engines", name)
    adapter = adapter_named(table.engine)
    found: dict[str, str] = dict(table.env)
    for index, variable in enumerate(table.env_from):
        if variable not in environ:
            words = f"{variable} is not set in this environment"
            raise config.fault((*key, "env_from", index), words, f"export {variable} and try again")
        found[variable] = environ[variable]
    key_file = ""
    if table.api_key_file:
        key_file = str(_at(config, table.api_key_file))
        try:
            found[adapter.api_key_variable] = read_key(key_file)
        except UsageError as error:
            raise config.fault((*key, "api_key_file"), error.message, error.hint) from None
    program: tuple[str, ...] = ()
    if table.python:
        program = (_program(config, (*key, "python"), table.python), "-m", adapter.module)
    elif table.bin:
        program = (_program(config, (*key, "bin"), table.bin),)
    model = table.model or adapter.default_model
    if model.startswith(("./", "../", "~")):
        model = str(_at(config, model))
    return LaunchSpec(
        kind=adapter.kind,
        name=name,
        model=model,
        host=table.host,
        port=table.port,
        program=program,
        gpus=table.gpus,
        args=table.args,
        environment=tuple(sorted(found.items())),
        api_key_file=key_file,
    )


def read_key(path: str) -> str:
    """The API key in a file, without surrounding white space.

    Raises UsageError if the file holds no key. It must be a regular file that belongs to this user
    or to root: reading a pipe could block.
    """
    try:
        data = read_trusted(Path(path), MAX_KEY_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"the key file {path} cannot be read: {why.lower()}") from None
    text = data.decode(errors="replace").strip()
    if not text or not (text.isascii() and text.isprintable()):
        raise UsageError(f"the file {path} does not hold an API key", "write the key on one line")
    return text


def _at(config: Config, path: str) -> Path:
    """A path from the file. A relative path is relative to the folder of the file."""
    try:
        return config.folder / Path(path).expanduser()
    except RuntimeError:  # ~name: no such user
        return config.folder / path


def _program(config: Config, key: tuple[str, ...], path: str) -> str:
    where = str(_at(config, path)) if "/" in path or path.startswith("~") else path
    found = shutil.which(where)
    if found is None:
        raise config.fault(key, f"there is no program {path!r}")
    return str(Path(found).absolute())
