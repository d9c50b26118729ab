"""A self-contained HTML page: typography, tables, figures and films inline; light and dark; no scripts, nothing from outside.

All text passes through `text`; captions and file names may hold anything.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visviva.data.files import whole

STYLE = """
:root{color-scheme:light dark;
--ink:#1f2430;--soft:#5c6473;--line:#e3e6ec;--paper:#fff;--card:#f7f8fa;--blue:#2456d6;--amber:#a86a00;
--red:#c2352b;--green:#1c7c4a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ee;--soft:#9aa1b0;--line:#2b303a;--paper:#14171d;--card:#1b1f27;--blue:#8fb1ff;
--amber:#f2b44b;--red:#ff8378;--green:#6fd39d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 Charter,"Bitstream Charter",
"Sitka Text",Cambria,Georgia,serif}
main{max-width:1080px;margin:0 auto;padding:48px 24px 96px}
h1{font-size:2.1rem;line-height:1.15;letter-spacing:-.01em;margin:0 0 .4rem}
h2{font-size:1.35rem;margin:3.2rem 0 .6rem;padding-top:1.2rem;border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:0 0 .25rem;overflow-wrap:anywhere}
p{max-width:72ch;margin:.5rem 0 1rem;overflow-wrap:anywhere}
.lead{font-size:1.15rem;color:var(--soft)}
.note,figcaption,td,th,.badge,summary,dl{font-family:system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
.note,figcaption{font-size:.82rem;line-height:1.45;color:var(--soft)}
.big{display:flex;flex-wrap:wrap;gap:14px;margin:1.4rem 0}
.big div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 18px;min-width:150px}
.big b{display:block;font-size:1.55rem;line-height:1.2;font-variant-numeric:tabular-nums}
.big span{font:.8rem/1.35 system-ui,sans-serif;color:var(--soft)}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;width:100%}
th{font-weight:600;text-align:right;vertical-align:bottom;padding:6px 10px;border-bottom:1.5px solid var(--ink)}
td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
td small{display:block;color:var(--soft);font-size:.75rem}
figure{margin:1rem 0}
figure img{max-width:100%;height:auto;border-radius:6px}
video{max-width:100%;border-radius:6px;border:1px solid var(--line);background:#000}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:1.2rem 0}
.side{display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start}
.badge{display:inline-block;font-size:.74rem;font-weight:600;padding:2px 9px;border-radius:99px;border:1px solid currentColor;
margin-right:6px}
.better,.ok{color:var(--green)}.worse,.bad{color:var(--red)}.none{color:var(--soft)}.caution{color:var(--amber)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft);font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.76rem;background:var(--card);border:1px solid
var(--line);border-radius:8px; padding:12px}
"""

BADGES = {"better": "better", "worse": "worse", "no significant difference": "none", "measured": "ok", "not measured": "bad"}


def text(content: object) -> str:
    """Return content as HTML text: everything special is escaped, control characters are dropped."""
    return html.escape("".join(c for c in str(content) if c in "\n\t" or ord(c) >= 32), quote=True)


@dataclass
class Page:
    """A page under construction; every method adds one element and escapes what it is given.

    Example::

        page = Page("Report", "Twenty clips, one model.")
        page.heading("Results")
        page.table(["", "IoU"], [["free fall", "0.81"]])
        page.write("report.html")
    """

    title: str
    lead: str = ""
    parts: list[str] = field(default_factory=list)

    def heading(self, content: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{text(content)}</h2>")

    def paragraph(self, content: str, kind: str = "") -> None:
        """Add a paragraph; ``kind`` is empty, ``lead`` or ``note``."""
        self.parts.append(f'<p class="{kind}">{text(content)}</p>')

    def numbers(self, items: Sequence[tuple[str, str]]) -> None:
        """Add large numbers with a word of explanation each: (number, explanation)."""
        cells = "".join(f"<div><b>{text(n)}</b><span>{text(e)}</span></div>" for n, e in items)
        self.parts.append(f'<div class="big">{cells}</div>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | tuple[str, str]]]) -> None:
        """Add a table; a cell that is a pair shows its second part small below the first."""

        def cell(content: str | tuple[str, str]) -> str:
            if isinstance(content, tuple):
                return f"<td>{text(content[0])}<small>{text(content[1])}</small></td>"
            return f'<td class="{BADGES[content]}">{text(content)}</td>' if content in BADGES else f"<td>{text(content)}</td>"

        heads = "".join(f"<th>{text(h)}</th>" for h in head)
        body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
        self.parts.append(f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>')

    def figure(self, images: tuple[bytes, bytes], caption: str = "") -> None:
        """Add a figure drawn for light and for dark pages."""
        light, dark = (_data(i, "image/png") for i in images)
        self.parts.append(
            f'<figure><picture><source media="(prefers-color-scheme:dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{text(caption)}"></picture><figcaption>{text(caption)}</figcaption></figure>'
        )

    def image(self, content: bytes, caption: str = "", kind: str = "image/png") -> None:
        """Add one image for both themes."""
        self.parts.append(
            f'<figure><img src="{_data(content, kind)}" alt="{text(caption)}"><figcaption>{text(caption)}</figcaption></figure>'
        )

    def film(self, content: bytes, caption: str = "") -> None:
        """Add a looping film."""
        self.parts.append(
            f'<figure><video src="{_data(content, "video/mp4")}" autoplay loop muted playsinline controls></video>'
            f"<figcaption>{text(caption)}</figcaption></figure>"
        )

    def open_card(self, title: str, badge: str = "") -> None:
        """Begin a card about one clip; `close_card` ends it."""
        mark = f'<span class="badge {BADGES.get(badge, "none")}">{text(badge)}</span>' if badge else ""
        self.parts.append(f'<section class="card"><h3>{mark}{text(title)}</h3>')

    def close_card(self) -> None:
        """End a card."""
        self.parts.append("</section>")

    def details(self, summary: str, content: str) -> None:
        """Add text that unfolds on demand."""
        self.parts.append(f"<details><summary>{text(summary)}</summary><pre>{text(content)}</pre></details>")

    def html(self) -> str:
        """Return the whole page."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{text(self.title)}</title><style>{STYLE}</style></head><body><main><h1>{text(self.title)}</h1>"
            f'<p class="lead">{text(self.lead)}</p>{"".join(self.parts)}</main></body></html>\n'
        )

    def write(self, path: str | Path) -> Path:
        """Write the page at once, or not at all, and return its path."""
        path = Path(path)
        with whole(path) as part:
            part.write_text(self.html())
        return path


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
