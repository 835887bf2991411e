# ruff: noqa: E501 - edits of source lines and lists of event names read best unbroken
"""Deliberate mistakes: each breaks one rule of the design in the real code, and a bounded range of seeds must notice.

A mistake is a small edit of a function's source, made for the time of a `with`. An edit that no longer applies fails loudly: the rule has moved.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from holdfast_runtime.adapters import memory
from holdfast_runtime.coordinator import attempts, channels, far_timers, flush, node, owner, packing, recovery, shard, timers
from holdfast_runtime.engine import (
    accept,
    decide,
    finish,
    journal,
    key_listing,
    lifecycle,
    listing,
    notify,
    object_queue,
    operate,
    outbox,
    recent,
    restart,
    state_edit,
    transaction,
)
from holdfast_runtime.engine import attempts as engine_attempts
from holdfast_runtime.engine import timers as engine_timers
from holdfast_runtime.engine.commands import call, output, promise


class Outdated(Exception):
    """The code an edit is about has changed: adapt the mistake."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In the function `name` of `holder` (a module or a class), `old` becomes `new`."""

    holder: Any
    name: str
    old: str
    new: str


MISTAKES: Final[dict[str, list[Edit]]] = {
    # §4.1 transitions and durability
    "effects run before their batch is durable": [
        Edit(shard.Shard, "_commit", "self._effects.extend(tx.effects)", "[self._act(effect) for effect in tx.effects]")
    ],
    "answers do not wait for durability": [Edit(owner, "answerable", "if lsn > shard.durable:", "if False:")],
    "an attempt does not wait for what it is given": [Edit(attempts.Attempts, "_exchange", "await shard.until_durable(taken.lsn)", "pass")],
    "a page is loaded twice and the later answer wins": [
        Edit(shard.Shard, "load", "flight = self._loading.get(page_id)", "flight = None"),
        Edit(shard.Shard, "_fetch", "continue  # replaced", "pass  # replaced"),
    ],
    "a failed decision is not taken back": [Edit(shard.Shard, "_perform", "tx.rollback()", "pass")],
    # §4.2 append
    "a retried append carries more than the first try": [
        Edit(
            shard.Shard,
            "_append",
            "continue\n",
            "item = item._replace(operations=item.operations + b''.join(encode(o) for o in self._operations)); self._operations.clear(); continue\n",
        )
    ],
    "whoever is at our position counts as us": [Edit(shard.Shard, "_append", "there.nonce != self.nonce", "False")],
    "the lease is not checked": [
        Edit(shard.Shard, "is_stale", "return self.environment", "return False and self.environment"),
    ],
    # §4.3 flush
    "a page is flushed before its batch is durable": [
        Edit(flush.Flusher, "_flush", "await shard.until_durable(lsn)\n    if encoded", "if encoded")
    ],
    "a page is flushed with half a batch": [Edit(flush.Flusher, "_flush", "while page.lsn >= shard.open:", "while False:")],
    "a page that changed while it was flushed counts as clean": [Edit(flush.Flusher, "_cleaned", "if page.lsn != lsn:", "if False:")],
    "a dropped page leaves no tombstone": [
        Edit(flush.Flusher, "_flush", "if document is None and not page.stored:", "if document is None:")
    ],
    "an earlier owner's empty page counts as this one's": [
        Edit(recovery, "_load", "note_end(page_id, page)", "note_end(page_id, page); page.empty_there = page.document == {}")
    ],
    "the store takes an older page": [Edit(memory.MemoryPages, "put", "there.lsn >= page.lsn", "False")],
    "dirty pages are evicted": [Edit(flush.Flusher, "evict", "page.first is None", "True")],
    # Packs
    "a pack is written without what is in it": [
        Edit(packing.Packer, "_put", "there = await self._read(pack_id)", "there = None"),
    ],
    "a pack is preferred to what came later": [
        Edit(packing, "find", "if page_id not in found:", "if True:"),
        Edit(packing, "find", "found[page_id].lsn < entry.lsn", "True"),
    ],
    "a take-over does not look into packs": [
        Edit(recovery, "_load", "stored = await packing.find(", "stored = await (lambda get, ids, *_: get(ids))(")
    ],
    "a load does not look into packs": [
        Edit(
            shard.Shard,
            "read_pages",
            "return await packing.find(lambda wanted: self.insist(lambda: pages.get(wanted)), page_ids, self.environment.shards)",
            "return await self.insist(lambda: pages.get(page_ids))",
        )
    ],
    "what may have an item of its own is packed": [
        Edit(flush.Flusher, "_note", "not page.stored and", ""),
        Edit(flush.Flusher, "minted", "and not page.stored", ""),
    ],
    "a packed invocation that is purged leaves no tombstone": [Edit(packing.Packer, "_write", "snapshot.page.stored = True", "pass")],
    "the tombstone of a packed invocation goes before its entry": [
        Edit(flush, "_expires_at", "max(now + TOMBSTONE_MS, page.over_at + LOG_MS)", "now + TOMBSTONE_MS")
    ],
    "a pack goes with the first of its entries": [
        Edit(packing.Packer, "_write", "max(entry.kept_until_ms for", "min(entry.kept_until_ms for")
    ],
    "a pack is written before its batch is durable": [
        Edit(packing.Packer, "pack", "await self._shard.until_durable(newest)", "pass"),
        Edit(packing.Packer, "_snapshots", "or page.lsn > self._shard.durable", ""),
    ],
    # §4.4 checkpoint
    "the checkpoint passes dirty pages": [
        Edit(flush.Flusher, "checkpoint", "checkpoint = min(first, shard.next)", "checkpoint = shard.next")
    ],
    "the store deletes a finished invocation while the log still holds it": [
        Edit(flush, "_expires_at", "return max(expires_at, now) + LOG_MS if expires_at is not None else None", "return expires_at")
    ],
    # §4.5 ownership
    "the log is not sealed": [
        Edit(recovery, "_read_and_seal", "seal = LogItem", "return items\n        seal = LogItem"),
        Edit(recovery, "take", "sealed_at = acquired.checkpoint + len(items)", "sealed_at = acquired.checkpoint + len(items) - 1"),
    ],
    "the epoch is not looked at again after the seal": [
        Edit(recovery, "take", "now is None or now.epoch != acquired.epoch", "now is None")
    ],
    "a higher epoch in the log does not stop a take-over": [
        Edit(recovery, "_read_and_seal", "any(item.epoch > record.epoch for item in found)", "False")
    ],
    "a torn batch counts": [
        Edit(
            recovery,
            "_complete_batches",
            "if item.part == 0:",
            "if parts and item.part == 0: batches.append((parts[0].first, b''.join(p.operations for p in parts)))\n        if item.part == 0:",
        )
    ],
    "running invocations are not started by the next owner": [Edit(shard.Shard, "start", "self.attempts.start(invocation)", "pass")],
    "outboxes are not sent by the next owner": [Edit(channels.Channels, "start", 'self.send(destination, box["n"])', "pass")],
    "timers are not read by the next owner": [Edit(timers.Timers, "_load", "if before < at_ms <= horizon_ms:", "if False:")],
    "a lost shard that belongs elsewhere is not released": [
        Edit(node.Node, "_round", "elif held is None and record.shard not in self._taking:", "elif False:")
    ],
    # §4.6 channels
    "messages are acknowledged before they are durable": [
        Edit(owner, "serve", 'await answerable(shard, lsn)\n            return {"applied": applied}', 'return {"applied": applied}')
    ],
    "messages are applied without looking at their numbers": [Edit(outbox, "receive", "if sequence <= last:", "if False:")],
    "messages count as acknowledged when they were sent": [
        Edit(
            channels.Channels,
            "_send",
            "await environment.clock.sleep(environment.settings.resend_s)\n                continue",
            "applied = window[-1][0]",
        )
    ],
    # §6 operations
    "an attempt that was refused does not wait for another turn": [Edit(attempts.Attempts, "_refused", "token.turn = None", "pass")],
    "the answer of an overtaken attempt counts": [
        Edit(attempts.Attempts, "_commit", "guard=lambda: self._tokens.get(invocation) == token", "guard=None")
    ],
    "an end does not overtake the attempt in flight": [Edit(finish, "finish", "tx.overtake(invocation)", "pass")],
    "a suspension is matched against the whole journal": [
        Edit(
            engine_attempts,
            "_suspend",
            "journal.entries(tx, event.invocation, document, event.known)",
            "journal.entries(tx, event.invocation, document)",
        )
    ],
    "a suspension does not look at what came meanwhile": [Edit(engine_attempts, "_suspend", "if found is not None:", "if False:")],
    "an awakeable is completed by everybody who tries": [Edit(notify, "signal", "and name in document[model.SIGNALLED]:", "and False:")],
    "the key is released when its holder suspends": [
        Edit(
            lifecycle,
            "move",
            "before = Status(document[model.STATUS])",
            "before = Status(document[model.STATUS])\n    service, _, key, kind = document[model.TARGET]\n"
            "    if change is Change.SUSPEND and kind == 'exclusive':\n"
            "        __import__('holdfast_runtime.engine.object_queue', fromlist=['x']).leave(tx, service, key, invocation)",
        )
    ],
    "the queue of a key is served from its end": [
        Edit(
            object_queue,
            "_pop",
            "found: str | list[Any] | None = document[model.QUEUE].get(head)",
            "found = document[model.QUEUE].get(head)\n"
            "        if len(document[model.QUEUE]) > 1:\n"
            "            number = max(document[model.QUEUE])\n"
            "            found = document[model.QUEUE][number]\n"
            "            tx.delete(page_id, (model.QUEUE, number))\n"
            "            return found",
        )
    ],
    "results that are not kept are not remembered": [
        Edit(recent, "_entries", "for minute, (pages, _) in index.items()", "for minute, (pages, _) in ()")
    ],
    "an arrival is still called fresh when it is sent again": [Edit(node, "again", "if not event.fresh:", "if True:")],
    "a timer fires early": [
        Edit(
            timers.Timers,
            "_push",
            "first = self._heap[0]",
            "entry = (entry[0] - 25 * (entry[1] != _RETRY), *entry[1:])\n    first = self._heap[0]",
        ),
        Edit(engine_timers, "take", "found[0] > tx.now", "False"),
    ],
    "a second completion of a promise replaces the first": [
        Edit(promise, "complete", "if found is not None and found[0] != LISTENING:", "if False:"),
        Edit(
            promise, "complete", "found[1] if found is not None else ()", "found[1] if found is not None and found[0] == LISTENING else ()"
        ),
    ],
    "the children of an id's new life are those of the old one": [Edit(call, "_child_id", "life << 20 | index", "index")],
    "an arrival that comes over the network is trusted to be fresh": [
        Edit(node.Node, "_ask_once", 'if request["ask"] == "arrive":', "if False:")
    ],
    "a take-over that a checkpoint has passed goes on": [Edit(recovery, "_read_and_seal", "if not there.nonce:", "if False:")],
    "a request is forgotten while it may still be delivered again": [
        Edit(accept, "arrive", "if event.minted_at is not None:", "if False:")
    ],
    "an output without its end counts for nothing": [Edit(output, "stored", "if found is None:", "if True:")],
    "a merge forgets to note its change": [
        Edit(transaction.Transaction, "merge", "self.operations.append(operation)", "self.operations.append([page_id, None, {}])")
    ],
}
# What operators ask for, and what is forgotten in time.
OPERATED: Final[dict[str, list[Edit]]] = {
    "an operator's request that comes again is done again": [
        Edit(operate, "operate", "if event.request and event.request == request:", "if False:")
    ],
    "a pause cuts into the attempt in flight": [Edit(operate, "_pause", "status == Status.RUNNING and event.in_flight", "False")],
    "a failure ends a pause that was asked for": [
        Edit(engine_attempts, "_fail", "pause = bool(document.get(model.PAUSE_REQUESTED))", "pause = False")
    ],
    "a cancel leaves a pause that has not begun": [
        Edit(notify, "signal", "name == model.CANCEL_SIGNAL and document.get(model.PAUSE_REQUESTED)", "False")
    ],
    "a paused invocation goes on when something arrives": [
        Edit(
            notify,
            "_append",
            "if document[model.STATUS] != Status.SUSPENDED:",
            "if document[model.STATUS] == Status.PAUSED:\n        resume(tx, invocation, document)\n"
            "    if document[model.STATUS] != Status.SUSPENDED:",
        )
    ],
    "an invocation that runs is moved to another deployment": [
        Edit(operate, "_move", "pinned is None or document[model.STATUS] not in (Status.SUSPENDED, Status.PAUSED)", "pinned is None")
    ],
    "a resume goes on where it was, wherever it was to go": [
        Edit(operate, "_move", "tx.merge(model.invocation_page(event.invocation), {model.DEPLOYMENT: chosen.id})", "pass")
    ],
    "a restart asked for again is made again": [
        Edit(
            restart,
            "restart",
            "if tx.get(new_page) is not None or recent.recall(tx, event.new_invocation) is not None:",
            "if tx.get(new_page) is not None:",
        )
    ],
    "a restart takes the whole journal": [
        Edit(restart, "_prefix", "if index > upto and not missing:", "if False:"),
        Edit(restart, "_prefix", 'if index <= upto or (kind == "c" and name in missing):', "if True:"),
    ],
    "a restart from the middle forgets results that came late": [
        Edit(restart, "_prefix", 'if index <= upto or (kind == "c" and name in missing):', "if index <= upto:")
    ],
    "a purge leaves pages of the journal": [Edit(journal, "_drop_pages", "tx.drop(page_id)", "pass")],
    "a purge leaves the row of the finished": [
        Edit(listing, "unlist_finished", "tx.delete(model.finished_page(tx.shard, bucket, number), (invocation,))", "pass")
    ],
    "a row is not told of a retry": [
        Edit(engine_attempts, "_fail", "listing.list_status(tx, event.invocation, document, Status.RUNNING)", "pass")
    ],
    "a result is shown past its retention": [Edit(decide, "_look", "if accept.is_over(document, tx.now):", "if False:")],
    "a request joins a result past its retention": [
        Edit(accept, "arrive", "if document is not None and is_over(document, tx.now):", "if False:")
    ],
    "a result is forgotten before its retention is over": [
        Edit(decide, "_expire", "accept.is_over(document, tx.now)", "document[model.STATUS] == Status.DONE"),
        Edit(finish, "finish", "at=_known_until(tx, document, expires_at)", "at=tx.now + retention // 2"),
    ],
    "a journal stays after its retention": [Edit(finish, "_limit_journal", "elif kept < retention:", "elif False:")],
    "a full journal takes more": [Edit(engine_attempts, "apply", "journal.is_full(scope.document)", "False")],
    "an edit of state does not wait for its turn": [
        Edit(object_queue, "edit", "if document is not None and document.get(model.LOCK) is not None:", "if False:")
    ],
    "an edit of state is done as often as it is delivered": [
        Edit(object_queue, "edit", "if recent.recall(tx, page_id, event.request) is not None:", "if False:")
    ],
    "an edit of state in the queue is lost": [Edit(object_queue, "leave", "state_edit.apply(tx, service, key, following)", "pass")],
    "an edit of state does not look at the version": [Edit(state_edit, "apply", "fingerprint(before) != expected", "False")],
    "a key stays listed when its last value is gone": [Edit(key_listing, "emptied", "leave(tx, service, key, document)", "pass")],
    "far timers have no wake-up": [Edit(far_timers.FarTimers, "added", "if before is None or is_used_up or", "if False and")],
}
MISTAKES.update(OPERATED)
NAMES: Final = list(MISTAKES)


@contextlib.contextmanager
def made(name: str | None) -> Iterator[None]:
    """Within it the mistake is made; None: no mistake."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        edits = MISTAKES[name] if name is not None else []
        for holder, function in {(edit.holder, edit.name): None for edit in edits}:
            undo.append((holder, function, inspect.getattr_static(holder, function)))
            setattr(holder, function, _edited([edit for edit in edits if (edit.holder, edit.name) == (holder, function)]))
        yield
    finally:
        for holder, attribute, before in reversed(undo):
            setattr(holder, attribute, before)


def _edited(edits: list[Edit]) -> Any:
    """The function all `edits` are about, with them."""
    function = getattr(edits[0].holder, edits[0].name)
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise Outdated(f"{edit.name} holds {edit.old!r} {source.count(edit.old)} times, expected once; adapt the mistake to the code")
        source = source.replace(edit.old, edit.new)
    namespace: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, f"<mistake in {edits[0].name}>", "exec")
    exec(code, sys.modules[function.__module__].__dict__, namespace)
    return namespace[edits[0].name]
