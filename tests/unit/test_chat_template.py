"""Tests of rendering an untrusted chat template into text and control tokens."""

from __future__ import annotations

import datetime
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.chat_template import ROLES, ChatTemplate, Part
from llmcore.errors import ChatTemplateError

CHATML = """\
{%- for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GEMMA = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate') }}
{%- endif %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' ~ role ~ '\\n' ~ message.content | trim ~ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
MISTRAL = """\
{%- set ns = namespace(system='') %}
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{% set ns.system = message.content + '\\n\\n' %}
{%- elif message.role == 'user' %}
{{- '[INST] ' + ns.system + message.content + ' [/INST]' }}
{%- else %}{{ ' ' + message.content.strip() + eos_token }}
{%- endif %}
{%- endfor %}
"""
SPECIAL = {
    CHATML: {"<|im_start|>": 1, "<|im_end|>": 2},
    LLAMA3: {
        "<|begin_of_text|>": 10,
        "<|start_header_id|>": 11,
        "<|end_header_id|>": 12,
        "<|eot_id|>": 13,
    },
    GEMMA: {"<bos>": 20, "<start_of_turn>": 21, "<end_of_turn>": 22},
    MISTRAL: {"<s>": 30, "</s>": 31, "[INST]": 32, "[/INST]": 33},
}
BOS = {CHATML: None, LLAMA3: "<|begin_of_text|>", GEMMA: "<bos>", MISTRAL: "<s>"}
EOS = {CHATML: "<|im_end|>", LLAMA3: "<|eot_id|>", GEMMA: None, MISTRAL: "</s>"}
BARE = "{% for message in messages %}<|x|>{{ message.content }}<|y|>{% endfor %}"
BARE_TOKENS = {"<|x|>": 1, "<|y|>": 2, "<|x|><|y|>": 3, "<<": 4, "\x07": 5}


def template(source: str) -> ChatTemplate:
    return ChatTemplate(
        source,
        special_tokens=SPECIAL.get(source, {}),
        bos_token=BOS.get(source),
        eos_token=EOS.get(source),
    )


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def numbers(parts: list[Part]) -> list[int]:
    return [part for part in parts if isinstance(part, int)]


def text(parts: list[Part]) -> str:
    return "".join(part for part in parts if isinstance(part, str))


def failure(source: str) -> str:
    with pytest.raises(ChatTemplateError) as caught:
        template(source).render(user("hello"))
    return str(caught.value)


class TestStyles:
    def test_chatml(self) -> None:
        """A ChatML template gives its two control tokens as numbers."""
        assert [
            *(1, "user\nhello", 2, "\n"),
            *(1, "assistant\n"),
        ] == template(CHATML).render(user("hello"))

    def test_llama3(self) -> None:
        """A Llama 3 template gives the begin token and trimmed contents."""
        assert [
            *(10, 11, "user", 12, "\n\nhello", 13),
            *(11, "assistant", 12, "\n\n"),
        ] == template(LLAMA3).render(user("  hello\n"))

    def test_gemma(self) -> None:
        """A Gemma template calls the assistant its model."""
        messages = [*user("a"), {"role": "assistant", "content": "b"}, *user("c")]
        assert [
            *(20, 21, "user\na", 22, "\n", 21, "model\nb", 22, "\n"),
            *(21, "user\nc", 22, "\n", 21, "model\n"),
        ] == template(GEMMA).render(messages)

    def test_mistral(self) -> None:
        """A Mistral template puts the system prompt before the user's text."""
        messages = [{"role": "system", "content": "s"}, *user("u")]
        assert [30, 32, " s\n\nu ", 33] == template(MISTRAL).render(messages)

    def test_no_generation_prompt(self) -> None:
        """Without a generation prompt the last message ends the prompt."""
        parts = template(CHATML).render(user("a"), add_generation_prompt=False)
        assert [1, "user\na", 2, "\n"] == parts

    def test_refused_role(self) -> None:
        """What the template says when it refuses the messages is kept."""
        with pytest.raises(
            ChatTemplateError, match="refused the messages: System role not"
        ):
            template(GEMMA).render([{"role": "system", "content": "x"}])


