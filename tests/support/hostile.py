"""Texts that would act on a format in which they are written, and readers that show a format's text as it is."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt

TEXTS = {
    "input": "Title\n\\input{/etc/passwd}\n\n% next \\par",
    "latex": r"^^M \write18{id} $\frac{a}{b}$ & # _ ~ {x} ``y'' ?` <z>",
    "row": "[2pt] * \\\\",
    "star": "*important",
    "heading": "# heading\n===\n---",
    "list": "- item\n1. item\n+ item",
    "number": "1) first",
    "link": "[text](javascript:alert(1)) ![image](x) [a]: b [c][d] <http://x>",
    "task": "[x] done",
    "emphasis": "**bold** _it_ ~~gone~~ `code` ``more`` ```fence",
    "cell": "a | b || \\| c",
    "quote": "> quoted",
    "html": "<script>alert(1)</script><!-- --> &lt; &#33; \"'>",
    "mathematics": "cost $5 and $6 $\\alpha$",
    "rule": "***",
    "code": "    indented",
    "equals": '=HYPERLINK("http://x";"y")',
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3",
    "at": "@SUM(A1:A2)",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "apostrophe": "'=1",
    "wide": "\uff1d1+1",
    "escape": "\x1b[31mred\x07 \x9b2J \x1b]0;title\x07 back\x08\x08",
    "direction": "abc\u202egpj.exe\u2066",
    "no text": "\0 \ud800 \uffff",
    "separator": "one\u2028two\x85three\vfour",
}


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.text += data


def shown_by_markdown(source: str) -> tuple[set[str], str]:
    """Return the tags and the text of the HTML that GitHub Markdown is shown as."""
    parser = _Texts()
    parser.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))
    parser.close()
    return set(parser.tags), parser.text
