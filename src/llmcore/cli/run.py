"""``llmcore run``: one prompt, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcore.cli.options import (
    BATCH,
    Backend,
    Batch,
    ContextSize,
    Fit,
    Gpu,
    GpuLayers,
    Isolation,
    KvType,
    KvTypeV,
    MaxTokens,
    Mlock,
    Mmap,
    ModelPath,
    Seed,
    System,
    Temperature,
    Verbose,
    context_fields,
    open_model,
    tell_memory,
    write,
)

if TYPE_CHECKING:
    from llmcore.model import Model
    from llmcore.params import SamplingParams
    from llmcore.stream import Stream


def run(
    model: ModelPath,
    prompt: Annotated[str, typer.Argument(help="What to say to the model.")],
    backend: Backend = "auto",
    gpu: Gpu = "auto",
    isolation: Isolation = "none",
    system: System = None,
    raw: Annotated[
        bool, typer.Option(help="Continue the text instead of answering it.")
    ] = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    context_size: ContextSize = None,
    gpu_layers: GpuLayers = None,
    kv: KvType = "f16",
    kv_v: KvTypeV = None,
    batch: Batch = BATCH,
    mmap: Mmap = True,
    mlock: Mlock = False,
    fit: Fit = False,
    verbose: Verbose = False,
) -> None:
    """Answer one prompt and exit."""
    from llmcore.params import SamplingParams

    params = SamplingParams(temperature=temperature, seed=seed)
    with open_model(
        model,
        backend=backend,
        gpu=gpu,
        isolation=isolation,
        gpu_layers=gpu_layers,
        fit=fit,
        mmap=mmap,
        mlock=mlock,
    ) as loaded:
        raw = raw or loaded.info.chat_template is None
        answer(
            loaded,
            prompt,
            params,
            system=None if raw else system,
            raw=raw,
            max_tokens=max_tokens,
            verbose=verbose,
            fit=fit,
            **context_fields(context_size, kv, kv_v, batch),
        )


def answer(
    model: Model,
    prompt: str,
    params: SamplingParams,
    *,
    system: str | None = None,
    raw: bool = False,
    max_tokens: int | None = None,
    verbose: bool = False,
    **fields: Any,
) -> None:
    """Write the answer to one prompt as it is made; ``fields`` are of the context."""
    from llmcore.chat import ChatSession

    stream: Stream
    with (
        model.create_context(**fields) as context,
        context.get_sequence() as sequence,
    ):
        if raw:
            tokens = model.tokenize(prompt, add_bos=model.info.add_bos)
            stream = sequence.generate(tokens, params, max_tokens=max_tokens)
        else:
            chat = ChatSession(sequence, system_prompt=system)
            stream = chat.stream(prompt, params, max_tokens=max_tokens)
        with stream:
            for delta in stream:
                write(delta.text)
        write("\n")
        if verbose:
            tell_memory(context)
