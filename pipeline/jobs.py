"""Jobs: the whole chain, the dataset alone, the training alone, a comparison."""

from typing import Any

import dagster as dg

from pipeline.compare_job import compare
from pipeline.promotion_jobs import PROMOTION_JOBS

DATASET = dg.AssetSelection.groups("crawl", "dataset")
TRAINING = dg.AssetSelection.groups("training", "evaluation", "registry")
# dagster.yaml lets one run with this tag through at a time: runs of the chain share one home.
CHAIN = {"omokage/chain": "home"}

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="Crawl, crop, label, pack, train, judge, register: the whole chain, in one run.",
    tags=CHAIN,
)

refresh_dataset = dg.define_asset_job(
    "refresh_dataset",
    selection=DATASET,
    description="Take new posts in and build the training set again; trains nothing.",
    tags=CHAIN,
)

train_and_judge = dg.define_asset_job(
    "train_and_judge",
    selection=TRAINING,
    description="Train on the training set as it is, judge the generator, move the alias if won.",
    tags=CHAIN,
)

JOBS: list[Any] = [everything, refresh_dataset, train_and_judge, compare, *PROMOTION_JOBS]
