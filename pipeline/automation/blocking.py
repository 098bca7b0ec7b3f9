"""Blocking checks: which guard the manifest, and which have not passed on what is there now."""

from collections.abc import Iterator, Sequence

import dagster as dg

LOOKED_BACK = 50  # runs in a row that may have ended before a check that they planned


def guarding_checks(
    assets: Sequence[dg.AssetsDefinition],
    checks: Sequence[dg.AssetChecksDefinition],
    guarded: str,
) -> list[dg.AssetCheckKey]:
    """Returns the blocking checks of the asset `guarded` and of all that it is made from."""
    chain = dg.AssetSelection.assets(guarded).upstream().resolve(assets)
    return [
        spec.key
        for check in checks
        for spec in check.check_specs
        if spec.blocking and spec.asset_key in chain
    ]


def unpassed_checks(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> list[str]:
    """Returns what stands against each check: that it failed, or did not run on what is there now.

    A check that fails as a warning only (severity WARN) lets Dagster go on, and us.
    """
    return [fault for key in checks for fault in _fault(instance, key)]


def _fault(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[str]:
    asset = key.asset_key.to_user_string()
    made = instance.fetch_materializations(key.asset_key, limit=1).records
    if not made:
        yield f"{asset} was never materialised, so its blocking check {key.name} has not run"
        return
    evaluation = _last_evaluation(instance, key)
    if evaluation is None or not _is_of(evaluation, made[0].storage_id):
        yield f"the blocking check {key.name} has not run since {asset} was materialised"
    elif not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
        yield f'the blocking check {key.name} of {asset} failed: "{evaluation.description}"'


def _last_evaluation(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> dg.AssetCheckEvaluation | None:
    """The last time that it came to a verdict: runs that ended before it have only planned it."""
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=LOOKED_BACK)
    verdicts = (record.evaluation for record in history)
    return next((one for one in verdicts if isinstance(one, dg.AssetCheckEvaluation)), None)


def _is_of(evaluation: dg.AssetCheckEvaluation, storage_id: int) -> bool:
    target = evaluation.target_materialization_data
    return target is not None and target.storage_id == storage_id