class TestControlTokens:
    @pytest.mark.parametrize("source", SPECIAL)
    def test_user_text_stays_text(self, source: str) -> None:
        """A control token that a user types stays text, whole and unchanged."""
        special = SPECIAL[source]
        typed = "a" + "b".join(special) + "".join(special) + "c"
        parts = template(source).render(user(typed))
        assert numbers(template(source).render(user("x"))) == numbers(parts)
        assert typed in text(parts)

    @pytest.mark.parametrize(
        "typed",
        [
            "<|",
            "<",
            "  <|im_",
            "|im_end|>",
            ">",
            " \n>  ",
            "im_end",
            "|",
            "<|im_end|",
            "<<|",
        ],
    )
    @pytest.mark.parametrize("trim", ["", " | trim"])
    def test_halves_do_not_join(self, typed: str, trim: str) -> None:
        """A part of a control token is not completed by the template around it."""
        for before, after in (
            ("<|", "|>"),
            ("<|im_", "im_end|>"),
            ("<", ">"),
            ("", ""),
        ):
            source = f"{before}{{{{ messages[0].content{trim} }}}}{after}"
            chat = ChatTemplate(source, special_tokens={"<|im_end|>": 2, "<|im_>": 3})
            shown = typed.strip() if trim else typed
            assert [before + shown + after] == chat.render(user(typed))

    def test_neighbours_do_not_join(self) -> None:
        """Two messages side by side do not make a control token."""
        source = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
        chat = ChatTemplate(source, special_tokens={"<|im_end|>": 2})
        messages = [
            *user("<|im_ "),
            *user(" end|>"),
            *user("<|"),
            *user("im"),
            *user("_end|>"),
        ]
        assert ["<|im_end|><|im_end|>"] == chat.render(messages)

    @pytest.mark.parametrize(
        "cut",
        [
            ".replace('<x>', '')",
            "|replace('<x>', '')",
            ".split('<x>')|join",
            "|list|reject('in', '<x>')|join|replace('|i', '<|i')|replace('d|', 'd|>')",
        ],
    )
    def test_removal_does_not_make_one(self, cut: str) -> None:
        """A template that removes text cannot be tricked into a control token."""
        chat = ChatTemplate(
            f"<|im_end|>{{{{ messages[0].content{cut} }}}}",
            special_tokens={"<|im_end|>": 2},
        )
        assert [2] == numbers(chat.render(user("<|im<x>_e<x>nd|>")))

    def test_template_may_look_into_text(self) -> None:
        """A template that searches a message finds what is no control token there."""
        chat = ChatTemplate(
            "<s>{{ messages[0].content.split('</think>')[-1].lstrip() }}<s>",
            special_tokens={"<s>": 1},
        )
        assert [1, "b > c", 1] == chat.render(user("<think>a</think>\nb > c"))

    def test_tokens_made_of_pieces(self) -> None:
        """A template may build its control token out of pieces."""
        chat = ChatTemplate(
            "{{ '<|' + messages[0].role + '|>' }}", special_tokens={"<|user|>": 7}
        )
        assert [7] == chat.render(user(""))

    def test_longest_token_wins(self) -> None:
        """Of two control tokens that start alike the longer one is taken."""
        chat = ChatTemplate("<a><a>b", special_tokens={"<a>": 1, "<a>b": 2})
        assert [1, 2] == chat.render([])

    def test_all_private_characters(self) -> None:
        """A message may contain every private-use character of the basic plane."""
        everything = "<|im_end|>" + "".join(map(chr, range(0xE000, 0xF900)))
        assert everything in text(template(CHATML).render(user(everything)))

    def test_escaped_json(self) -> None:
        """A message survives a template that escapes it as ASCII JSON."""
        source = "{{ messages[0].content | tojson(ensure_ascii=true) }}"
        chat = ChatTemplate(source, special_tokens={"<|im_end|>": 2})
        assert ['"<|im_end|>\\u00e9"'] == chat.render(user("<|im_end|>é"))

    @given(
        st.lists(
            st.lists(
                st.one_of(
                    st.sampled_from(
                        ["<|", "|>", "x", "<|x|>", "<|y|>", "<", ">", "<<", "\x07"]
                    ),
                    st.sampled_from(
                        ["\ue000", "\\ue000", " ", "\n", "\0", "\ud800", "|y"]
                    ),
                    st.text(max_size=3),
                ),
                max_size=8,
            ).map("".join),
            min_size=1,
            max_size=3,
        )
    )
    def test_any_text(self, contents: list[str]) -> None:
        """Whatever users type is in the prompt, unchanged, and adds no number."""
        chat = ChatTemplate(BARE, special_tokens=BARE_TOKENS)
        parts = chat.render(
            [message for content in contents for message in user(content)]
        )
        benign = chat.render([message for _ in contents for message in user("b")])
        if all(contents):  # else <|x|><|y|> of the template are one token
            assert numbers(benign) == numbers(parts)
        assert "".join(contents) == text(parts)
        assert all(a != "" for a in parts)

    @given(st.text(st.characters(codec=None, categories=None)))
    def test_all_of_unicode(self, content: str) -> None:
        """Lone surrogates, NULs and private characters pass through."""
        assert (
            [content]
            if content
            else []
            == ChatTemplate(
                "{{ messages[0].content }}", special_tokens=BARE_TOKENS
            ).render(user(content))
        )


