"""Labels in groups, and labels by the names that people type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import UsageError
from dataset.vocabulary import appearance
from studio.character import known_labels
from studio.draw import Group, label_groups

TAGS = sorted(appearance().groups)


def test_labels_come_in_the_vocabularys_groups_and_in_the_models_order() -> None:
    labels = ("ponytail", "blue_eyes", "red_hair", "ahoge", "blonde_hair", "long_hair")
    assert label_groups(labels) == [
        Group("hair_length", "Hair length", ("long_hair",), single=True),
        Group("hair_colour", "Hair colour", ("red_hair", "blonde_hair"), single=True),
        Group("hair_style", "Hair style", ("ponytail", "ahoge"), single=False),
        Group("eye_colour", "Eye colour", ("blue_eyes",), single=True),
    ]


def test_labels_that_the_vocabulary_does_not_know_stand_together_at_the_end() -> None:
    groups = label_groups(("smile", "halo", "moustache"))
    assert [(group.name, group.labels, group.single) for group in groups] == [
        ("on_the_head", ("halo",), False),
        ("other", ("smile", "moustache"), False),
    ]


def test_an_alias_stands_where_its_tag_does() -> None:
    assert [group.name for group in label_groups(("silver_hair",))] == ["hair_colour"]


def test_a_model_without_labels_has_no_groups() -> None:
    assert label_groups(()) == []


@given(st.lists(st.sampled_from([*TAGS, "smile", "silver_hair"]), unique=True))
def test_each_label_is_in_exactly_one_group(labels: list[str]) -> None:
    members = [label for group in label_groups(labels) for label in group.labels]
    assert sorted(members) == sorted(labels)


def test_names_come_back_in_the_models_order_each_once() -> None:
    known = ("blonde_hair", "blue_eyes", "halo")
    assert known_labels(["halo", " blonde hair", "halo"], known) == ("blonde_hair", "halo")


@pytest.mark.parametrize(
    ("names", "reported"),
    [
        (
            ["blond_hair"],
            'unknown label "blond_hair"; did you mean "blonde_hair"? '
            "This model knows blonde_hair, blue_eyes.",
        ),
        (["zzz"], 'unknown label "zzz". This model knows blonde_hair, blue_eyes.'),
        (
            ["zzz", "halo"],
            '2 labels are unknown:\n  unknown label "zzz"\n  unknown label "halo"\n'
            "This model knows blonde_hair, blue_eyes.",
        ),
        ([3], 'unknown label "3". This model knows blonde_hair, blue_eyes.'),
    ],
)
def test_unknown_labels_are_named_with_the_nearest(names: list[object], reported: str) -> None:
    with pytest.raises(UsageError) as raised:
        known_labels(names, ("blonde_hair", "blue_eyes"))
    assert str(raised.value) == reported


def test_of_many_known_labels_the_message_names_some() -> None:
    with pytest.raises(UsageError, match="label39 and 60 more"):
        known_labels(["zzz"], [f"label{number}" for number in range(100)])
    with pytest.raises(UsageError, match="This model knows no labels"):
        known_labels(["zzz"], [])
