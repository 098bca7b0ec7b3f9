"""Jobs: the whole chain, the dataset alone, the training alone, a comparison."""

import dagster as dg

from pipeline.compare_job import compare

DATASET = dg.AssetSelection.groups("crawl", "dataset")
TRAINING = dg.AssetSelection.groups("training", "evaluation", "registry")

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="Crawl, crop, label, pack, train, judge, register: the whole chain, in one run.",
)

refresh_dataset = dg.define_asset_job(
    "refresh_dataset",
    selection=DATASET,
    description="Take new posts in and build the training set again; trains nothing.",
)

train_and_judge = dg.define_asset_job(
    "train_and_judge",
    selection=TRAINING,
    description="Train on the training set as it is, judge the generator, move the alias if won.",
)

JOBS: list[dg.JobDefinition | dg.UnresolvedAssetJobDefinition] = [
    everything,
    refresh_dataset,
    train_and_judge,
    compare,
]
