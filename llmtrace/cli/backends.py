"""`llmtrace backends`: what is installed, and what works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmtrace.cli.options import Command, Out, out_options

if TYPE_CHECKING:
    from llmtrace.plugins import BackendEntry, Plugins
    from llmtrace.protocol import TraceBackend

NOTHING = "./no-such-model"
"""What every backend can say at once that it does not open."""


@click.command(cls=Command)
@out_options()
def backends(out: Out) -> None:
    """List the installed backends with their settings, the influence methods, the viewers and the motifs.

    A plugin that cannot be loaded is listed as broken, with the reason; the others work. Each backend is asked about a model that is
    not there, so that one that fails or takes its time to answer is listed too.
    """
    from llmtrace.cli.output import answer, say
    from llmtrace.plugins import plugins

    found = asked(plugins())
    for error in found.errors:
        say(out, f"warning: {error}")
    answer(out, lambda: document(found), lambda: show(found))


def asked(found: Plugins) -> Plugins:
    """The same, with every working backend asked once; what is wrong with an answer is among what is broken."""
    from attrs import evolve

    from llmtrace.plugins import BrokenPlugin
    from llmtrace.probing import answer

    backends, broken = dict(found.backends), list(found.broken)
    for name, entry in found.backends.items():
        if entry.backend is None or entry.status != "ok":
            continue
        _, fault = answer(entry.backend, NOTHING, None)
        if fault:
            fix = f"upgrade {entry.distribution or 'it'} or uninstall it, and tell its author; until then, name a backend (--backend)"
            backends[name] = evolve(entry, status="broken", reason=fault)
            broken.append(
                BrokenPlugin(entry.plugin or name, entry.distribution, entry.version, "llmtrace_backends", fault, fix)
            )
    return evolve(found, backends=backends, broken=tuple(broken))


def document(found: Plugins) -> dict[str, Any]:
    """What `--json` prints."""
    from attrs import asdict

    from llmtrace.schema import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "backends": [_backend(found.backends[name]) for name in sorted(found.backends)],
        "methods": [
            {"name": row.name, "title": row.title, "needs": row.needs, "cost": row.cost, "source": row.source}
            for row in found.methods.values()
        ],
        "viewers": sorted(found.viewers),
        "motifs": [{"name": motif.name, "title": motif.title, "paper": motif.paper} for motif in found.motifs.values()],
        "errors": [str(error) for error in found.errors],
        "broken": [asdict(each) for each in found.broken],
    }


def _backend(entry: BackendEntry) -> dict[str, Any]:
    backend = entry.backend
    about = {"name": entry.name, "distribution": entry.distribution, "version": entry.version}
    broken: dict[str, Any] = {
        "runtime": None if backend is None else backend.runtime,
        "status": "broken",
        "reason": entry.reason,
        "capabilities": [],
        "options": [],
    }
    if backend is None:
        return about | broken
    try:
        own = {"capabilities": list(getattr(backend, "capabilities", ())), "options": _options(backend)}
    except Exception as error:  # a stranger's class may raise anything; the others are listed all the same
        return about | broken | {"reason": f"its settings cannot be read: {type(error).__name__}: {error}"}
    return about | broken | own | {"status": entry.status}


def _options(backend: type[TraceBackend]) -> list[dict[str, Any]]:
    """Its settings, with what they are under each preset."""
    from attrs import fields

    exact, shipped = backend.preset("exact"), backend.preset("shipped")
    return [
        {
            "name": field.name,
            "type": getattr(field.type, "__name__", None) or str(field.type),
            "exact": getattr(exact, field.name),
            "shipped": getattr(shipped, field.name),
        }
        for field in fields(backend.options)
    ]


def show(found: Plugins) -> None:
    """Tables, for people."""
    from llmtrace.cli.output import line, table

    rows = [_backend(found.backends[name]) for name in sorted(found.backends)]
    table(
        ("backend", "distribution", "version", "runtime", "status", "supports"),
        [
            (r["name"], r["distribution"], r["version"], r["runtime"] or "?", r["status"], ", ".join(r["capabilities"]))
            for r in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row["reason"]:
            line(f"  {row['name']}: {row['reason']}")
    settings = [
        (row["name"], o["name"], o["type"], str(o["exact"]), str(o["shipped"])) for row in rows for o in row["options"]
    ]
    if settings:
        line()
        table(("backend", "option (-o name=value)", "type", "exact", "shipped"), settings)
    line()
    table(
        ("influence method", "needs", "cost", "what it is"),
        [(m.name, m.needs, m.cost, m.title) for m in found.methods.values()],
    )
    line()
    line("viewers: " + (", ".join(sorted(found.viewers)) or "none"))
    line("motifs: " + (", ".join(found.motifs) or "none"))
    if found.broken:
        line()
    for each in found.broken:
        reason = each.reason.rstrip(".")
        fix = "" if reason.endswith(each.fix) else f": {each.fix}"
        line(f"broken plugin: {' '.join(filter(None, (each.plugin, 'of', each.owner, each.version)))}: {reason}{fix}")
