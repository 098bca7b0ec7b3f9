"""Promotion: moves the champion's alias through a log, so that a kill at any point is repaired.

A move is written down first (begun), then the aliases and tags follow, then it is done. The next
call finishes what is still marked as begun. One process of a machine at a time holds the lock;
what two machines on one server may do is read back and settled by the later number
(docs/promotion.md).
"""

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.errors import RegistryError
from dataset.store import LocalFolder, Store, file_lock
from models.registry.client import TrackingClient
from models.registry.gate import MeasuredVersion, decide
from models.registry.promotion_log import (
    BEGUN,
    GATE,
    PERSON,
    PROMOTE,
    ROLLBACK,
    Promotion,
    champions_on,
    read_promotion_log,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

DECISION = "omokage.decision"  # the reason, on the version
DECIDED_BY = "omokage.decided_by"
DECIDED_ON = "omokage.decided_on"  # the manifest and protocol that the decision rests on
ROLLED_BACK = "omokage.rolled_back"  # when and why; the gate lets such a version alone
TAKEDOWN = "omokage.takedown"  # it learnt from pictures that were taken down since: which, when

LOCK = "promotion.lock"
PATIENCE_S = 60.0
ATTEMPTS = 5  # measuring takes minutes, in which another may become champion

Measure = Callable[["ModelVersion"], Mapping[str, Any]]
"""Returns the evaluation of a version; those that it returns can be compared."""


@dataclass(frozen=True)
class Outcome:
    """What came of asking for a move."""

    moved: bool
    champion: str  # version that has the alias now; "" is none
    reason: str
    move: Promotion | None = None  # the one that was made


class PromotionBusyError(RegistryError):
    """Another process of this machine is moving the aliases."""


def lock_folder(store: Store) -> Path:
    """Returns where the locks of a home lie."""
    return store.state.local("")


def promotion_lock(
    folder: Path, *, patience_s: float = PATIENCE_S
) -> contextlib.AbstractContextManager[None]:
    """Keeps other processes of this machine from moving aliases while the block works.

    The lock ends with its process, however that ends. Raises PromotionBusyError, naming the file,
    if another still holds it after `patience_s`.
    """
    path = LocalFolder(folder).make_folder("") / LOCK
    busy = PromotionBusyError(
        f"another promotion or rollback is at work and has held {path} for "
        f"{patience_s:.0f} s; wait for it, or end it, and ask again"
    )
    return file_lock(path, timeout_s=patience_s, busy=busy)


def promote(
    tracking: TrackingClient,
    lock: Path,
    version: str,
    *,
    measure: Measure,
    settled_on: str = "",
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Lets the gate decide whether a version becomes champion, and moves the aliases if so.

    settled_on: evidence on which an earlier decision about the version stands, unmeasured. The
    measuring is done without the lock; who becomes champion in the meantime is measured too.
    Raises RegistryError if there is no such version, or the champion keeps changing.
    """
    for _ in range(ATTEMPTS):
        with promotion_lock(lock, patience_s=patience_s):
            _put_right(tracking)
            candidate, holder = wanted_version(tracking, version), tracking.holder(CHAMPION)
        stands = _standing(candidate, holder, settled_on=settled_on)
        if stands:
            return Outcome(False, _number(holder), stands)
        challenger = MeasuredVersion.of(str(candidate.version), measure(candidate))
        champion = None if holder is None else MeasuredVersion.of(_number(holder), measure(holder))
        with promotion_lock(lock, patience_s=patience_s):
            _put_right(tracking)
            if _number(tracking.holder(CHAMPION)) == _number(holder):
                return _decided(tracking, candidate, challenger, champion)
    raise RegistryError(
        f"the champion of {tracking.model} changed {ATTEMPTS} times while version {version} was "
        "measured against it; ask again when it is quiet"
    )


def promote_anyway(
    tracking: TrackingClient,
    lock: Path,
    version: str,
    *,
    reason: str,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Makes a version champion without the gate, because a person says so, with her reason.

    One that learnt from pictures that were taken down is refused all the same.
    """
    with promotion_lock(lock, patience_s=patience_s):
        _put_right(tracking)
        candidate, holder = wanted_version(tracking, version), tracking.holder(CHAMPION)
        if _number(holder) == version:
            return Outcome(False, version, f"version {version} is the champion already")
        if taken := _taken_down(candidate):
            return Outcome(False, _number(holder), taken)
        return _moved(tracking, source=_number(holder), to=str(candidate.version), by=PROMOTE,
                      reason=reason)  # fmt: skip


def rollback(
    tracking: TrackingClient, lock: Path, *, reason: str = "", patience_s: float = PATIENCE_S
) -> Outcome:
    """Gives the alias back to the version that had it before; twice changes nothing.

    The version that is left is tagged with reason and time, and the gate lets it alone after that.
    """
    with promotion_lock(lock, patience_s=patience_s):
        _put_right(tracking)
        holder, before = tracking.holder(CHAMPION), tracking.holder(PREVIOUS)
        if before is None or _number(before) == _number(holder):
            return Outcome(
                False,
                _number(holder),
                f"there is nothing to go back to: no other version has the alias {PREVIOUS}",
            )
        if taken := _taken_down(before):
            return Outcome(False, _number(holder), taken)
        source, to = _number(holder), _number(before)
        said = f"version {source or '(none)'} was rolled back to version {to}"
        full_reason = f"{said}: {reason}" if reason else said
        return _moved(tracking, source=source, to=to, by=ROLLBACK, reason=full_reason)


def notice(
    tracking: TrackingClient, lock: Path, *, patience_s: float = PATIENCE_S
) -> Promotion | None:
    """Records a move that a person made in MLflow's own UI, and puts `previous` right.

    Returns it, or None if the champion is where the journal says. Finishes first what a killed
    process left begun.
    """
    with promotion_lock(lock, patience_s=patience_s):
        _settle(tracking)
        return _notice(tracking)


def settle(
    tracking: TrackingClient, lock: Path, *, patience_s: float = PATIENCE_S
) -> list[Promotion]:
    """Finishes the moves that killed processes left begun; returns them."""
    with promotion_lock(lock, patience_s=patience_s):
        return _settle(tracking)


def champions(tracking: TrackingClient) -> list[Promotion]:
    """Returns all moves of the champion, the newest first."""
    return read_promotion_log(tracking.model_tags())[::-1]


def wanted_version(tracking: TrackingClient, version: str) -> "ModelVersion":
    """Returns a version; raises RegistryError, naming those that there are, if it is none."""
    found = tracking.version(version)
    if found is None:
        there = [str(one.version) for one in tracking.versions({})]
        listed = f"there are {', '.join(there[:10])}" if there else "there is none yet: make demo"
        raise RegistryError(f'{tracking.model} has no version "{version}"; {listed}')
    return found


def newest_version(tracking: TrackingClient) -> str:
    """Returns the newest version that was not rolled back; RegistryError if there is none."""
    found = [one for one in tracking.versions({}) if ROLLED_BACK not in one.tags]
    if not found:
        raise RegistryError(
            f"{tracking.model} has no version that could be promoted yet; `make demo` makes one"
        )
    return str(found[0].version)


def evidence_of(evaluation: Mapping[str, Any]) -> str:
    """Returns what a decision rests on: the digests of manifest and protocol, shortened."""
    return _evidence(evaluation["manifest_digest"], evaluation["protocol_digest"])


def _evidence(manifest: str, protocol: str) -> str:
    return f"{manifest[:12]}-{protocol[:12]}"


def _put_right(tracking: TrackingClient) -> None:
    _settle(tracking)
    _notice(tracking)


def _standing(candidate: "ModelVersion", holder: "ModelVersion | None", *, settled_on: str) -> str:
    """Returns why there is nothing to decide; an empty text if there is."""
    version, tags = str(candidate.version), candidate.tags
    if taken := _taken_down(candidate):
        return taken
    if settled_on and tags.get(DECIDED_ON) == settled_on and DECISION in tags:
        return tags[DECISION]
    if _number(holder) == version:
        already = f"version {version} is the champion already"
        return f"{already} ({tags[DECISION]})" if DECISION in tags else already
    if ROLLED_BACK in tags:
        return (
            f"version {version} was rolled back ({tags[ROLLED_BACK]}), so the gate lets it alone; "
            f"`omokage promote {version} --force --reason TEXT` makes it champion all the same"
        )
    return ""


def _taken_down(version: "ModelVersion") -> str:
    """Returns why nothing, no person either, makes a version champion; an empty text if nothing."""
    if TAKEDOWN not in version.tags:
        return ""
    return (
        f"version {version.version} learnt from pictures that were taken down "
        f"({version.tags[TAKEDOWN]}), so it cannot become champion; build the manifest again and "
        "train on that one, without going on from this version"
    )


def _decided(
    tracking: TrackingClient,
    candidate: "ModelVersion",
    challenger: MeasuredVersion,
    champion: MeasuredVersion | None,
) -> Outcome:
    """Carries out what the gate says of the candidate's numbers and the champion's."""
    log = read_promotion_log(tracking.model_tags())
    decision = decide(challenger, champion, champions_on(log, challenger.terms))
    version, incumbent = challenger.version, "" if champion is None else champion.version
    evidence = _evidence(*challenger.terms)
    if decision.moves:
        measured = (challenger,) if champion is None else (champion, challenger)
        return _moved(
            tracking, source=incumbent, to=version, by=GATE, reason=decision.reason,
            evidence=evidence, measured=measured,
        )  # fmt: skip
    # The newest of those that lost is the challenger. The tags come last: where they stand, it is.
    if int(tracking.aliases().get(CHALLENGER, "0")) < int(version):
        tracking.set_alias(CHALLENGER, version)
    tracking.tag_version(candidate, _decision_tags(GATE, decision.reason, evidence))
    return Outcome(False, incumbent, decision.reason)


def _moved(
    tracking: TrackingClient,
    *,
    source: str,
    to: str,
    by: str,
    reason: str,
    evidence: str = "",
    measured: tuple[MeasuredVersion, ...] = (),
) -> Outcome:
    move = _made(
        tracking, source=source, to=to, by=by, reason=reason, evidence=evidence, measured=measured
    )
    last = champions(tracking)[0]
    if last.number > move.number:
        others = (
            f"{reason}; another machine moved the champion at the same time, and its move "
            f"{last.number} to version {last.to or '(none)'} is the later one, so that one stands"
        )
        return Outcome(False, last.to, others, move)
    return Outcome(True, to, reason, move)


def _made(
    tracking: TrackingClient,
    *,
    source: str,
    to: str,
    by: str,
    reason: str,
    evidence: str = "",
    measured: tuple[MeasuredVersion, ...] = (),
) -> Promotion:
    """Writes a move down, carries it out, and reads back that it holds; returns it as done."""
    at = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    move = Promotion(0, source, to, by, reason, at, evidence=evidence, measured=measured)
    for _ in range(ATTEMPTS):
        move = _begun(tracking, move)
        _carry_out(tracking, move)
        if _finished(tracking, move):
            return move.done()
    raise _contended(tracking)


def _begun(tracking: TrackingClient, move: Promotion) -> Promotion:
    """Writes a move down under the next number; under a later one if another machine took that."""
    for _ in range(ATTEMPTS):
        journal = read_promotion_log(tracking.model_tags())
        number = journal[-1].number + 1 if journal else 1
        move = dataclasses.replace(move, number=number)
        tracking.tag_model(move.tag, move.to_json())
        if move.is_same(_found(tracking, move)):
            return move
    raise _contended(tracking)


def _finished(tracking: TrackingClient, move: Promotion) -> bool:
    """Marks a move as done; False if another machine wrote its own over it.

    If there is a later move by now, the aliases go where that one wants them.
    """
    if not move.is_same(_found(tracking, move)):
        return False
    tracking.tag_model(move.tag, move.done().to_json())
    last = read_promotion_log(tracking.model_tags())[-1]
    if last.number > move.number:
        _carry_out(tracking, last)
    return True


def _found(tracking: TrackingClient, move: Promotion) -> Promotion | None:
    journal = read_promotion_log(tracking.model_tags())
    return next((one for one in journal if one.number == move.number), None)


def _contended(tracking: TrackingClient) -> RegistryError:
    return RegistryError(
        f"other machines keep moving the champion of {tracking.model} at {tracking.place}; look at "
        "`omokage champions` and ask again when it is quiet"
    )


def _settle(tracking: TrackingClient) -> list[Promotion]:
    """Finishes what stands as begun; only the last move says where the aliases belong."""
    journal = read_promotion_log(tracking.model_tags())
    unfinished = [move for move in journal if move.state == BEGUN]
    for move in unfinished:
        if move is journal[-1]:
            _carry_out(tracking, move)
        tracking.tag_model(move.tag, move.done().to_json())
    return [move.done() for move in unfinished]


def _notice(tracking: TrackingClient) -> Promotion | None:
    model = tracking.registered()
    if model is None:
        return None
    journal = read_promotion_log(model.tags)
    aliases = {name: str(version) for name, version in model.aliases.items()}
    now, before = aliases.get(CHAMPION, ""), journal[-1].to if journal else ""
    if now == before:
        return None
    if not journal:
        _adopt(tracking, now, aliases.get(PREVIOUS, ""))
        return None
    whose = f"version {now} was made champion" if now else f"version {before} lost the alias"
    reason = f"{whose} by hand, in MLflow"
    return _made(tracking, source=before, to=now, by=PERSON, reason=reason)


def _adopt(tracking: TrackingClient, now: str, before: str) -> None:
    """Begins the journal of a registry that has a champion and is older than journals."""
    tags = wanted_version(tracking, now).tags
    reason = tags.get(DECISION, f"version {now} was champion when the journal began")
    _made(tracking, source=before, to=now, by=GATE, reason=reason,
          evidence=tags.get(DECIDED_ON, ""))  # fmt: skip


def _carry_out(tracking: TrackingClient, move: Promotion) -> None:
    """Brings aliases and tags to where a move wants them; what is there already is not written."""
    aliases = tracking.aliases()
    source, to = tracking.version(move.source), tracking.version(move.to)
    # `previous` goes first: with it right, a rollback is right at every moment after.
    if move.by == ROLLBACK:
        _place(tracking, aliases, PREVIOUS, "")
    elif source is not None:  # the first of all leaves none behind, and a deleted one cannot be had
        _place(tracking, aliases, PREVIOUS, move.source)
    if to is not None and move.by != PERSON:
        _place(tracking, aliases, CHAMPION, move.to)
    if to is not None and aliases.get(CHALLENGER) == move.to:
        tracking.drop_alias(CHALLENGER)
    if move.by == ROLLBACK and source is not None:
        tracking.tag_version(source, {ROLLED_BACK: f"{move.at[:19]}Z: {move.reason}"})
    elif move.by != ROLLBACK and to is not None:
        tracking.untag_version(to, ROLLED_BACK)  # the journal keeps that it was
        tracking.tag_version(to, _decision_tags(move.by, move.reason, move.evidence))


def _place(tracking: TrackingClient, aliases: Mapping[str, str], alias: str, version: str) -> None:
    if aliases.get(alias, "") == version:
        return
    if version:
        tracking.set_alias(alias, version)
    else:
        tracking.drop_alias(alias)


def _decision_tags(by: str, reason: str, evidence: str) -> dict[str, str]:
    """Returns a version's tags; what the gate once decided on stays where a person decides."""
    return {DECISION: reason, DECIDED_BY: by} | ({DECIDED_ON: evidence} if evidence else {})


def _number(version: "ModelVersion | None") -> str:
    return "" if version is None else str(version.version)
