"""
Makes tiny GGUF files and damages them in ways that keep some of their structure.

Own writer, because the ``gguf`` package refuses to write what must be tried here.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

CODES = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "i16": (3, "h"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "u64": (10, "Q"),
    "i64": (11, "q"),
    "f64": (12, "d"),
}
STRING, ARRAY = 8, 9
NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 31, 33, 64, 255, 511, 512, 513, 65_535, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
TOKENIZERS = b"llama gpt2 bert t5 rwkv plamo2 none no_vocab".split()
WORDS = (
    *TOKENIZERS,
    *b"gemma gemma2 gemma3 mamba qwen2 phi3 clip falcon default mpt yarn".split(),
    *(b"", b"command-r", b"\xff\xfe", b"a\0b", b"x" * 70),
)


@frozen(kw_only=True)
class Image:
    """A GGUF file in pieces; `bytes(image)` puts it together."""

    values: Mapping[bytes, bytes]
    tensors: tuple[tuple[bytes, tuple[int, ...], int, int], ...]
    data: bytes = field(repr=False)
    version: int = 3

    @property
    def header(self) -> bytes:
        counts = struct.pack("<IQQ", self.version, len(self.tensors), len(self.values))
        values = (text(key) + value for key, value in self.values.items())
        header = b"".join([b"GGUF", counts, *values, *map(_tensor, self.tensors)])
        return header + bytes(-len(header) % 32)

    def __bytes__(self) -> bytes:
        return self.header + self.data


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def scalar(kind: str, value: Any) -> bytes:
    number, code = CODES[kind]
    return struct.pack(f"<I{code}", number, value)


def string(value: bytes) -> bytes:
    return struct.pack("<I", STRING) + text(value)


def array(kind: str, values: list[Any]) -> bytes:
    if kind == "string":
        body = b"".join(map(text, values))
        return struct.pack("<IIQ", ARRAY, STRING, len(values)) + body
    number, code = CODES[kind]
    body = struct.pack(f"<{len(values)}{code}", *values)
    return struct.pack("<IIQ", ARRAY, number, len(values)) + body


def _tensor(tensor: tuple[bytes, tuple[int, ...], int, int]) -> bytes:
    name, shape, kind, offset = tensor
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset % 2**64)


# -- a model that really runs ---------------------------------------------------------

EMBEDDING, FEED_FORWARD, LAYERS, HEADS = 32, 64, 2, 4
TOKENS = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
TOKENS += [b"\xe2\x96\x81", *(bytes([letter]) for letter in range(97, 123))]


def tiny_image(*, version: int = 3) -> Image:
    """A llama with random weights, 2 layers and an SPM vocabulary of 286 tokens."""
    types = [2, 3, 3, *[6] * 256, *[1] * (len(TOKENS) - 259)]
    tokenizer = {
        b"model": string(b"llama"),
        b"tokens": array("string", TOKENS),
        b"scores": array("f32", [-float(n) for n in range(len(TOKENS))]),
        b"token_type": array("i32", types),
        b"bos_token_id": scalar("u32", 1),
        b"eos_token_id": scalar("u32", 2),
        b"unknown_token_id": scalar("u32", 0),
    }
    model = {
        b"block_count": scalar("u32", LAYERS),
        b"context_length": scalar("u32", 64),
        b"embedding_length": scalar("u32", EMBEDDING),
        b"feed_forward_length": scalar("u32", FEED_FORWARD),
        b"attention.head_count": scalar("u32", HEADS),
        b"attention.head_count_kv": scalar("u32", HEADS // 2),
        b"attention.layer_norm_rms_epsilon": scalar("f32", 1e-5),
        b"rope.dimension_count": scalar("u32", EMBEDDING // HEADS),
        b"vocab_size": scalar("u32", len(TOKENS)),
    }
    values = {b"general.architecture": string(b"llama")}
    values |= {b"llama." + key: value for key, value in model.items()}
    values |= {b"tokenizer.ggml." + key: value for key, value in tokenizer.items()}
    values[b"tokenizer.chat_template"] = string(b"{{ messages[0].content }}")
    return _with_tensors(values, version)


def _with_tensors(values: dict[bytes, bytes], version: int) -> Image:
    tensors, offset = [], 0
    for name, shape in _shapes():
        tensors.append((name, shape, 0, offset))
        offset += 4 * math.prod(shape)
    chance = random.Random(0)
    data = struct.pack(
        f"<{offset // 4}f", *(chance.gauss(0, 0.1) for _ in range(offset // 4))
    )
    return Image(values=values, tensors=tuple(tensors), data=data, version=version)


def _shapes() -> Iterator[tuple[bytes, tuple[int, ...]]]:
    yield b"token_embd.weight", (EMBEDDING, len(TOKENS))
    yield b"output.weight", (EMBEDDING, len(TOKENS))
    yield b"output_norm.weight", (EMBEDDING,)
    for layer in range(LAYERS):
        block = {
            "attn_norm": (EMBEDDING,),
            "attn_q": (EMBEDDING, EMBEDDING),
            "attn_k": (EMBEDDING, EMBEDDING // 2),
            "attn_v": (EMBEDDING, EMBEDDING // 2),
            "attn_output": (EMBEDDING, EMBEDDING),
            "ffn_norm": (EMBEDDING,),
            "ffn_gate": (EMBEDDING, FEED_FORWARD),
            "ffn_up": (EMBEDDING, FEED_FORWARD),
            "ffn_down": (FEED_FORWARD, EMBEDDING),
        }
        for name, shape in block.items():
            yield f"blk.{layer}.{name}.weight".encode(), shape


# -- damage ---------------------------------------------------------------------------


def mutations(image: Image, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies, the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        damaged = image
        for _ in range(chance.choice((0, 0, 1, 1, 1, 2))):
            damaged = chance.choice(STRUCTURED)(damaged, chance)
        raw = bytes(damaged)
        if damaged is image or chance.random() < 0.1:
            raw = chance.choice(RAW)(raw, len(damaged.header), chance)
        yield raw


def _flip(raw: bytes, header: int, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(header)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(raw: bytes, header: int, chance: random.Random) -> bytes:
    return raw[: chance.choice((chance.randrange(header), chance.randrange(len(raw))))]


def _overwrite(raw: bytes, header: int, chance: random.Random) -> bytes:
    changed, size = bytearray(raw), chance.choice((1, 4, 8))
    position = chance.randrange(header - 8)
    number = chance.choice(NUMBERS) % 2 ** (8 * size)
    changed[position : position + size] = number.to_bytes(size, "little")
    return bytes(changed)


def _splice(raw: bytes, header: int, chance: random.Random) -> bytes:
    start, target = chance.randrange(header), chance.randrange(header)
    length = chance.choice((1, 4, 8, 32, 256))
    removed = chance.choice((0, length))
    return raw[:target] + raw[start : start + length] + raw[target + removed :]


def _value(chance: random.Random) -> bytes:
    kind = chance.choice((*CODES, "string", "array"))
    if kind == "string":
        return string(chance.choice(WORDS))
    if kind == "array":
        return _array(chance)
    return scalar(kind, _number(kind, chance))


def _number(kind: str, chance: random.Random) -> Any:
    if kind in ("f32", "f64"):
        return chance.choice((0.0, -1.0, 1e30, float("inf"), float("nan")))
    if kind == "bool":
        return chance.random() < 0.5
    bits = 8 * struct.calcsize(CODES[kind][1])
    number = chance.choice(NUMBERS) % 2**bits
    return number - 2**bits * (kind[0] == "i" and number >= 2 ** (bits - 1))


def _array(chance: random.Random) -> bytes:
    length = chance.choice((0, 1, 2, 3, 4, 5, LAYERS, 513, len(TOKENS)))
    kind = chance.choice((*CODES, "string"))
    if kind == "string":
        return array(kind, [chance.choice((*WORDS, b"%d" % n)) for n in range(length)])
    return array(kind, [_number(kind, chance) for _ in range(length)])


def _change_value(image: Image, chance: random.Random) -> Image:
    key = chance.choice([*image.values, *OPTIONAL_KEYS])
    return evolve(image, values={**image.values, key: _value(chance)})


def _change_number(image: Image, chance: random.Random) -> Image:
    """Another number of the right type, for a known key."""
    numeric = {k: v for k, v in image.values.items() if len(v) == 8}
    key = chance.choice([*numeric, *OPTIONAL_KEYS])
    new = scalar("u32", _number("u32", chance))
    if chance.random() < 0.3:
        new = array("u32", [_number("u32", chance) % 1000 for _ in range(LAYERS)])
    return evolve(image, values={**image.values, key: new})


def _change_word(image: Image, chance: random.Random) -> Image:
    words = [k for k, v in image.values.items() if v[0] == STRING] + [
        b"tokenizer.ggml.pre"
    ]
    return evolve(
        image,
        values={**image.values, chance.choice(words): string(chance.choice(WORDS))},
    )


def _change_architecture(image: Image, chance: random.Random) -> Image:
    new = chance.choice(ARCHITECTURES)
    values = {
        key.replace(b"llama.", new + b".", 1) if key.startswith(b"llama.") else key: v
        for key, v in image.values.items()
    }
    return evolve(image, values={**values, b"general.architecture": string(new)})


def _drop_value(image: Image, chance: random.Random) -> Image:
    gone = chance.choice([*image.values, b""])
    return evolve(image, values={k: v for k, v in image.values.items() if k != gone})


def _swap_values(image: Image, chance: random.Random) -> Image:
    if len(image.values) < 2:
        return image
    one, two = chance.sample(list(image.values), 2)
    return evolve(
        image, values={**image.values, one: image.values[two], two: image.values[one]}
    )


def _change_tokenizer(image: Image, chance: random.Random) -> Image:
    """Vocabulary arrays of another length or other contents, but of the right type."""
    length = chance.choice((0, 1, 2, 3, 258, 285, 286, 287, 2000))
    makers: dict[bytes, Callable[[], bytes]] = {
        b"tokens": lambda: array("string", [_token(n, chance) for n in range(length)]),
        b"scores": lambda: array("f32", [0.0] * length),
        b"token_type": lambda: array(
            "i32", [chance.randrange(-1, 8) for _ in range(length)]
        ),
        b"merges": lambda: array("string", [_token(n, chance) for n in range(length)]),
        b"precompiled_charsmap": lambda: array("u8", [chance.randrange(256)] * length),
        b"model": lambda: string(chance.choice(TOKENIZERS)),
    }
    chosen = chance.sample(list(makers), chance.choice((1, 2, 4)))
    changes = {b"tokenizer.ggml." + key: makers[key]() for key in chosen}
    return evolve(image, values={**image.values, **changes})


def _token(number: int, chance: random.Random) -> bytes:
    if chance.random() < 0.01:
        return chance.choice(WORDS)
    if chance.random() < 0.001:
        return b"a1 b\0"
    return chance.choice((b"%d", b"a%d b", b"<0x%02X>", b"'\\x%d'", b"\xff%d")) % number


def _change_tensor(image: Image, chance: random.Random) -> Image:
    tensors = list(image.tensors)
    index = chance.randrange(len(tensors))
    name, shape, kind, offset = tensors[index]
    other = chance.choice(tensors)
    number = chance.choice(NUMBERS) % 2**64
    tensors[index] = chance.choice(
        (
            (other[0], shape, kind, offset),
            (chance.choice(WORDS), shape, kind, offset),
            (name, other[1], kind, offset),
            (name, (number, *shape[1:]), kind, offset),
            (name, (*shape, number), kind, offset),
            (name, shape[:-1], kind, offset),
            (name, shape, chance.randrange(45), offset),
            (name, shape, chance.choice((24, 26, 9)), offset),
            (name, shape, kind, number),
        )
    )
    return evolve(image, tensors=tuple(tensors))


def _change_type(image: Image, chance: random.Random) -> Image:
    """Tensors of another type with offsets that fit again."""
    chosen = chance.choice((*range(45), 24, 26, 26, 1, 30))
    tensors, offset, unlucky = [], 0, chance.randrange(len(image.tensors))
    for index, (name, shape, kind, _) in enumerate(image.tensors):
        new = chosen if index == unlucky else kind
        tensors.append((name, shape, new, offset))
        size = {1: 2, 30: 2, 24: 1, 25: 2, 27: 8, 28: 8}.get(new, 4) * math.prod(shape)
        offset += -(-size // 32) * 32
    return evolve(
        image, tensors=tuple(tensors), data=image.data + bytes(len(image.data))
    )


def _drop_tensor(image: Image, chance: random.Random) -> Image:
    kept = chance.choice((image.tensors[:-1], image.tensors[1:], image.tensors[:3]))
    return evolve(image, tensors=kept or image.tensors)


RAW: tuple[Callable[[bytes, int, random.Random], bytes], ...] = (
    _flip,
    _truncate,
    _overwrite,
    _splice,
)
STRUCTURED: tuple[Callable[[Image, random.Random], Image], ...] = (
    _change_value,
    _change_number,
    _change_number,
    _change_word,
    _change_architecture,
    _change_tokenizer,
    _change_tokenizer,
    _drop_value,
    _swap_values,
    _change_tensor,
    _change_type,
    _drop_tensor,
)
OPTIONAL_KEYS = (
    *b"general.alignment general.type split.count split.no".split(),
    *(
        b"llama." + name
        for name in b"""
            attention.causal attention.key_length attention.sliding_window
            attention.sliding_window_pattern attention.value_length expert_count
            expert_group_count expert_group_used_count expert_used_count
            leading_dense_block_count nextn_predict_layers pooling_type
            rope.dimension_sections rope.freq_base rope.scaling.factor
            rope.scaling.type
        """.split()
    ),
    *(
        b"tokenizer.ggml." + name
        for name in b"""
            add_bos_token cls_token_id eot_token_id fim_pre_token_id mask_token_id
            merges padding_token_id pre precompiled_charsmap suppress_tokens
            token_type_count
        """.split()
    ),
)
ARCHITECTURES = b"""
    bert bloom clip cohere2 command-r dbrx deepseek deepseek2 falcon gemma gemma2 gemma3
    gpt-oss gpt2 granite grok jamba lfm2 llama4 mamba mamba2 minicpm mistral3 mpt
    nomic-bert olmo phi2 phi3 plamo qwen2 qwen2moe qwen3 rwkv6 stablelm starcoder t5
    t5encoder wavtokenizer-dec
""".split()
