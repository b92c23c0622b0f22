"""What a hostile or broken chat template cannot do."""

from __future__ import annotations

import pytest

from llmcore.chat_template import ChatTemplate
from llmcore.errors import ChatTemplateError

from .test_chat_template import LLAMA3, failure, numbers, template, user

MANY, END = "{% for i in range(99999) %}", "{% endfor %}"


class TestFailures:
    def test_no_template(self) -> None:
        """A model without a template names the fix."""
        with pytest.raises(ChatTemplateError, match="pass one as chat_template="):
            ChatTemplate(None, special_tokens={})

    def test_syntax(self) -> None:
        """A syntax error names the line."""
        with pytest.raises(ChatTemplateError, match="syntax error in line 2"):
            template("a\n{% if %}")

    def test_cause(self) -> None:
        """What went wrong inside is kept as the cause."""
        with pytest.raises(
            ChatTemplateError, match="failed: division by zero"
        ) as caught:
            template("{{ 1 / 0 }}").render([])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize(
        "source",
        [
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ ''['__class__'] }}",
            "{{ messages[0].content.__class__ }}",
            "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
            "{{ joiner.__init__.__globals__ }}",
            "{{ lipsum.__globals__['os'] }}",
            "{{ self._TemplateReference__context }}",
            "{{ namespace.__init__.__globals__ }}",
            "{{ dict.__base__ }}",
            "{{ raise_exception.__globals__ }}",
            "{{ strftime_now.func }}",
            "{{ ''|attr('__class__') }}",
            "{{ '{0.__class__}'.format(messages) }}",
            "{{ '{m.__class__}'.format_map({'m': messages}) }}",
            "{{ ('{0.__class__}'|safe).format(messages) }}",
            "{{ '%s' % messages }}",
            "{{ ['{0.__class__}']|map('format', messages)|list }}",
            "{{ messages|map(attribute='__class__')|list }}",
            "{{ messages|map('attr', '__class__')|list }}",
            "{{ messages.append(1) }}",
            "{{ messages[0].update({'role': 'x'}) }}",
            "{{ (1).to_bytes(9, 'big') }}",
            "{% import 'os' as os %}",
            "{% from 'os' import popen %}",
            "{% include '/etc/passwd' %}",
            "{% extends 'base' %}",
            "{% block a %}{{ self.a() }}{% endblock %}",
        ],
    )
    def test_no_way_out(self, source: str) -> None:
        """A template cannot reach Python, the files, or the caller's objects."""
        assert "chat template" in failure(source)

    @pytest.mark.parametrize(
        "source",
        [
            MANY + MANY + END + END,
            MANY + "{% for b in range(99999) if b < 0 %}" + END + END,
            "{% for a in [[1]] recursive %}{{ loop(range(99999)|list * 50) }}" + END,
            "{% macro m(n) %}{{ m(n-1) ~ m(n-1) if n }}{% endmacro %}{{ m(60) }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% set x = 'a' * 8000000 %}" + MANY + "{{ 'b' in x }}" + END,
            "{% set x = 'a' * 8000000 %}" + MANY + "{{ x[::-1]|length }}" + END,
            "{% set x %}" + MANY + "a" * 5000 + END + "{% endset %}",
            "{% set x %}" + MANY + "aaaa{# #}" * 5000 + END + "{% endset %}",
            MANY + "a" * 250 + END,
            "{{ 'x' * 10**10 }}",
            "{{ 10**10 * 'x' }}",
            "{{ [0] * 10**10 }}",
            "{{ 9 ** (9 ** 9) }}",
            "{{ 2 ** -(10 ** 9) }}",
            "{{ '%9999999999d' % 1 }}",
            "{{ '{:>9999999999}'.format(1) }}",
            "{{ strftime_now('%9999999999d') }}",
            "{{ {'a': 1}|tojson(indent=10**9) }}",
            "{{ range(99999)|join('x' * 1000000) }}",
            "{{ ('x' * 1000000).join(range(99999)|map('string')|list) }}",
            "{{ ('x' * 9999).replace('', 'x' * 9999) }}",
            "{{ ('x' * 9999)|replace('', 'x' * 9999) }}",
            "{{ range(10**9)|list }}",
            "{{ 'x'|center(10**10) }}",
            "{{ 1|batch(10**10) }}",
            "{{ lipsum(n=10**9) }}",
            "{% set a = namespace(x=1) %}{{ namespace(x=a, y=a) }}",
            "a" * (2**20 + 1),
            "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
            "{% if 1 %}" * 999 + "{% endif %}" * 999,
        ],
        ids=lambda source: source[:60],
    )
    def test_no_explosion(self, source: str) -> None:
        """A template that wants endless time or memory ends with an error."""
        assert "chat template" in failure(source)

    @pytest.mark.parametrize(
        "grow",
        [
            "ns.x ~ ns.x",
            "ns.x + ns.x",
            "[ns.x, ns.x]",
            "(ns.x, ns.x)",
            "{'a': ns.x, 'b': ns.x}",
            "[ns.x, ns.x]|join",
            "ns.x|replace('a', ns.x)",
            "ns.x.join([ns.x, ns.x, ns.x])",
            "ns.x|string * 2",
            "ns.x|tojson|tojson ~ ns.x",
        ],
    )
    def test_no_growth(self, grow: str) -> None:
        """A value that grows in a loop meets the limit."""
        loop = f"{{% for i in range(99) %}}{{% set ns.x = {grow} %}}{{% endfor %}}"
        assert "chat template failed: it " in failure(
            "{% set ns = namespace(x='aa') %}" + loop
        )

    def test_numbers_do_not_grow(self) -> None:
        """A number that is squared in a loop meets the limit."""
        source = "{% set ns = namespace(x=7) %}{% for i in range(99) %}" + (
            "{% set ns.x = ns.x * ns.x %}{% endfor %}"
        )
        assert "more than 1024 bits" in failure(source)

    def test_long_chats(self) -> None:
        """A chat of a thousand long messages is far from every limit."""
        parts = template(LLAMA3).render(user("hello " * 500) * 1000)
        assert 1000 == numbers(parts).count(13)