class TestMessages:
    @pytest.mark.parametrize("role", ["function", "", "User", None])
    def test_roles(self, role: str) -> None:
        """A role that is not known is named with its place."""
        with pytest.raises(ValueError, match=r"messages\[1\] has the role"):
            template(CHATML).render([*user("x"), {"role": role, "content": "x"}])

    def test_known_roles(self) -> None:
        """All four roles are passed on."""
        parts = template(CHATML).render([{"role": r, "content": ""} for r in ROLES])
        assert all(role in text(parts) for role in ROLES)

    @pytest.mark.parametrize("content", [None, b"x", 1, ["x"]])
    def test_content(self, content: str) -> None:
        """A content that is not text is refused."""
        with pytest.raises(
            TypeError, match=r"messages\[0\] must have a str as content"
        ):
            template(CHATML).render([{"role": "user", "content": content}])

    @pytest.mark.parametrize(
        "message", [{}, {"role": "user"}, {**user("")[0], "name": "x"}]
    )
    def test_keys(self, message: dict[str, str]) -> None:
        """A message with missing or unknown keys is refused."""
        with pytest.raises(
            ValueError, match=r"messages\[0\] must have 'role' and 'content'"
        ):
            template(CHATML).render([message])

    def test_variables(self) -> None:
        """Other variables reach the template."""
        chat = ChatTemplate("{{ tools | tojson }}", special_tokens={})
        assert ['[{"a": "é<"}]'] == chat.render([], tools=[{"a": "é<"}])

    def test_reserved_variables(self) -> None:
        """A variable cannot replace one that the template is given anyway."""
        with pytest.raises(ValueError, match="'bos_token' is not a free variable"):
            template(CHATML).render([], bos_token="<s>")


class TestDialect:
    def test_loop_controls(self) -> None:
        """Templates may use break and continue."""
        stop = "{% if i == 2 %}{% break %}{% endif %}"
        source = f"{{% for i in range(9) %}}{stop}{{{{ i }}}}{{% endfor %}}"
        assert ["01"] == template(source).render([])

    def test_generation_blocks(self) -> None:
        """The marks of generated text are only their contents."""
        source = "a{% generation %}b{{ 1 }}{% endgeneration %}c"
        assert ["ab1c"] == template(source).render([])

    def test_clock(self) -> None:
        """The date comes from the clock that was given."""
        chat = ChatTemplate(
            "{{ strftime_now('%d %b %Y') }}",
            special_tokens={},
            clock=lambda: datetime.datetime(2024, 7, 26),
        )
        assert ["26 Jul 2024"] == chat.render([])

    def test_tools_of_the_language(self) -> None:
        """Macros, recursive loops, namespaces, slices and tests work."""
        source = """\
{%- macro twice(x) %}{{ x }}{{ x }}{% endmacro %}
{%- set ns = namespace(n=0) %}
{%- for i in [1, [2, [3]]] recursive %}
{%- if i is sequence %}{{ loop(i) }}{% else %}{% set ns.n = ns.n + i %}{% endif %}
{%- endfor %}
{{- twice('a') ~ ns.n ~ 'abc'[::-1] ~ (7 % 4) ~ 'x' * 2 ~ (ns is defined) }}
{%- for k, v in {'a': 1}.items() if v %}{{ k ~ loop.length ~ loop.last }}{% endfor %}"""
        assert ["aa6cba3xxTruea1True"] == template(source).render([])

    def test_threads(self) -> None:
        """One template renders in many threads at once."""
        chat = template(CHATML)
        results: list[list[Part]] = []
        gate = threading.Barrier(4)

        def render() -> None:
            gate.wait()
            results.extend(chat.render(user("x")) for _ in range(20))

        threads = [threading.Thread(target=render) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [chat.render(user("x"))] * 80 == results
